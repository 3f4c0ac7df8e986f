"""Measuring attention: finished work is found, what changed is made again; page 05 tells of it."""

import json
import shutil

import pandas as pd
import pytest

from lib.attention import attribution, measure, sanity_checks
from lib.attention.measure import picked
from lib.core import paths
from lib.report import attention_tables
from tests.attention import small

CHECKS = ["cascade", "controls", "examples", "faithfulness", "methods", "stability"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tables that are made from here on, in order."""
    names, plain = [], measure.Ledger.add

    def spy(ledger, name, file, key, write):
        return plain(ledger, name, file, key, lambda: (names.append(name), write()))

    monkeypatch.setattr(measure.Ledger, "add", spy)
    return names


def test_what_is_measured_is_found_and_only_what_changed_is_made_again(study, monkeypatch, made):
    small.use_models(monkeypatch, ["base", "bgaugment"])
    measure.measure(study, **small.ASKED)
    models = ["none-untrained-0", "triplet-base-0", "triplet-bgaugment-0"]
    own = [f"{kind}/{model}" for model in models for kind in ("scores", "similarity")]
    assert sorted(made) == sorted([*own, *CHECKS])
    made.clear()
    shutil.rmtree(paths.StudyPaths(study).scratch)
    monkeypatch.setattr(attribution, "attribute", None)  # measured tables need no maps
    measure.measure(study, **small.ASKED)
    assert made == []


@pytest.mark.parametrize(
    "change, again",
    [
        ({"copies_levels": [1]}, {"stability"}),
        ({"methods": ["occlusion"]}, {"methods", "cascade", "faithfulness"}),
        ({"images_checks": 2}, {"cascade", "faithfulness", "stability"}),
        ({"noise": 0.3}, None),  # of everything
    ],
)
def test_a_changed_value_makes_again_what_hangs_on_it(study, monkeypatch, made, change, again):
    small.use_models(monkeypatch, ["base"])
    measure.measure(study, **small.ASKED)
    everything = set(made)
    made.clear()
    measure.measure(study, **(small.ASKED | change))
    assert set(made) == (again or everything)


def test_models_that_are_gone_leave_no_tables(study, monkeypatch):
    small.use_models(monkeypatch, ["base", "bgaugment"])
    measure.measure(study, **small.ASKED)
    small.use_models(monkeypatch, ["base"])
    measure.measure(study, **small.ASKED)
    folder = attention_tables.Looked(study).folder
    found = sorted(file.stem for file in folder.glob("scores/*"))
    assert found == ["none-untrained-0", "triplet-base-0"]
    assert not [name for name in attention_tables.asked(study)["made"] if "bgaugment" in name]
    assert list(attention_tables.read(study, "similarity")["arm"].unique()) == ["untrained", "base"]


def test_a_killed_run_never_leaves_a_new_table_under_an_old_key(study, monkeypatch):
    small.use_models(monkeypatch, ["base"])
    measure.measure(study, **small.ASKED)

    def dies() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measure, "write_examples", lambda *_: dies())
        measure.measure(study, **(small.ASKED | {"seed": 5}))
    assert "examples" not in attention_tables.asked(study)["made"]
    measure.measure(study, **small.ASKED)
    assert {*CHECKS} < {*attention_tables.asked(study)["made"]}


def test_examples_are_the_extremes_and_the_middle_by_rule():
    rows = range(5)
    base = pd.DataFrame({"row": rows, "arm": "base", "value": [0.1, 0.2, 0.3, 0.4, 0.5]})
    other = pd.DataFrame({"row": rows, "arm": "bgaugment", "value": [0.2, 0.2, 0.9, 0.1, 0.55]})
    both = pd.concat([base, other])
    expected = {"largest gain": 2, "median": 4, "largest loss": 3}
    assert picked(both, "bgaugment", "base") == expected
    assert picked(base, "base", None) == {"highest score": 4, "median": 2, "lowest score": 0}


@pytest.mark.parametrize(
    "names, seeds, change",
    [
        (["base"], (0,), {"methods": [], "noise_levels": [0.15], "copies_levels": [1]}),
        (["base", "bgaugment"], (0, 1), {}),
        (
            ["base", "bgaugment", "greyaugment"],
            (0,),
            {"methods": ["grad_cam/similarity_to_nearest"]},
        ),
    ],
)
def test_page_05_tells_of_any_study_without_photographs(study, monkeypatch, names, seeds, change):
    models = small.use_models(monkeypatch, names, seeds)
    measure.measure(study, **(small.ASKED | change))
    small.write_evaluation(study, models)
    where = paths.StudyPaths(study)
    shutil.rmtree(where.prepared.parents[1])
    shown = run_page(study)
    tables = {file.stem: pd.read_csv(file) for file in where.reports.glob("*.csv")}
    assert all(len(table) for name, table in tables.items() if name != "attention_effects")
    pairs = {f"{name}-base" for name in names[1:]}
    assert set(tables["attention_effects"]["contrast"]) == pairs
    assert set(tables["attention"]["arm"]) == {"untrained", *names}
    assert set(tables["attention"]["seed"]) == set(seeds)
    found = set(tables["attention_methods"]["arm"])
    assert found == {"random", "untrained", *names, *pairs, "base-random"}
    assert {*names, *pairs} <= set(tables["attention_stability"]["arm"])
    assert set(tables["faithfulness"]["arm"]) == set(names)
    assert {*names, *pairs} <= set(tables["attention_link"]["arm"])
    assert set(shown["examples"]["shows"]) == {"image", "mask", *names}
    figures = {file.stem for file in (where.reports / "figures" / "05_attention").glob("*")}
    assert figures == {"scores", "maps", "controls", "methods", "cascade", "faithfulness",
                       "stability", "link"}  # fmt: skip


def run_page(study: str) -> dict:
    """The names that the cells of 05_attention leave when they run for a study."""
    page = json.loads((paths.NOTEBOOKS / "05_attention.ipynb").read_text(encoding="utf-8"))
    left: dict = {}
    for cell in page["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), left)
        if "parameters" in cell["metadata"].get("tags", []):
            left["study"] = study
    return left


def test_a_study_with_one_arm_compares_it_with_random_weights_alone(study, monkeypatch):
    setup = small.setup_of(study, small.use_models(monkeypatch, ["base"]), [])
    methods = sanity_checks.method_scores(setup)
    assert list(attention_tables.method_differences(methods)["contrast"].unique()) == [
        "base-random"
    ]
