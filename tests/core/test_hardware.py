"""bf16 is asked for in the studies; a processor that would imitate it gets float32."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from lib.core import hardware, paths
from lib.core.files import read_json
from lib.images.scenes import Scenes
from lib.retrieval import search
from lib.training import recipe as recipes
from lib.training import study as training
from tests.training.test_trainer import recipe  # noqa: F401  (a fixture)

ROOT = paths.ROOT


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Pretend to be a processor with these capabilities."""

    def become(**found: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
        hardware.cpu_has_bf16.cache_clear()
        hardware.used.cache_clear()

    yield become
    monkeypatch.undo()
    hardware.cpu_has_bf16.cache_clear()
    hardware.used.cache_clear()


@pytest.mark.parametrize(
    ("found", "has"),
    [
        ({}, False),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": False, "amx_int8": True}, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
    ],
)
def test_bf16_is_used_where_the_processor_has_it(processor, capsys, found, has) -> None:
    processor(**found)
    assert hardware.used("f32", "cpu") == "f32"
    assert capsys.readouterr().err == ""
    for _ in range(2):
        assert hardware.used("bf16", "cpu") == ("bf16" if has else "f32")
        assert hardware.used("bf16", "cuda") == "bf16"
    with hardware.autocast(torch.device("cpu"), "bf16"):
        assert torch.is_autocast_enabled("cpu") == has
    assert search._draft_types()[0] == (torch.bfloat16 if has else torch.float32)


def test_it_is_said_once(processor, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(hardware, "say", said.append)
    processor(avx2=True)
    for _ in range(3):
        hardware.used("bf16", "cpu")
    assert len(said) == 1 and "float32 is used" in said[0]


def test_without_bf16_a_study_that_asks_for_it_is_one_in_float32(
    study: str,
    recipe: recipes.Recipe,  # noqa: F811
    processor,
) -> None:
    """Weights to the last bit, what is noted of them; no checkpoint is shared."""
    scenes, where = Scenes(study, "drawn"), paths.StudyPaths(study)
    made, losses, notes, folders = {}, {}, {}, {}
    for name, wanted, has in (("f32", "f32", True), ("no", "bf16", False), ("bf16", "bf16", True)):
        processor(avx512_bf16=has)
        history = training.train_all(
            study, [replace(recipe, arm="bgaugment", precision=wanted)], scenes
        )
        losses[name] = history["loss_value"].dropna().tolist()
        made[name] = (where.models / "triplet" / "bgaugment-0.safetensors").read_bytes()
        notes[name] = {m["precision"] for m in read_json(where.models / "triplet" / "models.json")}
        folders[name] = {folder.name for folder in where.scratch.glob("triplet-bgaugment-0-*")}
    assert notes == {"f32": {"f32"}, "no": {"f32"}, "bf16": {"bf16"}}
    assert made["no"] == made["f32"]  # in bf16 the best epoch may be the one before training
    assert losses["no"] == losses["f32"] != losses["bf16"] and len(losses["f32"]) > 1
    assert folders["no"] == folders["f32"] < folders["bf16"]


FAULTS = """
import resource
from lib.core import hardware
hardware.keep_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    b"1" * 32_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    """Memory that is given back costs a page fault for each 4 KiB when it is used again."""
    found = []
    for told in ({}, {"MALLOC_MMAP_THRESHOLD_": "131072"}):
        made = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        run = subprocess.run(
            [sys.executable, "-c", FAULTS], env=made | told | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(int(run.stdout))
    assert found[0] < 16_000 < 50_000 < found[1]


def test_workers_are_the_cores_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert hardware.workers() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert hardware.workers() == 64
