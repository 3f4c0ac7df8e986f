"""The pieces of a study that need not wait for each other: listed, and each made by its name.

A piece is a chunk of masks, a model, its embeddings under one condition and draw, its tables, its
attention. Each ends in files that the measuring steps look for before they compute anything, so
that a step finds done what any machine did (lib.run.grid). What travels to a machine is one text of
JSON; nothing here knows Dask, and torch is imported where a piece needs it.
"""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from lib.core import paths
from lib.core.code import fingerprint
from lib.core.errors import StudyError
from lib.core.files import atomic, digest, key_of, noted, read_json
from lib.core.progress import say
from lib.core.stage import locked

ROOMS = (
    "core", "data", "masks", "retrieval", "images", "models", "training", "evaluation", "attention",
    "run",
)  # fmt: skip
PACKAGES = (
    "torch", "torchvision", "timm", "pytorch-metric-learning", "numpy", "scipy", "pandas", "pillow",
    "openvino", "rembg", "pyarrow", "captum",
)  # fmt: skip
UNTRAINED = "none-untrained-0"
CHECKS = ("methods", "cascade", "faithfulness", "stability")  # attention tables that take long
PATIENCE = 60.0  # seconds until a file made on another machine must be seen in the shared folder


@dataclass(frozen=True)
class Piece:
    """One piece of work: what it is, which pieces come first, and all that it is given (JSON)."""

    kind: str
    name: str
    given: dict[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its name among all pieces of a study."""
        return f"{self.kind}/{self.name}"


# --- which pieces a study has --------------------------------------------------------------------


def of_masks(study: str, source: str) -> list[Piece]:
    """The chunks of a study's masks; none where the source is not one of rembg's models."""
    from lib.data.prepare import source_files
    from lib.data.store import Store
    from lib.masks import rembg_models, sources

    base = source.split("+")[0]
    if sources.get(base)[0].make is not rembg_models.rembg_masks:
        return []
    store = Store.open(paths.StudyPaths(study).prepared / "images")
    jobs = rembg_models.chunks(base, study, store, source_files(study))
    return [
        Piece("masks", f"{base}-{target.stem}", {
            "model": model, "files": [_name(file) for file in files],
            "sizes": [[int(side) for side in size] for size in sizes], "target": _relative(target),
        })
        for model, files, sizes, target in jobs
    ]  # fmt: skip


def of_study(sections: dict[str, dict[str, Any]], carry: bool = False) -> list[Piece]:
    """All pieces after the masks, from the study's sections of params.yaml alone.

    Every piece comes after those that it would otherwise compute itself.

    Args:
        carry: machines do not see our folder: masks that need the original files are no pieces.
    """
    from lib.evaluation import embeddings
    from lib.evaluation.measured import name_of
    from lib.masks.rembg_models import rembg_masks
    from lib.masks.sources import SOURCES
    from lib.masks.transforms import TRANSFORMS
    from lib.training import arms, study

    train, shift = sections["train"], sections["shift"]
    recipes = study.recipes(sections["data"]["dataset"], **train)
    names = [name_of(recipe.loss, recipe.arm, recipe.seed) for recipe in recipes]
    first = [
        name for name, recipe in zip(names, recipes, strict=True)
        if (recipe.loss, recipe.seed) == (recipes[0].loss, recipes[0].seed)
    ]  # fmt: skip
    planned = embeddings.plan(shift["conditions"], shift["draws"], shift["draws_control"])
    found = [Piece("model", name) for name in names]
    validated = {}
    for name, recipe in zip(names, recipes, strict=True):
        condition = arms.get(recipe.arm).select_on
        validated[name] = f"{condition}-{recipe.seed}"
        found.append(Piece("trunk", validated[name], {"condition": condition, "seed": recipe.seed}))
    found = list({piece.id: piece for piece in found}.values())
    for name in (UNTRAINED, *names):
        own = () if name == UNTRAINED else (f"model/{name}",)
        embedded = [
            Piece(
                "embedding", f"{name}-{condition}-{draw}",
                {"model": name, "condition": condition, "draw": draw}, own,
            )
            for condition, draw in planned
        ]  # fmt: skip
        trunk = (f"trunk/{validated[name]}",) if name in validated else ()
        needed = (*own, *trunk, *(piece.id for piece in embedded))
        found += [*embedded, Piece("evaluation", name, {"model": name}, needed)]
        found.append(Piece("attention", name, {"model": name}, own))
    seen = tuple(f"attention/{name}" for name in (UNTRAINED, *first))
    seen += tuple(f"model/{name}" for name in first)
    seen += tuple(f"embedding/{name}-clean-0" for name in (UNTRAINED, *first))
    for check in CHECKS:
        more = ("check/methods",) if check in ("cascade", "faithfulness") else ()
        found.append(Piece("check", check, {"check": check}, (*seen, *more)))
    for variant in shift["mask_variants"]:
        quick = variant in SOURCES and SOURCES[variant].make is not rembg_masks and not carry
        if variant in TRANSFORMS or quick:  # rembg's masks take all cores: the step makes them
            needed = tuple(f"{kind}/{name}{end}" for name in first
                           for kind, end in (("model", ""), ("embedding", "-clean-0")))  # fmt: skip
            found.append(Piece("variant", variant, {"variant": variant}, needed))
    return found


def text_of(study: str, piece: Piece, sections: dict[str, dict[str, Any]], carry: bool) -> str:
    """All that a machine needs to know to make a piece, as JSON.

    Args:
        carry: the files that it writes come back with the result.
    """
    told = {part: sections[part] for part in ("data", "masks", "train", "shift", "attention")}
    return json.dumps(
        {"study": study, "kind": piece.kind, "name": piece.name, "given": piece.given,
         "carry": carry, "sections": told if piece.kind != "masks" else {}},
        sort_keys=True,
    )  # fmt: skip


# --- what a machine is asked ---------------------------------------------------------------------


def start(gpus: int = 0, dask_worker: Any = None) -> dict[str, Any]:
    """Who this machine is, for the grid to take or refuse it. First of all calls to it.

    Args:
        gpus: of a cluster that the grid started itself: every worker gets one of them.
        dask_worker: filled in by Dask.
    """
    if gpus:  # before torch looks at the GPUs
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "")  # numbers or UUIDs
        names = given.split(",")[:gpus] if given else [str(number) for number in range(gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[int(dask_worker.name) % len(names)]
    return identity()


def identity() -> dict[str, Any]:
    """What must be the same everywhere for the same bytes: code, packages, device, precision."""
    from lib.core.hardware import device, used

    kind = device().type
    own = {"code of lib": fingerprint(*ROOMS)} | {name: version(name) for name in PACKAGES}
    return own | {"device": kind, "bf16 means": used("bf16", kind)}


def sees(name: str) -> str | None:
    """The text of a file under this machine's own root; None where it is not there."""
    file = paths.ROOT / name
    return file.read_text(encoding="utf-8") if file.is_file() else None


async def admit(key: str, dask_worker: Any = None) -> None:
    """Let this worker take pieces that ask for `key`, one at a time."""
    await dask_worker.set_resources(**{key: 1})


def prepared(trunk: str) -> None:
    """Have the trunk's weights and its exported graph on this machine, before pieces ask."""
    from lib.core.hardware import device
    from lib.models.embedder import Embedder
    from lib.models.embedding import forward_of

    model = Embedder(trunk, 0).to(device())
    forward_of(model)


def receive(name: str, offset: int, part: bytes, whole: dict[str, Any]) -> bool:
    """Write a part of a file that travels to this machine; True once it is whole.

    Args:
        name: as `_relative` gives it. whole: its size and sha256.
    """
    file = inside(name)
    if file.exists() and file.stat().st_size == whole["size"] and digest(file) == whole["sha256"]:
        return True
    half = file.with_name(f".{file.name}.travelling")
    half.parent.mkdir(parents=True, exist_ok=True)
    if offset == 0:
        half.unlink(missing_ok=True)
    with open(half, "ab") as stream:
        stream.seek(0, os.SEEK_END)
        if stream.tell() != offset:
            raise StudyError(f"{half} was written by somebody else at the same time. Run again.")
        stream.write(part)
    if offset + len(part) < whole["size"]:
        return False
    if digest(half) != whole["sha256"]:
        half.unlink()
        raise StudyError(f"{name} arrived damaged (another sha256). Run again.")
    os.replace(half, file)
    return True


# --- files, by names that mean the same on every machine -----------------------------------------


def _relative(file: Path) -> str:
    return file.relative_to(paths.ROOT).as_posix()


def _name(file: Path) -> str:
    """As `_relative`; a file outside the root, such as a mirror's, by its whole path."""
    return _relative(file) if file.is_relative_to(paths.ROOT) else str(file)


def inside(name: str) -> Path:
    """The file of a name that came from another machine; names that lead elsewhere are refused."""
    parts = PurePosixPath(name).parts
    homes = (("data", "scratch"), ("data", "prepared"), ("data", "masks"))
    known = parts[:2] in homes or (parts[:1] == ("reports",) and parts[2:3] == ("measured",))
    if not known or ".." in parts or len(parts) < 4:
        raise StudyError(f"{name!r} is no file of a piece: it is not written.")
    return paths.ROOT.joinpath(*parts)


def unpack(files: dict[str, bytes]) -> None:
    """Write files that came from another machine."""
    for name, content in files.items():
        with atomic(inside(name)) as temporary:
            temporary.write_bytes(content)


# --- making a piece ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A piece on the machine that makes it."""

    study: str
    name: str
    given: dict[str, Any]
    sections: dict[str, dict[str, Any]]

    @property
    def scenes(self) -> Any:
        """The study's images with masks; opened once a process, again when they have changed."""
        home = paths.StudyPaths(self.study)
        source = self.sections["masks"]["source"]
        files = (home.prepared / "images", home.prepared / "backgrounds", home.masks / source)
        return _scenes(self.study, source, tuple(digest(file / "store.json") for file in files))

    def recipe(self, name: str) -> Any:
        """The recipe of a model."""
        from lib.evaluation.measured import name_of
        from lib.training import study

        recipes = study.recipes(self.sections["data"]["dataset"], **self.sections["train"])
        return {name_of(r.loss, r.arm, r.seed): r for r in recipes}[name]

    def folder(self, name: str) -> Path:
        """Where a model is trained."""
        from lib.training import fit

        scratch = paths.StudyPaths(self.study).scratch
        return fit.folder_of(self.recipe(name), self.scenes, scratch)

    def model(self, name: str) -> tuple[Any, dict[str, Any], Any]:
        """A trained model, its entry and its history; the trunk's are as lib.evaluation has them.

        A model that another machine trained is waited for, and never trained a second time.
        """
        from dataclasses import fields

        from lib.core.hardware import device, used
        from lib.evaluation.models import Model
        from lib.training import fit, study

        train = self.sections["train"]
        if name == UNTRAINED:
            bits = used(train["precision"], device().type)
            who = Model("none", "untrained", 0, train["trunk"], 0, train["image_size"], bits, None)
            return who, {"trunk": who.trunk, "precision": bits}, None
        _seen(self.folder(name) / "seal.json")
        recipe = self.recipe(name)
        weights, history = fit.fit(recipe, self.scenes, paths.StudyPaths(self.study).scratch)
        entry = study.entry(weights, recipe)
        who = {part.name: entry[part.name] for part in fields(Model)} | {"weights": weights}
        key = {"loss": recipe.loss, "arm": recipe.arm, "seed": recipe.seed}
        return Model(**who), entry, history.assign(study=self.study, **key)

    def first(self) -> list[Any]:
        """Every arm of the first loss and seed."""
        from lib.evaluation.measured import name_of

        train = self.sections["train"]
        loss, seed = train["losses"][0], train["seeds"][0]
        return [self.model(name_of(loss, arm, seed))[0] for arm in train["arms"]]


@lru_cache(maxsize=1)
def _scenes(study: str, source: str, _stamps: tuple[str, ...]) -> Any:
    from lib.core.hardware import device
    from lib.images.scenes import Scenes

    return Scenes(study, source, device())


def _seen(file: Path) -> None:
    """Wait until a file that another machine has written is seen here."""
    until = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > until:
            raise StudyError(
                f"{file} was written by another machine and is not seen here after {PATIENCE:.0f} "
                "s: is this the shared folder?"
            )
        time.sleep(0.5)


def _masks(work: Work) -> list[Path]:
    from lib.masks.rembg_models import make_chunk

    given = work.given
    sizes = [(width, height) for width, height in given["sizes"]]
    files = [paths.ROOT / file for file in given["files"]]
    return [make_chunk((given["model"], files, sizes, paths.ROOT / given["target"]))]


def _model(work: Work) -> list[Path]:
    from lib.training.fit import fit

    weights, _ = fit(work.recipe(work.name), work.scenes, paths.StudyPaths(work.study).scratch)
    return [file for file in weights.parent.iterdir() if not file.name.startswith(".")]


def _trunk(work: Work) -> list[Path]:
    from lib.evaluation.learning import validation_scores

    trunk = work.model(UNTRAINED)[0]
    condition, seed = work.given["condition"], work.given["seed"]
    validation_scores(work.study, trunk, work.scenes, condition, seed)
    return []


def _embedding(work: Work) -> list[Path]:
    from lib.evaluation.embeddings import View

    model, condition, draw = (work.given[key] for key in ("model", "condition", "draw"))
    view = View(work.study, work.model(model)[0], work.scenes)
    view.embeddings(condition, draw)
    name = f"{view.key(condition, draw)}.safetensors"
    return [paths.StudyPaths(work.study).scratch / "embeddings" / name]


def _evaluation(work: Work) -> list[Path]:
    from lib.evaluation import embeddings, measure, measured

    model, entry, history = work.model(work.name)
    shift, folder = work.sections["shift"], measured.Measured(work.study).folder
    planned = embeddings.plan(shift["conditions"], shift["draws"], shift["draws_control"])
    measure.measure_model(work.study, model, entry, work.scenes, planned, history, folder)
    kinds = ("classes", "queries", "learning", "models")  # the manifest last
    return [file for kind in kinds for file in folder.glob(f"{kind}/{work.name}.*")]


def _attention_setup(work: Work, models: list[Any]) -> tuple[Any, Any, Any]:
    from lib.attention.measure import prepare

    given = work.sections["attention"]
    return prepare(work.scenes, models, work.study, **given)


def _attention(work: Work) -> list[Path]:
    from lib.attention.measure import measure_model

    trunk, model = work.model(UNTRAINED)[0], work.model(work.name)[0]
    models = [trunk] if work.name == UNTRAINED else [trunk, model]
    setup, ledger, _ = _attention_setup(work, models)
    measure_model(setup, ledger, model)
    return [ledger.folder / kind / f"{work.name}.parquet" for kind in ("scores", "similarity")]


def _check(work: Work) -> list[Path]:
    from lib.attention.measure import checks

    setup, ledger, levels = _attention_setup(work, [work.model(UNTRAINED)[0], *work.first()])
    checks(setup, ledger, levels)[work.name]()
    return [ledger.folder / f"{work.name}.parquet"]


def _variant(work: Work) -> list[Path]:
    from lib.evaluation import mask_robustness

    name = mask_robustness.named(work.sections["masks"]["source"], [work.given["variant"]])[-1]
    mask_robustness.through_masks(work.study, work.scenes, work.first(), name)
    return []


KINDS: dict[str, Callable[[Work], list[Path]]] = {
    "masks": _masks, "model": _model, "trunk": _trunk, "embedding": _embedding,
    "evaluation": _evaluation, "attention": _attention, "check": _check, "variant": _variant,
}  # fmt: skip


def log_of(study: str, piece_id: str) -> Path:
    """Where a piece writes what it says, on the machine that makes it."""
    return paths.StudyPaths(study).scratch / "grid" / f"{piece_id.replace('/', '-')}.log"


def end_of(log: Path) -> str:
    """Its last lines; what to do where it lies on another machine."""
    if not log.exists():
        return "(it is on the machine that made the piece, beside the worker's own log)"
    return "\n".join(log.read_text(encoding="utf-8").splitlines()[-30:])


@contextmanager
def _told_to(log: Path) -> Iterator[None]:
    """Everything said goes to a file; a worker makes one piece at a time."""
    before = os.environ.get("STUDY_PROGRESS")
    os.environ["STUDY_PROGRESS"] = str(log)
    try:
        yield
    finally:
        os.environ.pop("STUDY_PROGRESS")
        if before is not None:
            os.environ["STUDY_PROGRESS"] = before


def run(text: str, *before: dict[str, Any]) -> dict[str, Any]:
    """Make the piece of a text of `text_of`, unless another process is at it or has done it.

    Args:
        before: results of pieces that it comes after, where files travel with results.

    Returns:
        `held` (another process is at it), or `error` and `log` (its last lines), or `seconds`,
        `outputs` (names of files), and what is to be carried: `files` (their content), `ledger`.
    """
    told = json.loads(text)
    work = Work(told["study"], told["name"], told["given"], told["sections"])
    log = log_of(work.study, f"{told['kind']}/{work.name}")
    began = time.monotonic()
    with locked(log.with_suffix(".lock"), blocking=False) as free:
        if not free:
            return {"held": True}
        log.parent.mkdir(parents=True, exist_ok=True)
        with _told_to(log):
            try:
                for result in before:
                    unpack(result.get("files", {}))
                with noted() as written:
                    made = KINDS[told["kind"]](work)
                outputs = _names([*written, *made])
                found = {"seconds": time.monotonic() - began, "outputs": outputs}
                return found | (_carried(work, outputs) if told["carry"] else {})
            except Exception as error:
                say(traceback.format_exc())
                words = str(error) if isinstance(error, StudyError) else repr(error)
                return {"error": words, "log": end_of(log)}


def _names(files: list[Path]) -> list[str]:
    """Names of the files that count: not those that every machine fetches or exports for itself."""
    homes = (paths.ROOT / "data" / "scratch", paths.REPORTS)
    ours = (file for file in files if any(file.is_relative_to(home) for home in homes))
    return sorted({_relative(file) for file in ours if file.exists()})


def _carried(work: Work, outputs: list[str]) -> dict[str, Any]:
    """Content of the files of a piece; the notes on attention tables go apart, to be merged."""
    from lib.attention.measure import LEDGER

    files = {name: (paths.ROOT / name).read_bytes() for name in outputs}
    ledgers = [name for name in files if name.endswith(f"/attention/{LEDGER}")]
    for name in ledgers:
        files.pop(name)
    if not ledgers:
        return {"files": files}
    made = read_json(paths.ROOT / ledgers[0])["made"]
    tables = {name.partition("/attention/")[2].removesuffix(".parquet") for name in files}
    return {"files": files, "ledger": {name: made[name] for name in tables & set(made)}}


def key(told: str, data: list[str]) -> str:
    """Equal where a piece comes out equal: what it is told, its code, the data it looks at."""
    return key_of(told=told, code=fingerprint(*ROOMS), data=data)
