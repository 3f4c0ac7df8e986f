"""Executed notebooks without what differs from run to run: the same run, the same bytes."""

import re

import nbformat
from nbformat import NotebookNode

from lib.core.paths import ROOT
from lib.execute.html import harmless, harmless_markdown

# From where a path begins: tried anywhere inside, a long line would take the square of its length.
WORD = r"(?<![^\s'\"(])[^\s'\"(]*"


def clean(notebook: NotebookNode) -> NotebookNode:
    """A copy without what differs from run to run: times, ids, addresses, progress bars, paths."""
    cells, styles = [], {}
    for index, cell in enumerate(notebook.cells):
        kept = nbformat.from_dict(dict(cell, id=f"cell-{index:02d}"))
        kept.metadata = NotebookNode(
            {k: v for k, v in cell.metadata.items() if k not in ("papermill", "execution") and v}
        )
        if cell.cell_type == "code":
            outputs = _streams_merged([nbformat.from_dict(o) for o in cell.outputs])
            kept.outputs = [o for o in (_clean_output(o, styles) for o in outputs) if o]
        cells.append(kept)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.from_dict(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    )


def _streams_merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Between two displays: one stdout, then one stderr (their interleaving is a race)."""
    merged: list[NotebookNode] = []
    run: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged += [run[name] for name in ("stdout", "stderr") if name in run] + [output]
            run = {}
        elif output.name in run:
            run[output.name].text += output.text
        else:
            run[output.name] = output
    return merged + [run[name] for name in ("stdout", "stderr") if name in run]


def _clean_output(output: NotebookNode, styles: dict[str, str]) -> NotebookNode | None:
    if output.output_type == "stream":
        lines = output.text.splitlines(keepends=True) if output.name == "stdout" else []
        if output.name == "stderr":  # tqdm redraws its line with carriage returns
            lines = [x for x in re.findall(r"[^\n]*\n|[^\n]+", output.text) if "\r" not in x]
        output.text = clean_text("".join(lines))
        return output if output.text else None
    if output.output_type == "error":
        output.traceback = [clean_text(line) for line in output.traceback]
        return output
    if "application/vnd.jupyter.widget-view+json" in output.data:
        return None  # a widget is blank without a live kernel, and its ids are random
    for kind in ("text/plain", "text/html"):
        if kind in output.data:
            output.data[kind] = clean_text(output.data[kind])
    if "text/html" in output.data:
        output.data["text/html"] = harmless(output.data["text/html"])
    if "text/markdown" in output.data:
        output.data["text/markdown"] = harmless_markdown(output.data["text/markdown"])
    if "<style" in output.data.get("text/html", ""):  # pandas' Styler draws a random table id
        output.data["text/html"] = re.sub(
            r"\bT_[0-9a-f]{5}(?![0-9a-f])",
            lambda match: styles.setdefault(match[0], f"T_style{len(styles)}"),
            output.data["text/html"],
        )
        output.data["text/html"] = _slim(output.data["text/html"])
    return output


def _slim(table: str) -> str:
    """pandas' styled table without names that no rule of its own uses: half the bytes of a page."""
    rules = "".join(re.findall(r"(?s)<style.*?</style>", table))

    def used(name: re.Match) -> str:
        kept = [w for w in name[2].split() if re.search(rf"[#.]{re.escape(w)}(?![\w-])", rules)]
        return f' {name[1]}="{" ".join(kept)}"' if kept else ""

    def tag(match: re.Match) -> str:
        return re.sub(r' (id|class)="([^"]*)"', used, match[0]).replace(" >", ">")

    table = re.sub(r"<t[hdr]\b[^>]*>", tag, table)
    return re.sub(r"(?m)^ +(?=</?t)|<style[^>]*>\s*</style>\s*", "", table)


def clean_text(text: str) -> str:
    """Text without addresses in memory and folders of this machine."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    text = re.sub(rf"{WORD}/ipykernel_\d+/\d+\.py", "<cell>", text)
    text = re.sub(rf"{WORD}/site-packages/", "", text)
    return re.sub(rf"{re.escape(str(ROOT))}(?![\w.-])", ".", text.replace(f"{ROOT}/", ""))
