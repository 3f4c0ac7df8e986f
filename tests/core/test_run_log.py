import json
import subprocess
import sys
from pathlib import Path

from lib.core import paths, run_log
from lib.data.store import Store


def test_each_execution_is_noted_and_the_others_are_kept(home: Path) -> None:
    run_log.note("s", "01_data", {"side": 20}, {"seconds": 1.3})
    run_log.note("s", "03_train_triplet", {"loss": "triplet"}, {"seconds": 60})
    run_log.note("s", "01_data", {"side": 24}, {"seconds": 2})
    noted = json.loads((home / "reports" / "s" / "run.json").read_text())
    assert sorted(noted) == ["01_data", "03_train_triplet"]
    assert noted["01_data"]["parameters"] == {"side": 24} and noted["01_data"]["seconds"] == 2
    machine = noted["03_train_triplet"]["machine"]
    assert machine["cores"] >= 1 and machine["packages"]["torch"][0].isdigit()


def test_a_machine_without_a_gpu_or_git_is_noted_all_the_same(monkeypatch) -> None:
    def absent(*_args: object, **_more: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(run_log.subprocess, "run", absent)
    assert run_log.machine()["gpu"] is None and run_log._commit() is None
    assert run_log._first("/nowhere", "MemTotal") == ""


def test_processors_of_one_name_are_told_apart(tmp_path: Path, monkeypatch) -> None:
    real, kinds = run_log._first, []
    for stepping in (1, 2):
        file = tmp_path / f"{stepping}"
        lines = ["model name\t: P", "cpu family\t: 25", "model\t\t: 17", f"stepping\t: {stepping}"]
        file.write_text("\n".join(lines))
        monkeypatch.setattr(run_log, "_first", lambda _, start, file=file: real(str(file), start))
        kinds.append({name: run_log.machine()[name] for name in ("processor", "kind")})
    assert kinds == [
        {"processor": "P", "kind": f"cpu family 25, model 17, stepping {stepping}"}
        for stepping in (1, 2)
    ]


def test_fingerprints_of_data_and_code_follow_what_they_seal(study: str) -> None:
    found = run_log.data(study)
    assert list(found) == ["images", "backgrounds", "masks"] and len({*found.values()}) == 3
    assert Store.open(paths.StudyPaths(study).masks / "drawn").fingerprint.startswith(
        found["masks"]
    )
    assert run_log.data("none") == {}
    before = run_log.code()
    file = paths.ROOT / "lib" / "a.py"
    file.parent.mkdir()
    seen = [before]
    for name, content in (("a.py", "1"), ("a.py", "2"), ("b.py", "2")):
        file.unlink(missing_ok=True)
        file = file.with_name(name)
        file.write_text(content)
        seen.append(run_log.code())
    assert len({*seen}) == 4
    run_log.note(study, "01_data", {}, {"seconds": 1})
    noted = json.loads((paths.StudyPaths(study).reports / "run.json").read_text())["01_data"]
    assert noted["data"] == found and noted["code"] == seen[-1]


def test_a_watch_reads_time_memory_and_what_was_written(home: Path) -> None:
    where = paths.StudyPaths("s")
    for name in ("old", "new"):
        (where.scratch / name).mkdir(parents=True)
    (where.scratch / "old" / "a").write_bytes(bytes(7_000_000))
    watch = run_log.Watch("s", began=(where.scratch / "old" / "a").stat().st_mtime + 1e-6)
    subprocess.run([sys.executable, "-c", "x = bytearray(80_000_000)"], check=True)
    (where.scratch / "new" / "b").write_bytes(bytes(3_000_000))
    used = watch.read()
    assert used["written_mb"] == 3 and used["peak_memory_mb"] > 80 and used["seconds"] < 60


def test_memory_of_a_step_that_measures_in_its_own_process_counts() -> None:
    code = (
        "from lib.core import run_log\nrun_log.platform.system()\nx = bytearray(300_000_000)\n"
        "print(run_log._peak())"
    )
    command = [sys.executable, "-c", code]
    told = subprocess.check_output(command, cwd=Path(run_log.__file__).parents[2], text=True)
    assert float(told) > 300


def test_the_table_is_made_from_the_records(tmp_path: Path) -> None:
    machine = {"processor": "P", "cores": 2}
    run = {"seconds": 1234.5, "peak_memory_mb": 900, "written_mb": 0.3, "machine": machine}
    old = {"seconds": 1.0, "machine": machine}
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "run.json").write_text(json.dumps({"02_masks": run, "01_data": old}))
    lines = run_log.table(tmp_path).splitlines()
    assert lines[2:] == ["| s | 02_masks | 1,234 | 900 | 0 | P, 2 |"]
    text = "a\n<!-- table -->\nold\n<!-- end -->\nb\n"
    assert run_log.in_page(text, "new\n") == text.replace("old", "new")


def test_the_page_has_the_tables_columns() -> None:
    text = (Path(run_log.__file__).parents[2] / "docs" / "resources.md").read_text("utf-8")
    assert run_log.table().splitlines()[0] in text  # its numbers are those of one machine
    assert run_log.in_page(text, "new\n") != text
