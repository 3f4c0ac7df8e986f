"""Flipped bits, vanished files, full disks: seen and named, or made again; never a wrong number."""

import marshal
import os
import re
import shutil
import subprocess
import sys
import types
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from lib.core import cache, files, paths
from lib.core.errors import StudyError
from lib.data import prepare
from lib.data.store import Store
from lib.evaluation import measure as evaluation
from lib.evaluation import models
from lib.execute.notebook import NotebookFailed, execute
from lib.images.scenes import Scenes
from lib.masks import sources
from lib.training import fit as fitting
from lib.training import recipe as recipes
from lib.training import study as training
from lib.training import trainer
from tests.faults.damage import flip

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.fault(
    "disk/store",
    "flipped bit in a store",
    "one bit of the pixels, of the table and of the facts",
    "refused, file named",
)
@pytest.mark.parametrize("name", ["pixels.u8", "index.csv", "store.json"])
@pytest.mark.parametrize("place", np.linspace(0, 1, 9))
def test_a_flipped_bit_in_a_store_is_refused(study: str, name: str, place: float) -> None:
    folder = paths.StudyPaths(study).prepared / "images"
    flip(folder / name, place)
    with pytest.raises(StudyError, match=f"images.*{name}"):
        Store.open(folder)


@pytest.mark.fault(
    "disk/masks",
    "flipped bit in masks",
    "one bit of the masks, and of the table that says which are usable",
    "refused, file named",
)
@pytest.mark.parametrize("name", ["pixels.u8", "areas.csv"])
def test_a_flipped_bit_in_masks_is_refused(study: str, name: str) -> None:
    flip(paths.StudyPaths(study).masks / "drawn" / name, 0.8)
    with pytest.raises(StudyError, match=f"{name}.* is damaged"):
        Scenes(study, "drawn")


@pytest.fixture
def trained(study: str, recipe: recipes.Recipe) -> str:
    training.train_all(study, [recipe], Scenes(study, "drawn"))
    return study


@pytest.mark.fault(
    "disk/weights",
    "flipped bit in trained weights, or weights gone",
    "one bit; the file deleted",
    "refused, file named, and what to run; running it brings the same weights back",
)
def test_damaged_weights_are_refused_and_come_back(trained: str, recipe: recipes.Recipe) -> None:
    (file,) = paths.StudyPaths(trained).models.glob("*/base-0.safetensors")
    whole = file.read_bytes()
    flip(file)
    with pytest.raises(StudyError, match="base-0.safetensors is damaged.*Train study small again"):
        models.models_of(trained)
    file.unlink()
    with pytest.raises(StudyError, match="base-0.safetensors is gone"):
        models.models_of(trained)
    training.train_all(trained, [recipe], Scenes(trained, "drawn"))
    assert file.read_bytes() == whole and len(models.models_of(trained)) == 2


@pytest.mark.fault(
    "disk/finished",
    "flipped bit in a finished training in scratch",
    "one bit of its weights or history",
    "refused, folder to delete named",
)
@pytest.mark.parametrize("name", ["best.safetensors", "history.csv"])
def test_a_damaged_finished_training_is_not_used(study, recipe, tmp_path, name: str) -> None:
    scenes = Scenes(study, "drawn")
    best, _ = fitting.fit(recipe, scenes, tmp_path / "s")
    flip(best.parent / name)
    with pytest.raises(StudyError, match=f"{name} is damaged.*Delete .*trained from its begin"):
        fitting.fit(recipe, scenes, tmp_path / "s")


@pytest.fixture
def stopped(study, recipe, tmp_path, monkeypatch):
    """A training stopped after its second epoch: folder, and what it would have ended with."""
    scenes, one = Scenes(study, "drawn"), trainer.Run.train_epoch
    whole, _ = fitting.fit(recipe, scenes, tmp_path / "whole")

    def dies(self: trainer.Run, epoch: int) -> float:
        if epoch == 3:
            raise KeyboardInterrupt
        return one(self, epoch)

    monkeypatch.setattr(trainer.Run, "train_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        fitting.fit(recipe, scenes, tmp_path / "cut")
    monkeypatch.setattr(trainer.Run, "train_epoch", one)
    return scenes, tmp_path / "cut", whole.read_bytes()


@pytest.mark.fault(
    "disk/checkpoint",
    "flipped bit in a checkpoint",
    "24 places over the file",
    "refused, file named; or the bit meant nothing and the weights end the same",
)
def test_a_damaged_checkpoint_is_never_used(stopped, recipe, tmp_path) -> None:
    scenes, folder, expected = stopped
    (last,) = folder.glob("*/last.pt")
    refused = 0
    for place in np.linspace(0, 1, 24):
        shutil.copytree(folder, tmp_path / "again", dirs_exist_ok=True)
        flip(tmp_path / "again" / last.relative_to(folder), place, bit=3)
        try:
            assert fitting.fit(recipe, scenes, tmp_path / "again")[0].read_bytes() == expected
        except StudyError as error:
            assert "last.pt is no whole checkpoint" in str(error)
            refused += 1
        shutil.rmtree(tmp_path / "again")
    assert refused >= 12


@pytest.mark.fault(
    "disk/best",
    "flipped bit in the weights of a training that was cut",
    "one bit of the best epoch so far",
    "refused at its end, or written anew by a better epoch",
)
def test_damaged_weights_beside_a_checkpoint_are_never_used(stopped, recipe) -> None:
    scenes, folder, expected = stopped
    (best,) = folder.glob("*/best.safetensors")
    flip(best)
    try:
        assert fitting.fit(recipe, scenes, folder)[0].read_bytes() == expected
    except StudyError as error:
        assert "best.safetensors is damaged" in str(error)


@pytest.mark.fault(
    "disk/cache",
    "flipped bit in cached tensors, or a foreign file among them",
    "40 places over the file; a pickle",
    "said, and computed again: the same numbers",
)
def test_damaged_tensors_are_made_again(home: Path, capfd) -> None:
    def make() -> dict[str, torch.Tensor]:
        return {"x": torch.arange(300.0).view(30, 10), "y": torch.tensor([0.5])}

    cache.kept("s", "kind", "key", make)
    (file,) = paths.StudyPaths("s").scratch.glob("kind/*")
    again = []
    for place in [*np.linspace(0, 1, 40), None]:
        if place is None:
            file.write_bytes(b"\x80\x04K\x01.")
        else:
            flip(file, place, bit=5)
        found = cache.kept("s", "kind", "key", lambda: again.append(1) or make())
        assert all(torch.equal(found[name], value) for name, value in make().items())
    assert (
        len(again) == 41 and "is damaged: what it held is computed again" in capfd.readouterr()[1]
    )
    cache.kept("s", "kind", "key", lambda: pytest.fail("a whole file was made again"))


@pytest.mark.fault(
    "disk/vanished",
    "file that vanishes between two stages",
    "each file of store and masks deleted in turn",
    "refused, file or notebook named",
)
@pytest.mark.parametrize(
    "name",
    ["prepared/small/images/pixels.u8", "prepared/small/images/index.csv"]
    + ["prepared/small/images/store.json", "prepared/small/backgrounds/index.csv"]
    + ["masks/small/drawn/masks.json", "masks/small/drawn/areas.csv"]
    + ["masks/small/drawn/pixels.u8", "prepared/small/data.json", "masks/small/source.json"],
)
def test_a_vanished_file_is_named(home: Path, study: str, name: str) -> None:
    (home / "data" / name).unlink()
    folder = (home / "data" / name).parent.name
    with pytest.raises(StudyError, match=f"{folder}.*([Rr]un|is gone)"):
        prepare.about(study)
        Scenes(study, sources.mask_source(study))


FULL = """
import resource, signal, sys
import numpy as np, pandas as pd, torch
from pathlib import Path
from torch import nn
from lib.core import files
from lib.models import embedder
from lib.core.errors import StudyError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
home, table = Path(sys.argv[1]), pd.DataFrame({"x": np.random.rand(100_000)})
def checkpoint(path):
    with files.atomic(path) as temporary, open(temporary, "wb") as stream:
        torch.save({"x": torch.rand(100_000)}, stream)
writers = {
    "a.safetensors": lambda path: embedder.save_weights(nn.Linear(300, 300), path),
    "b.pt": checkpoint,
    "c.csv": lambda path: files.write_table(path, table),
    "d.parquet": lambda path: files.write_table(path, table),
    "e.json": lambda path: files.write_json(path, list(range(100_000))),
}
sys.dont_write_bytecode = True  # Python itself would cut a .pyc of .venv short and keep it
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for name, write in writers.items():
    (home / name).write_text("before")
    try:
        write(home / name)
    except StudyError as error:
        print(name, "no space left while writing" in str(error) and name in str(error))
"""


@pytest.mark.fault(
    "disk/full",
    "disk full while weights, checkpoints and tables are written",
    "a quota on the size of files, for every kind of file",
    "one sentence names the file; what was there is untouched, and no half is left",
)
@pytest.mark.skipif(os.name != "posix", reason="quotas of POSIX")
def test_a_full_disk_is_said_for_every_kind_of_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = ["a.safetensors", "b.pt", "c.csv", "d.parquet", "e.json"]
    assert done.stdout.split() == [word for name in names for word in (name, "True")], done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert {file.read_text() for file in tmp_path.iterdir()} == {"before"}


@pytest.mark.fault(
    "disk/cut-byte-code",
    "compiled Python that a full disk cut short",
    "half of a .pyc is imported by a notebook",
    "the message says which folders to delete",
)
def test_cut_byte_code_is_named_with_its_remedy(tmp_path: Path) -> None:
    whole = MAGIC_NUMBER + bytes(12) + marshal.dumps(compile("x = 1", "cut", "exec"))
    (tmp_path / "cut.pyc").write_bytes(whole[:-9])
    cell = new_code_cell(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport cut")
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "01_cut.ipynb")
    with pytest.raises(
        NotebookFailed, match=f"cut short: delete __pycache__ below {re.escape(sys.prefix)}"
    ):
        execute(tmp_path / "01_cut.ipynb", {}, tmp_path / "out")


@pytest.mark.fault(
    "disk/read-only-folder",
    "output folder without the right to write",
    "chmod",
    "one sentence names file and folder",
)
@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="the administrator may write everywhere"
)
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(StudyError, match="a.json cannot be written .*the right to write in .*shut"):
        files.write_json(tmp_path / "shut" / "a.json", {})


@pytest.mark.fault(
    "disk/room",
    "too little room for a stage",
    "100 bytes free, for data, masks, training and evaluation",
    "refused before the stage begins, with what it needs",
)
@pytest.mark.parametrize("stage", ["data", "masks", "train", "shift"])
def test_too_little_room_is_said_before_a_stage(
    trained: str, recipe, home: Path, monkeypatch, stage: str
) -> None:
    scenes = Scenes(trained, "drawn")
    options = {"seed": 0, "bias": 1.0, "test_bias": 1.0, "images_per_class": 2, "side": 48}
    options["classes"] = {"train": 2, "val": 2, "test": 2}
    work = {
        "data": lambda: prepare.prepare_images("new", "rendered", 40, options),
        "masks": lambda: sources.make_masks(trained, "full"),
        "train": lambda: fitting.fit(recipe, scenes, home / "elsewhere"),
        "shift": lambda: evaluation.measure(trained, ["clean"], 1, 1, []),
    }
    monkeypatch.setattr(
        "lib.core.files.shutil.disk_usage", lambda _: types.SimpleNamespace(free=100)
    )
    with pytest.raises(StudyError, match="needs .* GB, .* are free"):
        work[stage]()


@pytest.mark.fault(
    "killed/halves",
    "half-written files of a killed run",
    "the temporary file of a process that is gone, and of one that runs",
    "swept when the file is written again; another process's is left alone",
)
def test_halves_of_dead_processes_are_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".a.json.{dead.pid}.xyz.json", ".a.json.1.xyz.json", ".b.json.9.xyz.json"):
        (tmp_path / name).write_text("half")
    files.write_json(tmp_path / "a.json", {})
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == [".a.json.1.xyz.json", ".b.json.9.xyz.json", "a.json"]
