"""What several test files need: pages of docs/ taken apart and run, pictures written."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from lib.core import paths

ROOT = paths.ROOT  # as it is before a test moves it
DOCS = ROOT / "docs"


def text_of(page: str) -> str:
    """A page of docs/."""
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, language: str = "python") -> list[str]:
    """The code blocks of a page, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), flags=re.S)


def run(page: str, **renamed: str) -> dict:
    """Run a page's Python from top to bottom; returns the names that it leaves.

    `renamed` replaces names of the page's example (`my_study="small"` puts small for my-study).
    """
    names, found = {"__name__": "page"}, blocks(page)
    assert found, f"{page} has no Python"
    for block in found:
        for old, new in renamed.items():
            block = block.replace(old.replace("_", "-"), new)
        exec(compile(block, page, "exec"), names)
    return names


def lost(page: Path) -> list[str]:
    """Local links of a Markdown page, and files that it names, that do not exist."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    named = re.findall(r"\b((?:lib|tests|benchmarks|notebooks)/\w+\.(?:py|ipynb))\b", text)
    gone = [link for link in links if ":" not in link and not (page.parent / link).exists()]
    return gone + [name for name in named if not (ROOT / name).exists()]


def save(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    """Write a picture of noise, width x height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(array).save(path)
