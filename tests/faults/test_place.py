"""Other clocks, languages, folders and rights: the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.core.files import digest
from tests.execute.test_notebook import build
from tests.faults.test_data_faults import NAMES, pictures

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from lib.core import paths
from lib.data import prepare
from lib.masks import sources
home = Path(sys.argv[1])
paths.ROOT, paths.RAW = home, home / "raw"
prepare.prepare_images("s", "folder", 20, {"folder": "mine"})
sources.make_masks("s", "full")
"""
DEEP = "/".join(["a folder with spaces", "ä" * 40, *["deep" * 10] * 4])
LOCALE = next(
    (name for name in ("tr_TR.UTF-8", "de_DE.UTF-8", "de_DE.utf8") if name.lower().replace("-", "")
     in subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False)
     .stdout.lower().replace("-", "").split()), None,
)  # fmt: skip


def made_in(folder: Path, umask: str = "022", **environment: str) -> dict[str, str]:
    """Checksums of all that 01_data and 02_masks make of a folder of odd names."""
    pictures(folder / "mine", sorted(NAMES.values()))
    command = [sys.executable, "-c", WORK, str(folder), umask]
    variables = {**os.environ, **environment}
    for name in ("LC_ALL", "LANG", "TZ"):
        if name not in environment:
            variables.pop(name, None)
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted((folder / "data").rglob("*.*"))
    assert all(file.stat().st_mode & int(umask, 8) == 0 for file in files)
    return {file.relative_to(folder).as_posix(): digest(file) for file in files}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = made_in(tmp_path_factory.mktemp("usual"))
    assert len(found) > 7
    return found


@pytest.mark.fault(
    "place/clock",
    "another time zone",
    "TZ=Pacific/Kiritimati",
    "the same bytes",
)
def test_another_time_zone(tmp_path: Path, usual: dict) -> None:
    assert made_in(tmp_path, TZ="Pacific/Kiritimati") == usual


@pytest.mark.fault("place/c", "C locale", "LC_ALL=C", "the same bytes, names of all scripts kept")
def test_the_c_locale(tmp_path: Path, usual: dict) -> None:
    assert made_in(tmp_path, LC_ALL="C") == usual


@pytest.mark.fault(
    "place/language",
    "a language that writes numbers or letters otherwise",
    "LC_ALL of Turkish or German",
    "the same bytes",
)
@pytest.mark.skipif(LOCALE is None, reason="no such language is installed")
def test_another_language(tmp_path: Path, usual: dict) -> None:
    assert made_in(tmp_path, LC_ALL=LOCALE) == usual


@pytest.mark.fault(
    "place/path",
    "a clone in a deep path with spaces and other letters",
    "a folder of over 200 letters",
    "the same bytes",
)
def test_a_deep_path_with_spaces(tmp_path: Path, usual: dict) -> None:
    assert made_in(tmp_path / DEEP) == usual


@pytest.mark.fault(
    "place/umask",
    "another user's umask",
    "umask 077 and 002",
    "the same bytes; rights as the umask says",
)
@pytest.mark.parametrize("umask", ["077", "002"])
def test_another_umask(tmp_path: Path, usual: dict, umask: str) -> None:
    assert made_in(tmp_path, umask) == usual


@pytest.mark.fault(
    "place/notebook",
    "a notebook executed in a deep path with spaces, C locale, another time zone",
    "all three at once",
    "page and executed notebook have the same bytes",
)
@pytest.mark.slow
def test_a_notebook_in_another_place(tmp_path: Path) -> None:
    texts = []
    for folder, more in (
        (tmp_path / "x", {}),
        (tmp_path / DEEP, {"LC_ALL": "C", "TZ": "Asia/Tokyo"}),
    ):
        source = build(folder)
        text = (
            "import sys\nfrom lib.execute.notebook import execute\nfrom pathlib import Path\n"
            "execute(Path(sys.argv[1]), {}, Path(sys.argv[2]))\n"
        )
        command = [sys.executable, "-c", text, str(source), str(folder / "out")]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **more}, check=True)
        texts.append({file.name: file.read_bytes() for file in (folder / "out").iterdir()})
    assert texts[0] == texts[1] and len(texts[0]) == 2
