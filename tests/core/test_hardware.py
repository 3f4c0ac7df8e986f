"""bf16 is asked for in the studies; a processor that would imitate it gets float32."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lib.core import hardware, paths
from lib.core.files import read_json
from lib.images.scenes import Scenes
from lib.models import embedder, embedding
from lib.retrieval import search
from lib.training import recipe as recipes
from lib.training import trainer
from tests.training.test_trainer import recipe  # noqa: F401  (a fixture)


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
    """Weights to the last bit, what is noted of them, embeddings; no checkpoint is shared."""
    scenes, where = Scenes(study, "drawn"), paths.StudyPaths(study)
    asked = {key: getattr(recipe, key) for key in recipe.__dataclass_fields__}
    rest = {k: v for k, v in asked.items() if k not in ("loss", "arm", "seed", "p", "precision")}
    made, notes, folders = {}, {}, {}
    for name, wanted, has in (("f32", "f32", True), ("no", "bf16", False), ("bf16", "bf16", True)):
        processor(avx512_bf16=has)
        trainer.train_study(study, "triplet", [0], 1.0, scenes, precision=wanted, **rest)
        made[name] = (where.models / "triplet" / "bgaugment-0.safetensors").read_bytes()
        notes[name] = {m["precision"] for m in read_json(where.models / "triplet" / "models.json")}
        folders[name] = {folder.name for folder in where.scratch.glob("triplet-bgaugment-0-*")}
    assert notes == {"f32": {"f32"}, "no": {"f32"}, "bf16": {"bf16"}}
    assert made["no"] == made["f32"] != made["bf16"]
    assert folders["no"] == folders["f32"] < folders["bf16"]

    model = embedder.trained(where.models / "triplet" / "bgaugment-0.safetensors", "tiny", 4)

    def embed(wanted: str) -> np.ndarray:
        rows = scenes.store.rows("test")
        return embedding.embed(
            model, scenes, rows, "clean", draw=0, seed=0, size=32, precision=wanted
        ).numpy()

    exact, rounded = embed("f32"), embed("bf16")
    processor(avx2=True)
    assert np.array_equal(embed("bf16"), exact) and not np.array_equal(rounded, exact)
