"""An executed notebook as one self-contained web page: nothing is loaded from the network."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from bs4 import BeautifulSoup, Tag

from lib.core.params import ALONE

if TYPE_CHECKING:
    from nbconvert import HTMLExporter
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
BY_ITSELF = (f"_{ALONE}", "_audit", "_catalogue")  # notebooks that are no step of a study
# What pandas writes of a table, and so all the HTML that an output may hold.
TABLE = {"style", "div", "p", "table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption"}
ATTRIBUTES = {"id", "class", "style", "type", "scoped", "border", "scope", "colspan", "rowspan"}


@dataclass(frozen=True)
class Figure:
    """A picture of an executed notebook that is also a file, `<name>.svg` or `<name>.webp`."""

    name: str
    file: Path
    alt: str


def page(
    notebook: NotebookNode,
    source: Path,
    out_dir: Path,
    stem: str,
    neighbours: tuple[str | None, str | None] = (None, None),
) -> str:
    """The page of an executed notebook, as HTML text.

    Args:
        notebook: the executed, cleaned notebook.
        source: path of the source notebook; the notebooks beside it are its neighbours.
        out_dir: where the page will lie, for relative links.
        stem: name of the page.
        neighbours: stems that replace the previous and next notebook of the source folder.

    Raises:
        ValueError: something on the page would be loaded from the network.
    """
    before, after = _neighbours(source, neighbours)
    facts = {
        "title": title(notebook, stem),
        "stem": stem,
        "source": _relative(source, out_dir),
        "previous": before[1],
        "next": after[1],
    }
    notebook = copy.deepcopy(notebook)
    for output, figure in figures(notebook, out_dir / "figures" / stem):
        file = figure.file.relative_to(out_dir).as_posix()  # not a second copy in the page
        output.metadata |= {"figure": figure.name, "file": file}
    resources = {"metadata": {"path": str(source.parent)}, "page": facts}
    text, _ = exporter().from_notebook_node(notebook, resources)
    text = _between_pages(text, {near: page for near, page in (before, after) if near})
    if loaded := network_references(text):
        raise ValueError(f"{stem}: the page would load {loaded[0]}; put the file beside it.")
    return text


@lru_cache(maxsize=1)
def exporter() -> HTMLExporter:
    """What makes pages; imported late, since readers of figures can do without it."""
    from nbconvert import HTMLExporter

    made = HTMLExporter(
        template_name="page", extra_template_basedirs=[str(TEMPLATES)], embed_images=True,
        exclude_anchor_links=True,
    )  # fmt: skip
    made.register_filter("headed", headed)
    made.register_filter("lines", lines)
    return made


def title(notebook: NotebookNode, default: str) -> str:
    """The notebook's first H1 without markup, or `default`."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"(?m)^# +(.+)$", cell.source)):
            return re.sub(r"[`*]", "", found[1]).strip()
    return default


def figures(notebook: NotebookNode, folder: Path) -> Iterator[tuple[NotebookNode, Figure]]:
    """The outputs that show a figure of `folder` (their metadata name it), each figure once."""
    files = [path for path in sorted(folder.glob("*")) if path.suffix in (".svg", ".webp")]
    kept = {path.stem: path for path in files}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
            about = output.metadata.get(kind, {})
            if path := kept.pop(about.get("figure"), None):
                yield output, Figure(path.stem, path, about.get("alt") or path.stem)


def headed(tables: str) -> str:
    """Tables of pandas for readers: a header says what for, and one without words is none.

    pandas gives the names of the index a row of their own; they go into the row above it. Columns
    of words get the class `words`, as pandas puts all cells to the right. No line breaks within an
    interval, or between a number and its unit.
    """
    whole = re.sub(r"(\[-?[\d.]+,) (-?[\d.]+\])", "\\1\u00a0\\2", tables)
    soup = BeautifulSoup(re.sub(r"(\d) %", "\\1\u00a0%", whole), features="html.parser")
    for table in soup("table"):
        _names_one_row_up(table)
        _mark_words(table)
    for cell in soup("th"):
        if _text(cell):
            way = "col" if cell.find_parent("thead") else "row"
            cell["scope"] = f"{way}group" if int(cell.get(f"{way}span", 1)) > 1 else way
        else:
            cell.name = "td"
            cell.clear()
    return str(soup)


def _text(cell: Tag) -> str:
    return cell.get_text(strip=True)


def _names_one_row_up(table: Tag) -> None:
    rows = table.select("thead tr")
    if len(rows) < 2:
        return
    pairs = list(zip(*(row(["th", "td"]) for row in rows[-2:]), strict=False))
    same = len(rows[-2](["th", "td"])) == len(rows[-1](["th", "td"]))
    if not same or _text(pairs[-1][1]) or any(_text(a) and _text(b) for a, b in pairs):
        return
    for above, below in pairs:
        if _text(below):
            below["class"] = [*below.get("class", []), "words"]
            above.replace_with(below)
    rows[-1].decompose()


def _mark_words(table: Tag) -> None:
    body = [row("td") for row in table.select("tbody tr")]
    heads = [row(["td", "th"]) for row in table.select("thead tr")[-1:]]
    for place in range(1, min(map(len, body), default=0) + 1):  # from the right: no spans there
        told = {_text(row[-place]).lower() for row in body} - {"none", "nan", "inf"}
        if any(re.search(r"[a-z]{3}", text) for text in told):
            for row in body + heads:
                row[-place]["class"] = [*row[-place].get("class", []), "words"]


def lines(code: str) -> str:
    """Highlighted code with every line in an element of its own, so that long ones can hang."""
    before, opening, inner = code.partition("<pre>")
    inner, closing, after = inner.rpartition("</pre>")
    kept = "".join(f'<span class="line">{line}\n</span>' for line in inner.strip("\n").split("\n"))
    return before + opening + kept + closing + after


def network_references(text: str) -> list[str]:
    """Addresses that a browser would fetch to show the page (plain links do not count)."""
    soup = BeautifulSoup(text, features="html.parser")
    parts = ["img", "script", "iframe", "source", "video", "audio", "embed", "object", "link"]
    found = [tag.get(key) for tag in soup(parts) for key in ("src", "href", "data", "srcset")]
    styles = " ".join(str(tag) for tag in soup("style"))
    styles += " ".join(tag["style"] for tag in soup(style=True))
    found += re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", styles)
    return [address for address in found if address and re.match(r"(?i)(https?:)?//", address)]


def harmless(text: str) -> str:
    """The HTML of an output with everything but tables, as pandas writes them, shown as text.

    Names of classes and files come from data and may hold tags; pandas does not escape them in a
    styled table. A cell holds text only, so any tag in one is the name's own.
    """
    soup = BeautifulSoup(text, features="html.parser")
    odd = [tag for tag in soup.find_all(True) if _is_odd(tag)]
    for tag in odd:
        tag.replace_with(str(tag))
    return str(soup) if odd else text


def _is_odd(tag: Tag) -> bool:
    known = tag.name in TABLE and set(tag.attrs) <= ATTRIBUTES
    return not known or tag.find_parent(["td", "th", "caption"]) is not None


def harmless_markdown(text: str) -> str:
    """Markdown of an output with its HTML shown as text."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _neighbours(source: Path, given: tuple[str | None, str | None]) -> list[tuple]:
    """[(notebook, page) before, (notebook, page) after]; None where there is none (given "").

    A notebook that stands by itself has no neighbours, and is no other notebook's.
    """
    found = {path.stem for path in source.parent.glob("[0-9]*.ipynb")} | {source.stem}
    stems = [None, *sorted(stem for stem in found if not stem.endswith(BY_ITSELF)), None]
    here = stems.index(source.stem) if source.stem in stems else None
    near = (stems[here - 1], stems[here + 1]) if here else (None, None)
    links = zip(near, given, strict=True)
    return [(None, None) if page == "" else (name, page or name) for name, page in links]


def _relative(source: Path, out_dir: Path) -> str | None:
    """Link from the page to its source; None outside the repository (a path of this machine)."""
    inside = out_dir.is_relative_to(source.parent.parent)
    return Path(os.path.relpath(source, out_dir)).as_posix() if inside else None


def _between_pages(text: str, pages: dict[str, str]) -> str:
    """Links from notebook to notebook in prose lead from page to page."""

    def to_page(match: re.Match[str]) -> str:
        return f'href="{pages.get(match[1], match[1])}.html{match[2] or ""}"'

    head, opening, body = text.partition("<main ")
    return head + opening + re.sub(r'href="(\d+_\w+)\.ipynb(#[^"]*)?"', to_page, body)
