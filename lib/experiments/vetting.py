"""Archives of torch.export: only those that hold a plain graph of tensors are opened.

torch's reader would unpickle some constants, evaluate the text of shapes (sympy), call any function
of torch by its name, and load compiled code that lies in the archive.
"""

import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.core.errors import StudyError

# What a graph of torch.export may hold: torch's own operations on tensors, and shapes in words
OPERATIONS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?|torch\.sym_\w+|math\.\w+|_operator\.\w+"
)
SHAPES = set(
    re.findall(
        r"\w+",
        """Symbol positive integer real nonnegative nonzero finite True False None Integer Float
    Rational Eq Ne Lt Le Gt Ge And Or Not Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv
    ModularIndexing Where IntTrueDiv FloatTrueDiv ToFloat TruncToInt Identity floor ceiling Abs Add
    Mul Pow oo int_oo""",
    )
)
PARTS = re.compile(
    r"(data/(weights|constants)/(weight|tensor|constant)?\w*(_config\.json)?|data/sample_inputs/\w+\.pt|"
    r"models/\w+\.json|archive_format|archive_version|byteorder|version|\.data/\w+|extra/.*|"
    r"\.format_version|\.storage_alignment)"
)


def vet_export(file: Path) -> None:
    """Refuse an archive of torch.export that holds more than a graph of tensors.

    That is: compiled code, pickled constants, operations outside torch's own on tensors, and shapes
    whose text is more than arithmetic (torch would evaluate it).
    """
    with zipfile.ZipFile(file) as archive:
        parts = [name.partition("/")[2] for name in archive.namelist()]
        odd = [part for part in parts if not PARTS.fullmatch(part)]
        roots = {name.partition("/")[0] for name in archive.namelist()}
        if len(set(parts)) < len(parts) or len(roots) > 1:  # readers differ in which they take
            raise StudyError(f"{file} holds a part twice, which is refused here.")
        if odd:
            raise StudyError(f"{file} holds {odd[0]}, which is no part of a plain exported graph.")
        for name, part in zip(archive.namelist(), parts, strict=True):
            if not part.endswith(".json") or part.startswith("extra/"):
                continue
            for key, value in _pairs(json.loads(archive.read(name))):
                if why := _odd(key, value):
                    raise StudyError(f"{file} {why}, which is refused here.")


def _odd(key: str, value: Any) -> str:
    """What is wrong with an entry of an exported graph; '' if nothing is."""
    text = str(value)
    if key == "use_pickle" and value:
        return "holds a pickled tensor"
    if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", text):
        return f"holds {text}, no plain tensor"
    if key == "target" and (not OPERATIONS.fullmatch(text) or "from_file" in text):
        return f"calls {text}"
    if key == "expr_str":
        words = set(re.findall(r"[A-Za-z_]\w*", text)) - SHAPES
        odd = [word for word in words if not re.fullmatch(r"[suzfi]+\d+", word)]
        if odd or re.search(r"[\[\]{}:;@\\]|\.\s*[A-Za-z_]", text):
            return f"has a shape {text!r}"
    return ""


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _pairs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner)


@contextmanager
def without_pickles() -> Iterator[None]:
    """Let torch.load take tensors only, whatever its caller asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
