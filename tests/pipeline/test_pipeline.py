"""The whole study, tiny, through DVC in a clone: from nothing to the front page."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.core.compact import read_compact
from tests.pipeline.tiny_study import ARMS, LOSSES, MEASURING, TELLING, Clone, stages


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tiny study, run once for all tests of this file."""
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.first = made.repro()
    return made


pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("pipeline")]


def test_every_stage_ran_once(clone: Clone) -> None:
    assert sorted(clone.first) == sorted(stages(*MEASURING, *TELLING))


def test_the_tables_hold_every_model_condition_and_metric(clone: Clone) -> None:
    table = read_compact([clone.reports / "retrieval.parquet"])
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
    table = read_compact([clone.reports / "retrieval.parquet"])
    table = table[table["condition"].isin(["clean", "random_background"])]
    seen = table[table["metric"] == "map_at_r"].set_index(keys)["value"]
    np.testing.assert_allclose(seen.sort_index(), expected.sort_index(), atol=1e-3)


def test_effects_are_paired_differences(clone: Clone) -> None:
    table = read_compact([clone.reports / "retrieval.parquet"])
    effects = read_compact([clone.reports / "effects.parquet"])
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
    for name in ("retrieval", "intervals", "classes"):
        assert set(ARMS) <= set(read_compact([clone.reports / f"{name}.parquet"])["arm"]), name
    for name in ("background_gap", "mask_sensitivity", "attention", "training"):
        assert set(ARMS) <= set(pd.read_csv(clone.reports / f"{name}.csv")["arm"]), name
    contrasts = set(read_compact([clone.reports / "effects.parquet"])["contrast"])
    assert {"bgaugment-base", "blackaugment-base"} <= contrasts
    for page in ("03_train", "04_shift", "05_attention", "06_report", "07_remedies"):
        assert "BlackAugment" in (clone.reports / f"{page}.html").read_text(), page
    for figure in ("03_train/curves", "04_shift/slopes", "05_attention/scores"):
        drawn = (clone.reports / "figures" / f"{figure}.svg").read_text()
        assert "BlackAugment" in drawn, figure


def test_masks_made_worse_and_classes_are_reported(clone: Clone) -> None:
    masks = pd.read_csv(clone.reports / "mask_sensitivity.csv")
    assert list(masks["masks"].unique()) == ["true", "true+eroded"]
    assert masks["loss"].nunique() == 1 and masks["usable"].between(0, 1).all()
    classes = read_compact([clone.reports / "classes.parquet"])
    assert len(classes) == 7 * 6 and classes["uniformity"].between(0, 1).all()
    intervals = read_compact([clone.reports / "intervals.parquet"])
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

    before = clone.bytes_of("reports/tiny/retrieval.parquet", "reports/tiny/attention.csv")
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
        after = clone.bytes_of("reports/tiny/retrieval.parquet", "reports/tiny/attention.csv")
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
    with clone.restored():
        clone.append("lib/report/style.py", '\nCOLOURS["base"] = "#123456"\n')
        assert sorted(clone.repro("--dry")) == sorted(stages(*TELLING))
        assert clone.repro("page_shift@tiny") == ["page_shift@tiny"]
        drawn = clone.reports / "figures" / "04_shift" / "slopes.svg"
        assert "#123456" in drawn.read_text()
    assert clone.bytes_of("data/models/tiny/*/*.safetensors") == weights


# -------------------------------------------------------- what follows changes the clone: in order


@pytest.mark.fault(
    "killed/nothing",
    "everything deleted",
    "a tiny study run from nothing, deleted, run again",
    "every table, weight, page and figure has the same bytes",
)
def test_from_nothing_again_gives_the_same_bytes(clone: Clone) -> None:
    what = ("data/models/tiny/*/*.safetensors", "reports/tiny/measured/**/*.*")
    what += ("reports/tiny/0[24]_*.*", "reports/tiny/figures/0[24]_*/*.*")
    what += ("reports/tiny/effects.parquet", "reports/tiny/retrieval.parquet")
    before = clone.bytes_of(*what)
    assert len(before) > 30
    for folder in ("data/prepared", "data/masks", "data/models", "data/scratch", "data/raw",
                   ".dvc/cache", ".dvc/tmp", "reports"):  # fmt: skip
        shutil.rmtree(clone.root / folder)
    (clone.root / "dvc.lock").unlink()
    clone.repro("page_masks@tiny", "page_shift@tiny", "attention@tiny", "remedies@tiny")
    after = clone.bytes_of(*what)
    assert [name for name in before if before[name] != after.get(name)] == []


def test_an_edited_trainer_trains_again(clone: Clone) -> None:
    with clone.restored():
        clone.append("lib/training/trainer.py", "\nEDITED = True\n")
        wanted = {"train@tiny", "shift@tiny", "attention@tiny"}
        assert set(clone.repro("--dry", "shift@tiny", "attention@tiny")) == wanted
        clone.set(train={"losses": ["triplet"], "arms": ["base", "bgaugment"]})
        assert clone.repro("train@tiny") == ["train@tiny"]
    told = (clone.root / "data" / "scratch" / "tiny").glob("triplet-base-0-*")
    assert len(list(told)) == 2  # trained anew: nothing of other code is found in the cache


def test_a_study_grows_by_a_seed_where_its_weights_are_not(clone: Clone) -> None:
    """KEEP_MEASURED: what other machines trained and measured stays as it is, new seeds come."""
    mine = "reports/tiny/measured/*/*/*-*-0.*"
    before = clone.bytes_of(mine)
    for folder in ("data/models", "data/scratch", ".dvc/cache"):
        shutil.rmtree(clone.root / folder)
    clone.set(train={"seeds": [0, 1]})
    clone.repro("page_shift@tiny", "attention@tiny", "remedies@tiny", KEEP_MEASURED="1")
    assert len(before) > 30 and clone.bytes_of(mine) == before
    weights = clone.bytes_of("data/models/tiny/*/*.safetensors")
    assert sorted(Path(name).stem for name in weights) == sorted(f"{a}-1" for a in ARMS * 2)
    table = read_compact([clone.reports / "retrieval.parquet"])
    assert set(table["arm"]) == {"untrained", *ARMS} and set(table["seed"]) == {0, 1}
