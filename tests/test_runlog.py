import json
from pathlib import Path

from lib import runlog


def test_each_execution_is_noted_and_the_others_are_kept(home: Path) -> None:
    runlog.note("s", "01_data", {"side": 20}, {"seconds": 1.3})
    runlog.note("s", "03_train_triplet", {"loss": "triplet"}, {"seconds": 60})
    runlog.note("s", "01_data", {"side": 24}, {"seconds": 2})
    noted = json.loads((home / "reports" / "s" / "run.json").read_text())
    assert sorted(noted) == ["01_data", "03_train_triplet"]
    assert noted["01_data"]["parameters"] == {"side": 24} and noted["01_data"]["seconds"] == 2
    machine = noted["03_train_triplet"]["machine"]
    assert machine["cores"] >= 1 and machine["packages"]["torch"][0].isdigit()


def test_a_machine_without_a_gpu_or_git_is_noted_all_the_same(monkeypatch) -> None:
    def absent(*_args: object, **_more: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(runlog.subprocess, "run", absent)
    assert runlog.machine()["gpu"] is None and runlog._commit() is None
    assert runlog._first("/nowhere", "MemTotal") == ""
