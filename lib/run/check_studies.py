"""Can the studies be run? Everything that params.yaml says is looked at before anything runs.

    python -m lib.run.check_studies [study ...]

By default the studies of `run`. Names, types, lists and numbers of all sections are checked by the
rooms that use them; then it says how long a study will take that was not measured so far.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from lib.core import params, paths
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import key_of, read_json, write_json
from lib.core.parameters import ParameterError
from lib.core.progress import say

Sections = dict[str, dict[str, Any]]


def check(study: str) -> Sections:
    """The study's sections as the measuring functions take them; what cannot be run raises."""
    from lib.attention import measure as attention
    from lib.core import stage
    from lib.data import datasets, prepare
    from lib.evaluation import embeddings, mask_robustness, remedies_measure
    from lib.evaluation import measure as evaluation
    from lib.masks import quality, sources
    from lib.models import trunks
    from lib.training import study as training

    steps: dict[str, Callable[..., Any]] = {
        "data": prepare.measure, "masks": quality.measure, "train": training.measure,
        "shift": evaluation.measure, "attention": attention.measure,
        "remedies": remedies_measure.measure,
    }  # fmt: skip
    made = {part: stage.given(step, part, study) for part, step in steps.items()}
    sections = {part: {k: v for k, v in values.items() if k != "study"}
                for part, values in made.items()}  # fmt: skip
    data, masks, train, shift = (sections[part] for part in ("data", "masks", "train", "shift"))
    datasets.check_options(data["dataset"], data["options"])
    for source in [masks["source"], *masks.get("compare", [])]:
        sources.check(source, data["dataset"])
    training.recipes(data["dataset"], **train)
    trunks.get(train["trunk"])
    if not train["image_size"] <= data["side"]:
        raise StudyError(
            f"train.image_size is {train['image_size']}, data.side {data['side']}: crops would "
            "only be enlarged. Lower image_size or raise side."
        )
    embeddings.plan(shift["conditions"], shift["draws"], shift["draws_control"])
    for source in mask_robustness.named(masks["source"], shift["mask_variants"]):
        sources.check(source, data["dataset"])
    attention.check(**{k: v for k, v in sections["attention"].items() if k != "seed"})
    remedies_measure.check(**sections["remedies"])
    if "random_background" not in sections["remedies"]["conditions"]:
        raise StudyError(
            "`conditions` (remedies) lack 'random_background': page 07 sets every remedy's quality "
            "on it against that on clean images. Add it."
        )
    return sections


# --------------------------------------------------------------------------------- expected time

# Images a second on two cores of an AMD EPYC at 128 x 128 pixels with the small trunk; masks of
# u2netp. A network takes its time by pixels.
TRAINED, EMBEDDED, MASKED = 60, 110, 3.5
METHODS = {"smoothgrad": 0, "gradient": 1, "integrated_gradients": 16, "occlusion": 64}


def minutes(sections: Sections, images: dict[str, int]) -> dict[str, float]:
    """Minutes of every step at most, on two cores.

    Args:
        sections: of `check`. images: number of images by split.
    """
    train, shift, look = (sections[part] for part in ("train", "shift", "attention"))
    pixels = (train["image_size"] / 128) ** 2
    models = len(train["losses"]) * len(train["arms"]) * len(train["seeds"])
    updates = models * train["epochs"] * train["iterations"] * train["batch"]
    validated = 2 * models * (train["epochs"] + 1) * images["validation"]
    draws = len(shift["conditions"]) - 1 + shift["draws"]
    variants = 2 * len(train["arms"]) * (1 + len(shift["mask_variants"]))
    embedded = images["test"] * ((models + 1) * draws + variants)
    seen, some, few = (min(look[name], images["test"])
                       for name in ("images", "images_methods", "images_checks"))  # fmt: skip
    passes = {name: look["copies"] if name == "smoothgrad" else cost
              for name, cost in METHODS.items()}  # fmt: skip
    methods = sum(passes.get(text.partition("/")[0], 2) for text in look["methods"])
    stability = 2 * sum(look["copies_levels"]) + len(look["noise_levels"]) * look["copies"]
    explained = (models + 1) * seen * look["copies"] + (len(train["arms"]) + 2) * some * methods
    explained += few * (5 * methods + len(train["arms"]) * stability)
    seconds = {
        "masks": sum(images.values()) / MASKED,
        "training": pixels * (updates / TRAINED + validated / EMBEDDED),
        "shift": pixels * embedded / EMBEDDED,
        "attention": pixels * explained / TRAINED,
    }
    return {name: value / 60 for name, value in seconds.items()}


def expected(study: str, sections: Sections) -> str:
    """How long the study will take, in words; "" where its images are not at hand."""
    from lib.data import datasets

    name, options = sections["data"]["dataset"], sections["data"]["options"]
    if not datasets.get(name).own:
        return ""
    folder, _ = datasets.locate(name, options)
    table = datasets.read(name, folder, options)
    counts = {split: int((table["split"] == split).sum()) for split in datasets.SPLITS}
    found = minutes(sections, counts)
    parts = ", ".join(f"{step} {value:.0f}" for step, value in found.items() if value >= 0.5)
    models = (len(sections["train"][key]) for key in ("losses", "arms", "seeds"))
    several = " x ".join(map(str, models))
    return (
        f"{study}: {len(table):,} images of {table['label'].nunique()} classes, {several} models "
        f"(losses x arms x seeds): up to {sum(found.values()) + 2:.0f} minutes on two cores "
        f"(minutes: {parts}). It goes on where it was stopped. To know in minutes what the "
        "background does to a model that is trained already: make audit."
    )


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, or 2 where a study cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m lib.run.check_studies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("studies", nargs="*", help="studies of params.yaml (default: `run`)")
    asked = parser.parse_args(argv).studies
    try:
        everything = params.everything()
        if not asked:
            params.check_run(everything)
        for study in asked or everything["run"]:
            _check_once(study)
    except (ParameterError, StudyError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _check_once(study: str) -> None:
    """Check a study, unless nothing has changed since it was found sound (it takes seconds)."""
    values = params.study(study)
    record = paths.StudyPaths(study).scratch / "checked.json"
    rooms = ("data", "masks", "models", "training", "evaluation", "attention", "images", "run")
    key = key_of(values=values, code=fingerprint("core", *rooms))
    measured = (paths.StudyPaths(study).measured / "evaluation" / "study.json").exists()
    if measured and record.exists() and read_json(record) == key:
        return
    sections = check(study)
    if not measured and (told := expected(study, sections)):
        say(told)
    write_json(record, key)


if __name__ == "__main__":
    sys.exit(main())
