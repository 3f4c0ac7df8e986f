"""The whole study, tiny, through DVC in a clone: from nothing to the front page."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lib.core import paths

LOSSES = ["triplet", "normalized_softmax"]
ARMS = ["base", "bgaugment", "blackaugment"]
# The third arm is one entry in the clone, and nothing else.
ENTRY = """
ARMS["blackaugment"] = Arm(
    "BlackAugment", replaced(lambda batch: torch.zeros_like(batch.images)), "random_background"
)
"""
TINY = {
    "data": {
        "dataset": "rendered", "side": 72, "backgrounds": "rendered", "background_count": 6,
        "options": {"seed": 0, "bias": 0.9, "test_bias": 0.9, "images_per_class": 4, "side": 80,
                    "classes": {"train": 4, "val": 2, "test": 6}},
    },
    "masks": {"source": "true"},
    "train": {
        "losses": LOSSES, "arms": ARMS, "seeds": [0],
        "trunk": "efficientnet_lite0", "embedding": 16, "image_size": 64, "optimiser": "adamw",
        "lr_trunk": 1e-4, "lr_head": 1e-3, "lr_loss": 1e-2, "weight_decay": 1e-4, "batch": 8,
        "iterations": 2, "epochs": 1, "patience": 1, "precision": "f32",
    },
    "shift": {
        "conditions": ["clean", "random_background", "unshared_background",
                       "same_class_background", "other_class_background", "own_background",
                       "foreground_only", "background_only"],
        "draws": 2, "draws_control": 1, "mask_variants": ["eroded"],
    },
    "attention": {"images": 6, "copies": 2, "noise": 0.15, "seed": 0, "images_methods": 6,
                  "images_checks": 6, "copies_levels": [1, 2], "noise_levels": [0.15, 0.3],
                  "methods": ["smoothgrad/distance_to_black", "gradient/distance_to_black",
                              "grad_cam/similarity_to_nearest"]},
    "remedies": {"conditions": ["clean", "random_background"], "arms": ["base"], "classes": 4,
                 "remedies": ["cut_out", "box_crop", "late_mask"], "mask_source": "u2netp@160"},
}  # fmt: skip
MEASURING = ["data", "masks", "mask_summary", "train", "shift", "attention", "remedies"]
TELLING = [
    "page_data",
    "page_masks",
    "page_train",
    "page_shift",
    "page_attention",
    "page_report",
    "page_remedies",
]


class Clone:
    """A copy of the repository with one tiny study."""

    def __init__(self, root: Path):
        self.root, self.reports = root, root / "reports" / "tiny"
        for name in _tracked():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths.ROOT / name, target)
        self.append("lib/training/arms.py", ENTRY)
        self.set()
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        self.commit("code")

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run([*git, "add", "-A"], cwd=self.root, check=True)
        subprocess.run([*git, "commit", "-qm", message], cwd=self.root, check=True)

    def append(self, name: str, text: str) -> None:
        """Add text to a file of the clone."""
        with open(self.root / name, "a", encoding="utf-8") as stream:
            stream.write(text)

    def set(self, **changes: dict) -> None:
        """Write params.yaml with `section={key: value}` changed."""
        study = {part: {**values, **changes.get(part, {})} for part, values in TINY.items()}
        content = {"run": ["tiny"], "studies": {"tiny": study}}
        (self.root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def environment(self) -> dict[str, str]:
        """The environment of a command in the clone, as make sets it."""
        made = {
            **os.environ, "OMP_NUM_THREADS": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        made.pop("PYTHONPATH", None)
        return made

    def repro(self, *targets: str, **more: str) -> list[str]:
        """Run `dvc repro` as make does; the names of the stages that ran, but for `files`.

        That one runs every time. `more` are variables of the environment.
        """
        environment = self.environment() | more
        subprocess.run([sys.executable, "-m", "lib.run.check_studies"], cwd=self.root, check=True)
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", *targets],
            cwd=self.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        lines = done.stdout.splitlines()
        ran = [line.split("'")[1] for line in lines if line.startswith("Running stage")]
        return [name for name in ran if not name.startswith("files@")]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put back results, lock and code after the block, so that nothing has to run again."""
        kept = ("data/models", "reports", "dvc.lock", "params.yaml", "lib")
        with tempfile.TemporaryDirectory() as folder:
            for number, name in enumerate(kept):
                _copied(self.root / name, Path(folder) / str(number))
            yield
            for number, name in enumerate(kept):
                _copied(Path(folder) / str(number), self.root / name)

    def bytes_of(self, *patterns: str) -> dict[str, bytes]:
        """Content of all files that match, by name."""
        files = [file for pattern in patterns for file in self.root.glob(pattern)]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in sorted(files)}


def _copied(source: Path, target: Path) -> None:
    """`target` is what `source` is: a file, or a folder and nothing else in it."""
    if source.is_file():
        shutil.copy2(source, target)
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    made = ("reports/", "dvc.lock", "pipelines/dial/dvc.lock")
    kept = [name for name in listed.stdout.splitlines() if not name.startswith(made)]
    return [name for name in kept if (paths.ROOT / name).is_file()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tiny study, run once for all tests of this file."""
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.first = made.repro()
    return made


pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("pipeline")]


def stages(*names: str) -> list[str]:
    """The names of stages of the tiny study, as DVC gives them; the front page last."""
    return [f"{name}@tiny" for name in names] + ["index"]


def test_every_stage_ran_once(clone: Clone) -> None:
    assert sorted(clone.first) == sorted(stages(*MEASURING, *TELLING))


def test_the_tables_hold_every_model_condition_and_metric(clone: Clone) -> None:
    table = pd.read_csv(clone.reports / "retrieval.csv")
    models = table[["loss", "arm", "seed"]].drop_duplicates()
    assert len(models) == 1 + len(ARMS) * len(LOSSES)
    assert set(table["metric"]) == {"map_at_r", "r_precision", "p_at_1"}
    draws = table.groupby("condition")["draw"].nunique()
    assert draws["random_background"] == 2 and draws["clean"] == 1
    assert set(table["sides"]) == {"both", "query", "unshared"}
    assert len(table) == 7 * 3 * (1 + 2 * 3 + 6 * 2)
    assert table["value"].between(0, 1).all() and (table["n"] == 24).all()
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_the_means_come_from_the_rows_of_the_queries(clone: Clone) -> None:
    files = (clone.reports / "measured" / "evaluation" / "queries").glob("*.parquet")
    rows = pd.concat([pd.read_parquet(file) for file in files])
    keys = ["loss", "arm", "seed", "condition", "sides", "draw"]
    rows = rows.astype(dict.fromkeys(["loss", "arm", "condition", "sides"], str))
    expected = rows.astype({"map_at_r": float}).groupby(keys)["map_at_r"].mean()
    table = pd.read_csv(clone.reports / "retrieval.csv")
    table = table[table["condition"].isin(["clean", "random_background"])]
    seen = table[table["metric"] == "map_at_r"].set_index(keys)["value"]
    np.testing.assert_allclose(seen.sort_index(), expected.sort_index(), atol=1e-3)


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
    assert len(one) == 7


def test_the_third_arm_is_in_every_table_contrast_and_page(clone: Clone) -> None:
    for name in ("retrieval", "intervals", "background_gap", "classes", "mask_sensitivity",
                 "attention", "training"):  # fmt: skip
        assert set(ARMS) <= set(pd.read_csv(clone.reports / f"{name}.csv")["arm"]), name
    contrasts = set(pd.read_csv(clone.reports / "effects.csv")["contrast"])
    assert {"bgaugment-base", "blackaugment-base"} <= contrasts
    for page in ("03_train", "04_shift", "05_attention", "06_report", "07_remedies"):
        assert "BlackAugment" in (clone.reports / f"{page}.html").read_text(), page
    for figure in ("03_train/curves", "04_shift/slopes", "05_attention/scores"):
        drawn = (clone.reports / "figures" / f"{figure}.svg").read_text()
        assert "BlackAugment" in drawn or drawn.count("<!-- BlackAugment") > 0, figure


def test_masks_made_worse_and_classes_are_reported(clone: Clone) -> None:
    masks = pd.read_csv(clone.reports / "mask_sensitivity.csv")
    assert list(masks["masks"].unique()) == ["true", "true+eroded"]
    assert masks["loss"].nunique() == 1 and masks["usable"].between(0, 1).all()
    classes = pd.read_csv(clone.reports / "classes.csv")
    assert len(classes) == 7 * 6 and classes["uniformity"].between(0, 1).all()
    intervals = pd.read_csv(clone.reports / "intervals.csv")
    assert set(intervals["covers"]) == {"classes", "draws", "seeds"}
    assert intervals[intervals["covers"] == "seeds"]["low"].isna().all()  # one seed


def test_attention_training_and_masks_are_complete(clone: Clone) -> None:
    attention = pd.read_csv(clone.reports / "attention.csv")
    score = attention[attention["metric"] == "attention_score"]
    assert len(score) == 7 and (score["n"] == 6).all() and (score["value"] < 1).all()
    controls = pd.read_csv(clone.reports / "attention_controls.csv").set_index("control")["value"]
    assert controls["uniform"] == pytest.approx(0, abs=1e-6)
    assert controls["true_mask"] > 0.9 and abs(controls["random_weights"]) < 1
    methods = pd.read_csv(clone.reports / "attention_methods.csv")
    assert {"random", "untrained", *ARMS} <= set(methods["arm"])
    assert methods.groupby(["method", "target"]).ngroups == 3
    cascade = pd.read_csv(clone.reports / "attention_cascade.csv")
    start = cascade[(cascade["share"] == 0) & (cascade["metric"] == "rank_correlation")]
    assert start["value"].dropna().to_numpy() == pytest.approx(1)
    stability = pd.read_csv(clone.reports / "attention_stability.csv")
    assert set(stability["level"]) == {1, 2, 0.15, 0.3}
    areas = pd.read_csv(clone.reports / "faithfulness.csv")
    assert areas["map"].nunique() == 3 + 3 + 2
    training = pd.read_csv(clone.reports / "training.csv")
    assert len(training) == len(LOSSES) * len(ARMS) * 2 * 2  # epochs 0 and 1, conditions
    masks = pd.read_csv(clone.reports / "masks.csv")
    assert masks[masks["metric"] == "iou_mean"]["value"].item() == pytest.approx(1)


def test_every_page_is_there_and_says_its_numbers(clone: Clone) -> None:
    pages = {file.stem for file in clone.reports.glob("*.html")}
    assert pages == {
        "01_data", "02_masks", "03_train", "04_shift", "05_attention", "06_report",
        "07_remedies",
    }  # fmt: skip
    answers = json.loads((clone.reports / "answers.json").read_text())
    front = (clone.root / "reports" / "local.html").read_text()
    assert answers["finding"] in front
    for page in pages:
        text = (clone.reports / f"{page}.html").read_text()
        assert "Traceback" not in text and "[nan" not in text, page


def test_cells_that_promise_an_output_keep_the_promise(clone: Clone) -> None:
    """nbval runs executed pages again and compares the cells tagged nbval-check-output."""
    pages = [str(clone.reports / f"{name}.ipynb") for name in ("01_data", "06_report")]
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(clone.root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-c", os.devnull, *pages],
        cwd=clone.root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    checked = sum(Path(page).read_text().count("nbval-check-output") for page in pages)
    assert checked >= 5
    assert " passed" in done.stdout


def test_nothing_changed_runs_nothing(clone: Clone) -> None:
    assert clone.repro() == []


def test_results_are_told_without_photographs_and_weights(clone: Clone) -> None:
    """Pages from the measured tables alone, by `make pages`' own command."""
    told = ["01_data", "02_masks", "03_train", "06_report"]
    before = clone.bytes_of("reports/tiny/0[1234567]_*.*")
    assert len(before) == 14
    (clone.root / "data").rename(clone.root / "elsewhere")
    shutil.copytree(clone.root / "elsewhere" / "facts", clone.root / "data" / "facts")
    try:
        command = [sys.executable, "-m", "lib.run.pages", "tiny", *told]
        subprocess.run(command, cwd=clone.root, env=clone.environment(), check=True)
        assert clone.bytes_of("reports/tiny/0[1234567]_*.*") == before
    finally:
        shutil.rmtree(clone.root / "data")
        (clone.root / "elsewhere").rename(clone.root / "data")


def test_dvcs_own_verbs_work_and_one_changed_value_runs_only_what_depends_on_it(clone) -> None:
    """docs/dvc.md: metrics, an experiment with one value changed, and the difference it makes."""

    def dvc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=clone.root, env=clone.environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    before = clone.bytes_of("reports/tiny/retrieval.csv", "reports/tiny/attention.csv")
    clone.commit("first run")
    shown = json.loads(dvc("metrics", "show", "--json"))[""]["data"]
    numbers = shown["reports/tiny/metrics.json"]["data"]
    answers = json.loads((clone.reports / "answers.json").read_text())
    assert numbers["map_at_r_percent"] == answers["map_at_r_percent"]
    dvc("plots", "show")
    assert "validation MAP@R" in (clone.root / "dvc_plots" / "index.html").read_text()

    with clone.restored():
        told = dvc("exp", "run", "-S", "studies.tiny.attention.images=5", "page_report@tiny")
        told = told.splitlines()
        ran = {line.split("'")[1] for line in told if line.startswith("Running stage")}
        assert ran - {"files@tiny"} == {"attention@tiny", "page_attention@tiny", "page_report@tiny"}
        after = clone.bytes_of("reports/tiny/retrieval.csv", "reports/tiny/attention.csv")
        changed = [name for name, content in before.items() if after[name] != content]
        assert changed == ["reports/tiny/attention.csv"]
        moved = json.loads(dvc("metrics", "diff", "--json"))["reports/tiny/metrics.json"]
        assert {name.split(".")[0] for name in moved} == {"attention_score"}
    back = ["git", "reset", "-q", "--soft", "HEAD~1"]  # tables name the commit that made them
    subprocess.run(back, cwd=clone.root, check=True)


def test_a_regenerated_model_is_the_one_in_the_manifest(clone: Clone) -> None:
    """Deleted with all that was kept of it, trained again: the sha256 that the tables name."""
    manifest = json.loads(
        (clone.reports / "measured/evaluation/models/triplet-base-0.json").read_text()
    )
    weights = clone.root / "data/models/tiny/triplet/base-0.safetensors"
    with clone.restored():  # models.json names another commit afterwards
        for kept in (clone.root / "data/scratch/tiny").glob("triplet-base-0-*"):
            shutil.rmtree(kept)
        weights.unlink()
        clone.repro("--force", "--single-item", "train@tiny")
        assert hashlib.sha256(weights.read_bytes()).hexdigest() == manifest["model"]


def test_an_edited_colour_runs_pages_and_nothing_else(clone: Clone) -> None:
    weights = clone.bytes_of("data/models/tiny/*/*.safetensors")
    clone.append("lib/report/style.py", '\nCOLOURS["base"] = "#123456"\n')
    assert sorted(clone.repro()) == sorted(stages(*TELLING))
    assert "#123456" in (clone.reports / "figures" / "04_shift" / "slopes.svg").read_text()
    assert clone.bytes_of("data/models/tiny/*/*.safetensors") == weights


def test_an_edited_trainer_trains_again(clone: Clone) -> None:
    with clone.restored():
        clone.append("lib/training/trainer.py", "\nEDITED = True\n")
        ran = clone.repro("shift@tiny", "attention@tiny")
        assert set(ran) == {"train@tiny", "shift@tiny", "attention@tiny"}
    told = (clone.root / "data" / "scratch" / "tiny").glob("triplet-base-0-*")
    assert len(list(told)) == 2  # trained anew: nothing of other code is found in the cache


@pytest.mark.fault(
    "killed/nothing",
    "everything deleted",
    "a tiny study run from nothing, deleted, run again",
    "every table, weight, page and figure has the same bytes",
)
def test_from_nothing_again_gives_the_same_bytes(clone: Clone) -> None:
    what = ("data/models/tiny/*/*.safetensors", "reports/tiny/measured/**/*.*")
    what += ("reports/tiny/0[24]_*.*", "reports/tiny/figures/0[24]_*/*.*")
    what += ("reports/tiny/effects.csv", "reports/tiny/retrieval.csv")
    before = clone.bytes_of(*what)
    assert len(before) > 30
    for folder in ("data/prepared", "data/masks", "data/models", "data/scratch", "data/raw",
                   ".dvc/cache", ".dvc/tmp", "reports"):  # fmt: skip
        shutil.rmtree(clone.root / folder)
    (clone.root / "dvc.lock").unlink()
    clone.repro("page_masks@tiny", "page_shift@tiny", "attention@tiny", "remedies@tiny")
    after = clone.bytes_of(*what)
    assert [name for name in before if before[name] != after.get(name)] == []


def test_one_arm_grows_by_a_seed_where_its_weights_are_not(clone: Clone) -> None:
    """KEEP_MEASURED: what other machines trained and measured stays as it is, new seeds come."""
    few = {"arms": ["base"], "losses": ["triplet"]}
    two = {"conditions": ["clean", "random_background"]}
    clone.set(train=few, shift=two)
    clone.repro("shift@tiny", "attention@tiny", "remedies@tiny")
    mine = "reports/tiny/measured/*/*/triplet-base-0.*"
    before = clone.bytes_of(mine)
    for folder in ("data/models", "data/scratch", ".dvc/cache"):
        shutil.rmtree(clone.root / folder)
    clone.set(train=few | {"seeds": [0, 1]}, shift=two)
    clone.repro("page_shift@tiny", "attention@tiny", "remedies@tiny", KEEP_MEASURED="1")
    assert len(before) > 5 and clone.bytes_of(mine) == before
    weights = clone.bytes_of("data/models/tiny/*/*.safetensors")
    assert [Path(name).stem for name in weights] == ["base-1"]
    table = pd.read_csv(clone.reports / "retrieval.csv")
    assert set(table["arm"]) == {"untrained", "base"} and set(table["seed"]) == {0, 1}
