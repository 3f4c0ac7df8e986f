"""Fingerprints of code: what was computed by other code is computed again, not found in a cache."""

import ast
import hashlib
from functools import cache

from lib.core import paths

ALWAYS = ("core/hardware.py",)  # threads and precision decide the last digits of everything


@cache
def fingerprint(*rooms: str) -> str:
    """Of what the modules of some rooms do: comments, docstrings and layout do not count.

    Args:
        rooms: packages of lib, such as "images", or modules of them: "evaluation/embeddings".
    """
    files = [paths.LIB / name for name in ALWAYS]
    for room in rooms:
        module = paths.LIB / f"{room}.py"
        files += [module] if module.is_file() else (paths.LIB / room).rglob("*.py")
    seal = hashlib.sha256()
    for file in sorted(files):
        seal.update(file.relative_to(paths.LIB).as_posix().encode() + b"\0")
        seal.update(_meaning(file.read_text(encoding="utf-8")).encode())
    return seal.hexdigest()[:16]


def _meaning(text: str) -> str:
    """The syntax tree of a module as text, without docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Expr(ast.Constant(""))
    return ast.dump(tree)
