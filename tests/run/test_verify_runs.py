"""The comparison of two runs, on made-up folders."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from lib.core import paths
from lib.core.compact import write_compact
from lib.core.errors import StudyError
from lib.core.files import write_json
from lib.run import verify_runs


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same results of study s."""
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "reports" / "s").mkdir(parents=True)
    table = pd.DataFrame({"loss": ["a", "b"], "n": [1, 2], "value": [0.25, 0.5], "p": [0.1, 0.9]})
    table.to_csv(first / "reports" / "s" / "retrieval.csv", index=False)
    write_json(first / "reports" / "s" / "answers.json", {"finding": "x"})
    write_json(first / "reports" / "s" / "run.json", {"01_data": {"machine": {"cores": 2}}})
    (first / "data" / "models" / "s" / "triplet").mkdir(parents=True)
    (first / "data" / "models" / "s" / "triplet" / "base-0.safetensors").write_bytes(b"weights")
    (first / "reports/s/measured/evaluation/classes").mkdir(parents=True)
    (first / "reports/s/measured/evaluation/classes/a.parquet").write_bytes(b"a table")
    (first / "reports/s/04_shift.ipynb").write_bytes(b"cells")
    shutil.copytree(first, second)
    return first, second


def test_equal_runs_have_no_difference(two: tuple[Path, Path]) -> None:
    write_json(two[1] / "reports" / "s" / "run.json", {"another": "time"})
    assert verify_runs.compare(*two, "s") == [] and verify_runs.near(*two, "s", 0) == []


@pytest.mark.parametrize(
    "name",
    ["reports/s/retrieval.csv", "reports/s/04_shift.ipynb"]
    + ["reports/s/measured/evaluation/classes/a.parquet"]
    + ["data/models/s/triplet/base-0.safetensors"],
)
def test_one_changed_byte_is_found(two: tuple[Path, Path], name: str) -> None:
    data = (two[1] / name).read_bytes()
    (two[1] / name).write_bytes(data[:-2] + b"7" + data[-1:])
    assert verify_runs.compare(*two, "s") == [verify_runs.Difference(name, "other bytes")]


@pytest.mark.parametrize(("at", "how"), [(0, "only in the second"), (1, "only in the first")])
def test_a_missing_file_is_found(two: tuple[Path, Path], at: int, how: str) -> None:
    (two[at] / "reports/s/answers.json").unlink()
    assert [d.how for d in verify_runs.compare(*two, "s")] == [how]


def test_two_empty_folders_are_no_proof(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds results of s"):
        verify_runs.compare(tmp_path, tmp_path, "s")


def altered(file: Path, **change: object) -> None:
    pd.read_csv(file).assign(**change).to_csv(file, index=False)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        ({"value": [0.25, 0.52]}, None),
        ({"p": [0.9, 0.1]}, None),
        ({"value": [0.25, 0.6]}, "`value` differs by 0.100, allowed 0.05"),
        ({"value": [0.25, None]}, "`value` is empty in other rows"),
        ({"p": [None, 0.9]}, "`p` is empty in other rows"),
        ({"loss": ["a", "c"]}, "other names or counts in its rows"),
        ({"n": [1, 3]}, "other names or counts in its rows"),
        ({"n": [1.0, 2.5]}, "another kind of values"),
        ({"more": 1}, "other rows or columns"),
    ],
)
def test_tables_of_another_machine_may_differ_a_little(two, change: dict, how: str | None) -> None:
    altered(two[1] / "reports" / "s" / "retrieval.csv", **change)
    for one, other in (two, two[::-1]):
        found = verify_runs.near(one, other, "s", verify_runs.TOLERANCE)
        assert [how in d.how for d in found] == ([True] if how else [])


@pytest.mark.parametrize(
    ("values", "how"),
    [
        ([1.0, 200.0], None),
        ([1.0, 209.0], None),
        ([1.0, 230.0], "`seconds` differs by 30.000"),
        ([2.0, 200.0], "`seconds` differs by 1.000"),
        ([float("nan"), 200.0], "`seconds` is empty in other rows"),
        ([float("inf"), 200.0], "`seconds` differs by inf"),
    ],
)
def test_a_table_without_a_value_is_compared_too(two, values: list, how: str | None) -> None:
    for root, column in zip(two, ([1.0, 200.0], values), strict=True):
        table = pd.DataFrame({"arm": ["x", "y"], "seconds": column})
        table.to_csv(root / "reports/s/data.csv", index=False)
    found = verify_runs.near(*two, "s", verify_runs.TOLERANCE)
    assert [how in d.how for d in found] == ([True] if how else [])


def test_rows_that_only_changed_places_are_the_same(two) -> None:
    file = two[1] / "reports/s/retrieval.csv"
    pd.read_csv(file)[::-1].to_csv(file, index=False)
    assert verify_runs.near(*two, "s", verify_runs.TOLERANCE) == []


def test_correlations_over_a_few_models_are_not_held_to_the_tolerance(two) -> None:
    for root, value in zip(two, (0.5, 1.0), strict=True):
        table = pd.DataFrame({"over": ["models"], "value": [value]})
        table.to_csv(root / "reports/s/attention_link.csv", index=False)
    assert verify_runs.near(*two, "s", verify_runs.TOLERANCE) == []
    table.assign(over="images").to_csv(two[1] / "reports/s/attention_link.csv", index=False)
    assert [d.how for d in verify_runs.near(*two, "s", 1)] == ["other names or counts in its rows"]


@pytest.mark.parametrize(("name", "held"), [("effects", True), ("classes", False)])
def test_long_tables_are_compared_too(two, name: str, held: bool) -> None:
    for root, value in zip(two, (0.5, 0.75), strict=True):
        table = pd.DataFrame({"loss": ["triplet"], "value": [value]})
        write_compact(root / "reports/s" / f"{name}.parquet", table)
    found = verify_runs.near(*two, "s", verify_runs.TOLERANCE)
    assert ["differs by 0.250" in d.how for d in found] == [True] * held


def test_a_table_that_is_missing_elsewhere_is_found(two: tuple[Path, Path]) -> None:
    (two[1] / "reports/s/retrieval.csv").unlink()
    assert [d.how for d in verify_runs.near(*two, "s", 1)] == ["missing"]


def test_the_machine_is_the_same_only_if_every_stage_ran_on_it(two: tuple[Path, Path]) -> None:
    assert verify_runs.same_machine(two[0], "s", {"cores": 2})
    assert not verify_runs.same_machine(two[0], "s", {"cores": 4})


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("cores", [2, 8, None])
def test_the_command_tells_by_its_number(two, monkeypatch, capsys, changed, cores) -> None:
    """Made on this machine, on another one (8 cores), or not there at all (None)."""
    monkeypatch.setattr(verify_runs, "repeat", lambda folder, study: two)
    monkeypatch.setattr(verify_runs.run_log, "machine", lambda: {"cores": cores or 2})
    monkeypatch.setattr(paths, "ROOT", two[0])
    monkeypatch.setattr(paths, "REPORTS", two[0] / "reports")
    if cores is None:
        (two[0] / "reports/s/run.json").unlink()
    if changed:
        (two[1] / "data/models/s/triplet/base-0.safetensors").write_bytes(b"others")
    assert verify_runs.main(["--study", "s"]) == int(changed)
    told = capsys.readouterr().out
    assert ("base-0.safetensors: other bytes" in told) == changed
    assert {2: "the same machine", 8: "another machine", None: "does not hold"}[cores] in told


def test_a_clone_starts_from_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path / "none")
    made = verify_runs.fresh(tmp_path / "clone", "demo")
    assert (made / "lib" / "run").is_dir() and not (made / "dvc.lock").exists()
    assert not (made / "reports" / "demo").exists()
    assert "\nrun: [demo]\n" in (made / "params.yaml").read_text()
