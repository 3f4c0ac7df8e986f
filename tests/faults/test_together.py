"""Two runs at once in one clone: the second waits and says so; what is written is whole."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lib.core import paths
from lib.core.stage import one_at_a_time
from tests.execute.test_notebook import build
from tests.training.test_resume import RECIPE, results, work

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
HOLD = """
import sys, time
from pathlib import Path
from lib.core import paths
from lib.core.stage import one_at_a_time
paths.ROOT = Path(sys.argv[1])
with one_at_a_time("s"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.fault(
    "together/waits",
    "the same study run twice at once",
    "a second run while the first holds the study",
    "the second says that it waits, and for which process; another study does not wait",
)
def test_the_second_run_waits_and_says_so(home: Path, capfd) -> None:
    order = []

    def second() -> None:
        with one_at_a_time("s"):
            order.append("second")

    with one_at_a_time("s"):
        with one_at_a_time("other"):
            order.append("other")
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["other", "first", "second"]
    told = f"study s is being run by another process ({os.getpid()}): waiting"
    assert told in capfd.readouterr().err


@pytest.mark.fault(
    "together/dead",
    "a run killed while another waits for it",
    "SIGKILL to the process that holds the study",
    "the next run starts at once; no lock is left behind",
)
def test_a_dead_run_holds_nothing(home: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(home)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    start = time.monotonic()
    with one_at_a_time("s"):
        assert time.monotonic() - start < 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_does_not_stop(home: Path, monkeypatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        with one_at_a_time("s"), one_at_a_time("s"):  # not kept apart
            pass
    assert [file.name for file in (home / "data" / "locks").iterdir()] in ([], ["s.lock"])


def test_what_fails_under_the_lock_is_raised_and_frees_it(home: Path) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="of the work"), one_at_a_time("s"):
            raise OSError("of the work")


@pytest.mark.fault(
    "together/notebook",
    "python -m lib.execute of the same study twice at once",
    "two processes started together",
    "the second waits and says so; both succeed, the results are those of one run",
)
@pytest.mark.slow
def test_a_notebook_executed_twice_at_once(tmp_path: Path) -> None:
    source = build(tmp_path)
    sections = tmp_path / "run.py"
    sections.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from lib.core import params, paths\nfrom lib.execute import notebook\n"
        f"paths.ROOT = Path({str(tmp_path)!r})\n"
        "params.section = lambda study, part: {}\nsys.exit(notebook.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, str(sections), str(source), "--study", "demo", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([*command, str(tmp_path / "out")], env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum("waiting until it is done" in text for text in told) == 1
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["02_b.html", "02_b.ipynb"]


@pytest.mark.fault(
    "together/train",
    "the same model trained by two processes at once",
    "two processes in one folder, without the lock (as from two open notebooks)",
    "both end; the weights are those of one run",
)
@pytest.mark.slow
def test_two_trainings_in_one_folder(study: str, home: Path) -> None:
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lib.training.trainer"])

    def run(scratch: str, count: int) -> None:
        arguments = (home, RECIPE, home / scratch, "step", 0)
        children = [context.Process(target=work, args=arguments) for _ in range(count)]
        for child in children:
            child.start()
        for child in children:
            child.join(600)
        assert [child.exitcode for child in children] == [0] * count

    run("one", 1)
    run("two", 2)
    assert results(home / "two") == results(home / "one")


@pytest.mark.fault(
    "together/dvc",
    "make repro twice at once",
    "DVC started while another holds its lock",
    "the second refuses in words and changes nothing",
)
@pytest.mark.slow
def test_dvc_refuses_a_second_run(tmp_path: Path) -> None:
    from dvc.lock import make_lock
    from dvc.repo import Repo

    with Repo.init(str(tmp_path), no_scm=True) as repo:
        (tmp_path / "dvc.yaml").write_text("stages:\n  a:\n    cmd: touch made\n")
        file = Path(repo.tmp_dir) / "lock"
    with make_lock(str(file), tmp_dir=str(file.parent)):
        command = [sys.executable, "-m", "dvc", "repro"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "lock" in done.stderr.lower()
    assert not (tmp_path / "made").exists()
    assert tmp_path != paths.ROOT
