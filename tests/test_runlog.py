import json
from pathlib import Path

from lib import paths, runlog
from lib.store import Store


def test_each_execution_is_noted_and_the_others_are_kept(home: Path) -> None:
    runlog.note("s", "01_data", {"side": 20}, 1.26)
    runlog.note("s", "03_train_triplet", {"loss": "triplet"}, 60)
    runlog.note("s", "01_data", {"side": 24}, 2)
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


def test_fingerprints_of_data_and_code_follow_what_they_seal(study: str) -> None:
    found = runlog.data(study)
    assert list(found) == ["images", "backgrounds", "masks"] and len({*found.values()}) == 3
    assert Store.open(paths.StudyPaths(study).masks / "drawn").fingerprint.startswith(
        found["masks"]
    )
    assert runlog.data("none") == {}
    before = runlog.code()
    file = paths.ROOT / "lib" / "a.py"
    file.parent.mkdir()
    seen = [before]
    for name, content in (("a.py", "1"), ("a.py", "2"), ("b.py", "2")):
        file.unlink(missing_ok=True)
        file = file.with_name(name)
        file.write_text(content)
        seen.append(runlog.code())
    assert len({*seen}) == 4
    runlog.note(study, "01_data", {}, 1)
    noted = json.loads((paths.StudyPaths(study).reports / "run.json").read_text())["01_data"]
    assert noted["data"] == found and noted["code"] == seen[-1]
