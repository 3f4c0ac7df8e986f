"""Write the pages anew from the executed notebooks, after a change of the template: nothing is run.

    python -m lib.run.rerender [page ...] && python -m lib.report.front_page

Without names, every page under reports/. A page keeps its neighbours and its source notebook.
`dvc commit -f` then spares DVC the run, where `dvc status` names nothing else that has changed.
"""

import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup

from lib.core import paths
from lib.core.files import atomic
from lib.report.html import page


def renew(file: Path) -> None:
    """Write `<stem>.html` anew from the `<stem>.ipynb` beside it."""
    text = file.read_text(encoding="utf-8").partition("<main")[0]
    head = BeautifulSoup(text, features="html.parser")
    near = {way: head.find("a", rel=way) for way in ("prev", "next")}
    before, after = (link["href"].removesuffix(".html") if link else "" for link in near.values())
    source = head.find("a", string="source notebook")["href"]
    executed = nbformat.read(file.with_suffix(".ipynb"), as_version=4)
    made = page(executed, (file.parent / source).resolve(), file.parent, file.stem, (before, after))
    with atomic(file) as temporary:
        temporary.write_text(made.rstrip("\n") + "\n", encoding="utf-8")


def main(names: list[str]) -> None:
    """The command line: pages, by default all."""
    files = [Path(name).resolve() for name in names]
    for file in files or sorted(paths.REPORTS.glob("*/[0-9][0-9]_*.html")):
        renew(file)


if __name__ == "__main__":
    main(sys.argv[1:])
