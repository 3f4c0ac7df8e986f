"""The whole study, tiny, through DVC in a clone: from nothing to the front page."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lib.core import paths

LOSSES = ["triplet", "normalized_softmax"]
TINY = {
    "data": {
        "dataset": "rendered", "side": 72, "backgrounds": "rendered", "background_count": 6,
        "options": {"seed": 0, "bias": 0.9, "test_bias": 0.9, "images_per_class": 4, "side": 80,
                    "classes": {"train": 4, "val": 2, "test": 6}},
    },
    "masks": {"source": "true"},
    "train": {
        "trunk": "efficientnet_lite0", "embedding": 16, "image_size": 64, "optimiser": "adamw",
        "lr_trunk": 1e-4, "lr_head": 1e-3, "lr_loss": 1e-2, "weight_decay": 1e-4, "batch": 8,
        "iterations": 2, "epochs": 1, "patience": 1, "precision": "f32", "p": 1.0, "seeds": [0],
    },
    "shift": {
        "conditions": ["clean", "random_background", "same_class_background",
                       "other_class_background", "own_background", "foreground_only",
                       "background_only"],
        "draws": 2, "draws_control": 1, "mask_variants": ["eroded"],
    },
    "attention": {"images": 6, "copies": 2, "noise": 0.15, "seed": 0, "images_methods": 6,
                  "images_checks": 6, "copies_levels": [1, 2], "noise_levels": [0.15, 0.3]},
}  # fmt: skip


class Clone:
    """A copy of the repository with one tiny study."""

    def __init__(self, root: Path):
        self.root, self.reports = root, root / "reports" / "tiny"
        for name in _tracked():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths.ROOT / name, target)
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        self.set()

    def set(self, **changes: dict) -> None:
        """Write params.yaml with `section={key: value}` changed."""
        study = {part: {**values, **changes.get(part, {})} for part, values in TINY.items()}
        content = {"run": ["tiny"], "losses": LOSSES, "studies": {"tiny": study}}
        content["repeat"] = {"studies": ["tiny"], "seeds": [1]}
        (self.root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def repro(self, *targets: str) -> list[str]:
        """Run `dvc repro` as make does; the names of the stages that ran."""
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        environment.pop("PYTHONPATH", None)
        subprocess.run([sys.executable, "-m", "lib.core.params"], cwd=self.root, check=True)
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", *targets],
            cwd=self.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        lines = done.stdout.splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def bytes_of(self, *patterns: str) -> dict[str, bytes]:
        """Content of all files that match, by name."""
        files = [file for pattern in patterns for file in self.root.glob(pattern)]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in sorted(files)}


def _tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    made = ("reports/", "dvc.lock", "repeat/dvc.lock", "dial/dvc.lock")
    kept = [name for name in listed.stdout.splitlines() if not name.startswith(made)]
    return [name for name in kept if (paths.ROOT / name).is_file()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tiny study, run once for all tests of this file."""
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.first = made.repro()
    return made


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("pipeline")]


def test_every_stage_ran_once(clone: Clone) -> None:
    trained = [f"train@tiny-{loss}" for loss in LOSSES]
    others = [f"{stage}@tiny" for stage in ("data", "masks", "shift", "attention", "report")]
    assert sorted(clone.first) == sorted([*trained, *others, "index"])


def test_the_tables_hold_every_model_condition_and_metric(clone: Clone) -> None:
    table = pd.read_csv(clone.reports / "retrieval.csv")
    models = table[["loss", "arm", "seed"]].drop_duplicates()
    assert len(models) == 1 + 2 * len(LOSSES)
    assert set(table["metric"]) == {"map_at_r", "r_precision", "p_at_1"}
    draws = table.groupby("condition")["draw"].nunique()
    assert draws["random_background"] == 2 and draws["clean"] == 1
    assert set(table["sides"]) == {"both", "query"}
    assert len(table) == 5 * 3 * (1 + (2 + 5) * 2)
    assert table["value"].between(0, 1).all() and (table["n"] == 24).all()
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_the_means_come_from_the_rows_of_the_queries(clone: Clone) -> None:
    rows = pd.read_parquet(clone.root / "data/shift/tiny/per_query.parquet")
    table = pd.read_csv(clone.reports / "retrieval.csv")
    keys = ["loss", "arm", "seed", "condition", "sides", "draw"]
    expected = rows.groupby(keys)["map_at_r"].mean()
    seen = table[table["metric"] == "map_at_r"].set_index(keys)["value"]
    np.testing.assert_allclose(seen.sort_index(), expected.sort_index(), atol=1e-6)


def test_effects_are_paired_differences(clone: Clone) -> None:
    table = pd.read_csv(clone.reports / "retrieval.csv")
    effects = pd.read_csv(clone.reports / "effects.csv")
    one = effects[(effects["contrast"] == "shifted-clean") & (effects["sides"] == "both")]
    one = one[(one["metric"] == "map_at_r") & (one["condition"] == "random_background")]
    for row in one.itertuples():
        mine = table[(table["loss"] == row.loss) & (table["arm"] == row.arm)]
        mine = mine[(mine["metric"] == "map_at_r") & (mine["sides"] == "both")]
        level = mine.groupby("condition")["value"].mean()
        assert row.value == pytest.approx(level["random_background"] - level["clean"], abs=2e-6)
        assert row.low <= row.value <= row.high and 0 < row.p <= row.p_holm <= 1
    assert len(one) == 5


def test_masks_made_worse_and_classes_are_reported(clone: Clone) -> None:
    masks = pd.read_csv(clone.reports / "mask_sensitivity.csv")
    assert list(masks["masks"].unique()) == ["true", "true+eroded"]
    assert masks["loss"].nunique() == 1 and masks["usable"].between(0, 1).all()
    classes = pd.read_csv(clone.reports / "classes.csv")
    assert len(classes) == 5 * 6 and classes["uniformity"].between(0, 1).all()
    intervals = pd.read_csv(clone.reports / "intervals.csv")
    assert set(intervals["covers"]) == {"classes", "draws", "seeds"}
    assert intervals[intervals["covers"] == "seeds"]["low"].isna().all()  # one seed


def test_attention_training_and_masks_are_complete(clone: Clone) -> None:
    attention = pd.read_csv(clone.reports / "attention.csv")
    score = attention[attention["metric"] == "attention_score"]
    assert len(score) == 5 and (score["n"] == 6).all() and (score["value"] < 1).all()
    controls = pd.read_csv(clone.reports / "attention_controls.csv").set_index("control")["value"]
    assert controls["uniform"] == pytest.approx(0, abs=1e-6)
    assert controls["true_mask"] > 0.9 and abs(controls["random_weights"]) < 1
    methods = pd.read_csv(clone.reports / "attention_methods.csv")
    arms = {"random", "untrained", "base", "bgaugment", "base-random", "bgaugment-base"}
    assert set(methods["arm"]) == arms and methods.groupby(["method", "target"]).ngroups == 8
    cascade = pd.read_csv(clone.reports / "attention_cascade.csv")
    start = cascade[(cascade["share"] == 0) & (cascade["metric"] == "rank_correlation")]
    assert start["value"].dropna().to_numpy() == pytest.approx(1)
    stability = pd.read_csv(clone.reports / "attention_stability.csv")
    assert set(stability["level"]) == {1, 2, 0.15, 0.3}
    areas = pd.read_csv(clone.reports / "faithfulness.csv")
    assert areas["map"].nunique() == 8 + 3 + 2
    link = pd.read_csv(clone.reports / "attention_link.csv")
    assert (link[link["over"] == "models"]["n"] <= 4).all()
    training = pd.read_csv(clone.reports / "training.csv")
    assert len(training) == len(LOSSES) * 2 * 2 * 2  # arms, epochs 0 and 1, conditions
    masks = pd.read_csv(clone.reports / "masks.csv")
    assert masks[masks["metric"] == "iou_mean"]["value"].item() == pytest.approx(1)


def test_every_page_is_there_and_says_its_numbers(clone: Clone) -> None:
    pages = {file.stem for file in clone.reports.glob("*.html")}
    expected = {"01_data", "02_masks", "04_shift", "05_attention", "06_report"}
    assert pages == expected | {f"03_train_{loss}" for loss in LOSSES}
    answers = json.loads((clone.reports / "answers.json").read_text())
    front = (clone.root / "reports" / "index.html").read_text()
    assert answers["finding"] in front
    report = (clone.reports / "06_report.html").read_text()
    assert report.count("Answer:") >= 7 and "Traceback" not in report


def test_cells_that_promise_an_output_keep_the_promise(clone: Clone) -> None:
    """nbval runs the executed pages again and compares the cells tagged nbval-check-output."""
    pages = [str(clone.reports / f"{name}.ipynb") for name in ("01_data", "06_report")]
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(clone.root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-c", os.devnull, *pages],
        cwd=clone.root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    checked = sum(Path(page).read_text().count("nbval-check-output") for page in pages)
    assert checked >= 10
    assert " passed" in done.stdout


def test_nothing_changed_runs_nothing(clone: Clone) -> None:
    assert clone.repro() == []


def test_one_changed_value_runs_only_what_depends_on_it(clone: Clone) -> None:
    before = clone.bytes_of("reports/tiny/retrieval.csv", "reports/tiny/attention.csv")
    clone.set(attention={"images": 5})
    assert clone.repro() == ["attention@tiny", "report@tiny", "index"]
    after = clone.bytes_of("reports/tiny/retrieval.csv", "reports/tiny/attention.csv")
    changed = [name for name, content in before.items() if after[name] != content]
    assert changed == ["reports/tiny/attention.csv"]
    clone.set()
    clone.repro()
    assert clone.bytes_of("reports/tiny/attention.csv").items() <= before.items()


@pytest.mark.fault(
    "killed/nothing",
    "everything deleted",
    "a tiny study run from nothing, deleted, run again",
    "every table, weight, page and figure has the same bytes",
)
def test_from_nothing_again_gives_the_same_bytes(clone: Clone) -> None:
    what = ("reports/tiny/*.csv", "reports/tiny/*.html", "reports/tiny/*.ipynb")
    what += ("data/models/tiny/*/*.safetensors", "reports/tiny/figures/**/*.*")
    before = clone.bytes_of(*what)
    assert len(before) > 30
    for folder in ("data/prepared", "data/masks", "data/models", "data/shift", "data/attention"):
        shutil.rmtree(clone.root / folder)
    for folder in ("data/scratch", "data/raw", ".dvc/cache", ".dvc/tmp", "reports"):
        shutil.rmtree(clone.root / folder)
    (clone.root / "dvc.lock").unlink()
    clone.repro()
    after = clone.bytes_of(*what)
    assert [name for name in before if before[name] != after.get(name)] == []


def test_another_seed_is_trained_and_enters_the_answers(clone: Clone) -> None:
    first = pd.read_csv(clone.reports / "effects.csv")
    assert clone.repro("repeat/dvc.yaml") == ["repeat/dvc.yaml:repeat@tiny-1"]
    folder = clone.root / "reports" / "repeats" / "tiny"
    table = pd.read_csv(folder / "retrieval_1.csv")
    assert set(table["condition"]) == {"clean", "random_background"} and set(table["seed"]) == {1}
    assert len(table) == 4 * 3 * (1 + 2 * 2)  # models, metrics, clean and draws x sides
    training = pd.read_csv(folder / "training_1.csv")
    assert len(training) == len(LOSSES) * 2 * 2 * 2 and set(training["seed"]) == {1}
    assert set(training["precision"]) == {"f32"}
    assert clone.repro() == ["report@tiny", "index"]
    assert clone.repro() == [] and clone.repro("repeat/dvc.yaml") == []
    key = {"contrast": "shifted-clean", "condition": "random_background", "sides": "both"}
    key |= {"metric": "map_at_r", "arm": "base"}
    both = pd.concat([first, pd.read_csv(folder / "effects_1.csv")])
    found = both.loc[np.logical_and.reduce([both[name] == what for name, what in key.items()])]
    assert sorted(found["seed"]) == [0, 0, 1, 1]
    every = pd.read_csv(clone.reports / "all_seeds.csv")
    own = pd.read_csv(clone.reports / "retrieval.csv")
    assert every.equals(pd.concat([own, table], ignore_index=True)[list(every)])
    answers = json.loads((clone.reports / "answers.json").read_text())
    assert answers["seeds"] == 2 and answers["over_seeds"].startswith("Over 2 seeds")
    said = f"takes {-100 * found['value'].mean():.1f} ["
    assert (
        said in answers["finding"]
        and answers["finding"] in (clone.root / "reports" / "index.html").read_text()
    )
    page = (clone.reports / "08_repeat_1.html").read_text()
    assert "Trained again with seed 1" in page and "Traceback" not in page
