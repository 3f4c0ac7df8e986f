"""The front page of all studies: `python -m lib.front.front_page` writes
`reports/index.html` and `reports/local.html`.

The page is a function of the files of the reports folder and of the published numbers: the same
files give the same bytes. What a study lacks is named on the page.
"""

import html
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lib.core import params, paths
from lib.core.errors import StudyError
from lib.core.files import atomic, read_json
from lib.core.stage import in_words
from lib.data import datasets
from lib.execute.html import TEMPLATES, figures
from lib.front import first_figure, overview_figure, provenance, stale
from lib.front.provenance import Made
from lib.report.shift_tables import ENDS, MODEL, PAPER, SHARE, label_of, share_words
from lib.report.style import colour, label
from lib.training import arms

PAGES = (
    "01_data", "02_masks", "03_train", "04_shift", "05_attention", "06_report", "07_remedies",
)  # fmt: skip
PAPERS_ARMS = ("base", "bgaugment")  # what the first paragraph tells of
HEADLINE = "figures/06_report/headline.svg"
SHOWN = (
    "04_shift/conditions",
    "04_shift/background_gap",
    "05_attention/maps",
    "05_attention/scores",
    "07_remedies/front",
)
NAMES = {
    "cub200": "Birds", "cars196": "Cars", "sop": "Online products", "grocery": "Products",
    "rendered": "Demo",
}  # fmt: skip
Rows = tuple[str, list[dict[str, Any]]]  # label of a loss, "" for the untrained trunk; its arms
HELD = (  # by a summary, of what is shown here (lib.report.answers.front_page_entry)
    "dataset", "note", "finding", "models", "lost", "gains", "attention_score", "queries", "losses",
    "seeds", "not_trained", "tables_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Notebook:
    """The page of one notebook: what a link to it says, and its address."""

    number: str
    title: str
    address: str


@dataclass(frozen=True)
class Picture:
    """A figure: its address, its size in pixels, what it says, where its notebook shows it."""

    address: str
    width: int
    height: int
    alt: str = ""
    page: str = ""


@dataclass(frozen=True)
class Study:
    """What the front page shows of one study.

    `rows` pairs the label of a loss (empty for the untrained trunk) with its rows (an arm each,
    values in percent, NaN where there is none); `seeds` is how many are behind them; `missing` says
    in words what could not be shown. `tables` are (name, address, checksum). `stale` says what has
    changed since the study was made; empty where nothing has.
    """

    name: str
    entry: dict[str, Any]
    rows: list[Rows]
    seeds: int
    notebooks: list[Notebook]
    picture: Picture | None
    figures: dict[str, Picture]
    tables: list[tuple[str, str, str]]
    made: Made | None
    missing: list[str]
    stale: str = ""
    shared: bool = False  # a larger study on the page is of the same data set

    @property
    def dataset(self) -> str:
        """Key of the data set."""
        return str(self.entry["dataset"])

    @property
    def about(self) -> datasets.Dataset | None:
        """The data set's entry; None where it is not in the table."""
        return datasets.DATASETS.get(self.dataset)

    @property
    def label(self) -> str:
        """How the study is called: by what its images show; one's own by its name."""
        known = NAMES.get(self.dataset)
        return f"{known} ({self.name})" if known and self.shared else known or self.name

    @property
    def lost(self) -> pd.DataFrame:
        """Share of MAP@R that each arm loses under a random background: arm, value, low, high."""
        shares = self.entry["lost"]
        table = pd.DataFrame.from_dict(shares, orient="index", columns=ENDS, dtype=float)
        return table.rename_axis("arm").reset_index()

    @property
    def finding(self) -> str:
        """The study in one line: shares, as the first figure; points stand in the table."""
        told = f"MAP@R lost when only the background changes: {share_words(self.lost)}"
        return told if len(self.lost) else str(self.entry["finding"])

    @property
    def scores(self) -> list[tuple[str, float]]:
        """Attention score of every arm that has one, the untrained trunk first."""
        found = self.entry["attention_score"].items()
        known = [(arm, value) for arm, value in found if value is not None]
        return sorted(known, key=lambda pair: pair[0] != arms.UNTRAINED)

    @property
    def gains(self) -> dict[str, dict[str, list[float]]]:
        """Contrast of arms -> condition -> points of MAP@R, [value, low, high]."""
        return self.entry["gains"]

    @property
    def scale(self) -> str:
        """How much was run: `5 losses, 1 seed, 5,794 test queries.`"""
        counts = [
            (len(self.entry["losses"]), "loss", "losses"),
            (self.entry["seeds"], "seed", "seeds"),
            (self.entry["queries"], "test query", "test queries"),
        ]
        words = [f"{count:,} {one if count == 1 else many}" for count, one, many in counts]
        return ", ".join(words) + "."

    @property
    def shown(self) -> list[Picture]:
        """The figures that are seen at first sight."""
        return [self.figures[name] for name in SHOWN if name in self.figures]

    @property
    def published(self) -> bool:
        """Whether the paper has a number for at least one row."""
        return any(not math.isnan(row["paper_clean"]) for _, rows in self.rows for row in rows)

    @property
    def report(self) -> str | None:
        """Address of the page with the answers."""
        links = [notebook.address for notebook in self.notebooks]
        return next((link for link in links if link.endswith("/06_report.html")), None)


# --------------------------------------------------------------------------------- the numbers


def published(facts: Path, dataset: str) -> pd.DataFrame:
    """The paper's MAP@R in percent per loss and arm: columns paper_clean, paper_random."""
    table = pd.read_csv(facts / "published_retrieval.csv")
    part = table[table["dataset"] == dataset]
    wide = part.pivot(index=MODEL, columns="condition", values="map_at_r_percent_mean")
    return wide.reindex(columns=PAPER).set_axis(["paper_clean", "paper_random"], axis=1)


def headline_rows(models: list[dict[str, Any]], paper: pd.DataFrame) -> list[Rows]:
    """The headline table, the untrained trunk first.

    Args:
        models: of the summary; a row has no value of what was not measured.
        paper: of `published`.
    """
    table = pd.DataFrame(models, columns=[*MODEL, *PAPER, "change", "low", "high", *SHARE])
    table = table.set_index(MODEL).astype(float).join(paper)
    table["paper_change"] = table["paper_random"] - table["paper_clean"]
    rows = table.reset_index().to_dict("records")
    order = {arm: at for at, arm in enumerate(arms.ARMS)}
    rows.sort(key=lambda row: (row["loss"] != "none", row["loss"], order.get(row["arm"], 99)))
    return [(loss_label(name), list(part)) for name, part in groupby(rows, lambda row: row["loss"])]


def loss_label(name: str) -> str:
    """How a loss is called: nothing for no loss; one that is not in the table keeps its name."""
    return "" if name == "none" else label_of(name)


# --------------------------------------------------------------------------------- the pages


def page_title(page: Path) -> str:
    """The title of a page; its name where it has none."""
    with open(page, encoding="utf-8", errors="replace") as stream:
        head = stream.read(1 << 14)  # pages hold megabytes of pictures
    found = re.search(r"<title>(.*?)</title>", head, flags=re.DOTALL)
    return html.unescape(found[1]).strip() if found else page.stem


def notebooks(folder: Path, missing: list[str]) -> list[Notebook]:
    """The pages of a study by number."""
    found = sorted(folder.glob("[0-9][0-9]_*.html"))
    there = {page.stem for page in found}
    missing += [f"{name}.html" for name in PAGES if name not in there]
    return [
        Notebook(page.stem[:2], page_title(page), quote(f"{folder.name}/{page.name}"))
        for page in found
    ]


def picture(file: Path, alt: str = "", page: str = "") -> Picture | None:
    """A figure with its size, for a page that does not jump; None where there is none.

    Addresses start at the study's name; `file` is `reports/<study>/figures/<page>/<name>`.
    """
    try:
        return Picture(quote("/".join(file.parts[-4:])), *_size(file), alt, page)
    except OSError:  # absent, or no picture
        return None


def _size(file: Path) -> tuple[int, int]:
    """Width and height in pixels of the page."""
    if file.suffix != ".svg":
        with Image.open(file) as image:
            return image.size
    head = file.read_text(encoding="utf-8").partition("<svg")[2].partition(">")[0]
    found = [re.search(rf'\b{side}="([\d.]+)pt"', head) for side in ("width", "height")]
    if not all(found):
        raise OSError(f"{file} does not say its size")
    width, height = (round(float(side[1]) * 96 / 72) for side in found)
    return width, height


def figures_of(folder: Path, pages: list[str]) -> dict[str, Picture]:
    """The figures that the executed notebooks of a study show: `<page>/<name>` -> figure."""
    found = {}
    for stem in pages:
        try:
            notebook = nbformat.from_dict(read_json(folder / f"{stem}.ipynb"))
        except (OSError, StudyError):
            continue
        for _, figure in figures(notebook, folder / "figures" / stem):
            link = quote(f"{folder.name}/{stem}.html") + f"#figure-{quote(figure.name)}"
            if shown := picture(figure.file, figure.alt, link):
                found[f"{stem}/{figure.name}"] = shown
    return found


def tables_of(folder: Path, checksums: dict[str, str]) -> list[tuple[str, str, str]]:
    """The tables that the report has sealed, as far as they are there: name, address, checksum."""
    there = [name for name in sorted(checksums) if (folder / name).is_file()]
    return [(name, quote(f"{folder.name}/{name}"), checksums[name]) for name in there]


def others(reports: Path, told: set[str]) -> list[tuple[str, list[Notebook]]]:
    """Folders with pages but without a summary: studies under way, and those of one notebook."""
    folders = sorted(page.parent for page in reports.glob("*/[0-9][0-9]_*.html"))
    names = [folder for folder in dict.fromkeys(folders) if folder.name not in told]
    return [(folder.name, notebooks(folder, [])) for folder in names]


# --------------------------------------------------------------------------------- the whole


def read_summary(summary: Path) -> dict[str, Any]:
    """What `reports/summaries/<study>.json` says.

    Raises:
        StudyError: it is not as 06_report writes it.
    """
    try:
        entry = read_json(summary)
    except StudyError:
        entry = None
    lost = [key for key in HELD if not isinstance(entry, dict) or key not in entry]
    if lost:
        raise StudyError(
            f"{summary} should be a JSON object as 06_report writes it; it lacks "
            f"{', '.join(lost)}. Delete it and run `make repro`."
        )
    return entry


def read_study(summary: Path, facts: Path, stale: str = "") -> Study:
    """Everything that the front page shows of the study of `reports/summaries/<study>.json`.

    Raises:
        StudyError: the summary is not as 06_report writes it.
    """
    entry = read_summary(summary)
    folder, missing = summary.parent.parent / summary.stem, []
    pages = sorted(page.stem for page in folder.glob("[0-9][0-9]_*.html"))
    headline = picture(folder / HEADLINE)
    missing += [] if headline else [HEADLINE]
    return Study(
        name=summary.stem,
        entry=entry,
        rows=headline_rows(entry["models"], published(facts, entry["dataset"])),
        seeds=entry["seeds"],
        notebooks=notebooks(folder, missing),
        picture=headline,
        figures=figures_of(folder, pages),
        tables=tables_of(folder, entry["tables_sha256"]),
        made=provenance.read(folder, pages),
        missing=missing,
        stale=stale,
    )


def signed(value: float) -> str:
    """`+0.3`, `−7.8` with a true minus, `0.0` where it rounds to zero; a dash for NaN."""
    if math.isnan(value):
        return "–"
    words = f"{value:+.1f}".replace("-", "−")
    return "0.0" if words[1:] == "0.0" else words


def percent(value: float) -> str:
    """One digit; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.1f}"


def _environment() -> Environment:
    # select_autoescape goes by the ending, and .j2 is none that it knows: always escape
    made = Environment(
        loader=FileSystemLoader([Path(__file__).parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"signed": signed, "percent": percent, "quote": quote}
    made.globals |= {"label": label, "colour": colour}
    return made


def build(
    reports: Path,
    facts: Path,
    studies: list[str] | None = None,
    to: str = "index.html",
    older: Callable[[str], str] = lambda study: "",
) -> Path:
    """Write a front page `reports/<to>`; in the paper's order, the demo last, then stale studies.

    Args:
        reports: the folder with `summaries/<study>.json` and one folder a study.
        facts: the folder with `published_retrieval.csv`.
        studies: folders of `reports` to show; all by default.
        to: name of the page. Its figures are `first.jpg` and `overview.png` for `index.html`,
            else `<stem>.first.jpg` and `<stem>.png`.
        older: from a study's name to what has changed since it was made, "" for nothing.

    Returns:
        The path of the page.

    Raises:
        StudyError: there is no study yet, or a summary is broken.
    """
    summaries = sorted((reports / "summaries").glob("*.json"))
    wanted = [file for file in summaries if studies is None or file.stem in studies]
    if not wanted:
        raise StudyError(
            f"There is no study in {reports / 'summaries'} (one JSON file each). "
            "Run `make repro`: 06_report writes them."
        )
    found = [read_study(file, facts, older(file.stem)) for file in wanted]
    named = {study.name for study in overview_figure.largest(found)}
    found = [replace(study, shared=study.name not in named) for study in found]
    found.sort(
        key=lambda s: (
            s.stale.startswith("Stale"), overview_figure.rank(s.dataset), s.shared, s.name,
        )
    )  # fmt: skip
    name = "overview" if to == "index.html" else Path(to).stem
    finding = overview_figure.write(found, reports, name)
    first = picture(reports / f"{name}.png", finding) if finding else None
    first = replace(first, address=f"{name}.png") if first else None
    image = "first" if to == "index.html" else f"{Path(to).stem}.first"
    drawn = overview_figure.chosen(found)  # as above: of one data set, one study
    alt = first_figure.write({s.label: reports / s.name for s in drawn}, reports, image)
    opening = picture(reports / f"{image}.jpg", alt) if alt else None
    opening = replace(opening, address=f"{image}.jpg") if opening else None
    gains = overview_figure.gains(drawn) if first else []
    more = others(reports, {file.stem for file in summaries})
    more = [entry for entry in more if studies is None or entry[0] in (*studies, params.ALONE)]
    page = _environment().get_template("gallery.html.j2")
    text = page.render(
        studies=found, others=more, first=first, gains=gains, opening=opening,
        lost=[overview_figure.title(study, list(PAPERS_ARMS)) for study in drawn] if first else [],
    )  # fmt: skip
    with atomic(reports / to) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return reports / to


def on_record(reports: Path) -> list[str]:
    """The studies of published data sets: only their results are kept in git."""
    found = []
    for file in sorted((reports / "summaries").glob("*.json")):
        entry = datasets.DATASETS.get(read_summary(file)["dataset"])
        if entry and not entry.make and not entry.own:
            found.append(file.stem)
    return found


def _both() -> int:
    """`index.html` of the studies on record, `local.html` of all on this machine."""
    changes = stale.by_study()
    told = {study: stale.of_study(study, changed) for study, changed in changes.items()}
    for to, studies in (("index.html", on_record(paths.REPORTS)), ("local.html", None)):
        made = build(paths.REPORTS, paths.FACTS, studies or None, to, lambda s: told.get(s, ""))
        print(made.relative_to(paths.ROOT).as_posix())
    return 0


def main() -> int:
    """The command line. Returns 0, or 2 where there is nothing to show."""
    return in_words(_both)


if __name__ == "__main__":
    sys.exit(main())
