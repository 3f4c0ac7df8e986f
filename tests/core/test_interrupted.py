"""A killed process and a full disk: what is on disk is whole, or is not there."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib.core import paths
from lib.data import prepare
from lib.data.store import Store
from tests.data.test_data import make_cub

DRIVER = """
import resource, signal, sys
from pathlib import Path
from lib.core import paths
from lib.data import prepare
from lib.masks import sources
home, limit = Path(sys.argv[1]), int(sys.argv[2])
paths.ROOT, paths.RAW = home, home / "raw"
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.dont_write_bytecode = True  # Python itself would cut a .pyc of .venv short and keep it
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
try:
    print(prepare.prepare_images("s", "cub200", 30).fingerprint, flush=True)
    print(sources.make_masks("s", "box").fingerprint, flush=True)
except Exception as error:
    print(type(error).__name__, error)
"""


def start(home: Path, limit: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-c", DRIVER, str(home), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=paths.NOTEBOOKS.parent)


@pytest.fixture
def birds(home: Path) -> Path:
    make_cub(home / "raw" / "cub200")
    base = home / "raw" / "cub200" / "CUB_200_2011"
    boxes = "".join(f"{i} 5.0 6.0 20.0 15.0\n" for i in range(1, 401))
    (base / "bounding_boxes.txt").write_text(boxes)
    return home


@pytest.mark.fault(
    "killed/data",
    "01_data and 02_masks killed",
    "SIGKILL and SIGTERM at random times while pictures and masks are written",
    "no half-written file is taken for whole or left behind; run again: the same fingerprints",
)
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_anywhere_and_run_again_gives_the_same_bytes(birds: Path, how: int) -> None:
    process = start(birds)
    process.stdout.readline()
    begin = time.monotonic()
    expected = process.communicate()[0].split()
    length = time.monotonic() - begin
    assert len(expected) == 2 and all(len(word) == 64 for word in expected)
    home = paths.StudyPaths("s")
    for share in np.random.default_rng(0).uniform(0, 1, 3):
        for file in [*home.prepared.rglob("*.json"), *home.masks.rglob("*.json")]:
            file.unlink()
        process = start(birds)
        process.stdout.readline()
        time.sleep(share * length)
        process.send_signal(how)
        process.wait()
        for folder, seal in zip((home.prepared / "images", home.masks / "box"), expected):  # noqa: B905
            if (folder / "store.json").exists():
                assert Store.open(folder).fingerprint == seal
    assert start(birds).communicate()[0].split()[1:] == expected
    assert not [file.name for file in birds.rglob(".*") if file.is_file()]  # halves are swept


@pytest.mark.fault(
    "disk/full-data",
    "disk full in 01_data",
    "a quota on the size of files",
    "one sentence names the file; the store of before is untouched",
)
@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_loses_nothing(birds: Path) -> None:
    before = prepare.prepare_images("s", "cub200", 20).fingerprint
    said = start(birds, limit=200_000).communicate()[0]
    assert "StudyError no space left while writing" in said and "pixels.u8" in said
    assert Store.open(paths.StudyPaths("s").prepared / "images").fingerprint == before
    assert not list((paths.StudyPaths("s").prepared / "images").glob(".*"))


@pytest.mark.fault(
    "disk/read-only",
    "output folder that cannot be written",
    "the system refuses every new file",
    "one sentence names the file and the reason",
)
def test_a_folder_that_cannot_be_written_is_named(
    birds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lib.core.files.tempfile.mkstemp", refuse)
    with pytest.raises(prepare.StudyError, match="pixels.u8 cannot be written .Permission denied"):
        prepare.prepare_images("s", "cub200", 20)
