"""The front page of all studies: `python -m lib.report.front_page` writes `reports/index.html`.

The page is a function of the files of the reports folder and of the published numbers: the same
files give the same bytes. What a study lacks is named on the page.
"""

import html
import math
import re
import sys
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import atomic, read_json
from lib.data import datasets
from lib.evaluation import effects
from lib.experiments import repeats
from lib.report import overview_figure, provenance
from lib.report.html import TEMPLATES, figures, title
from lib.report.provenance import Made
from lib.report.style import COLOURS, LABELS
from lib.training import losses

PAGES = ("01_data", "02_masks", "03_train", "04_shift", "05_attention", "06_report")
HEADLINE = "figures/06_report/headline.png"
SHOWN = (
    "04_shift/conditions",
    "04_shift/background_gap",
    "05_attention/maps",
    "05_attention/scores",
)
CONDITIONS = ["clean", "random_background"]
MODEL = ["loss", "arm"]


@dataclass(frozen=True)
class Notebook:
    """The pages of one notebook: a link each, as (words, address); 03_train has one a loss."""

    number: str
    title: str
    links: list[tuple[str, str]]


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
    values in percent, NaN where there is none); `missing` says in words what could not be shown.
    `tables` are (name, address, checksum).
    """

    name: str
    entry: dict[str, Any]
    rows: list[tuple[str, list[dict[str, Any]]]]
    notebooks: list[Notebook]
    picture: Picture | None
    figures: dict[str, Picture]
    tables: list[tuple[str, str, str]]
    made: Made | None
    missing: list[str]

    @property
    def dataset(self) -> str:
        """Key of the data set."""
        return str(self.entry.get("dataset"))

    @property
    def about(self) -> datasets.Dataset | None:
        """The data set's entry; None where it is not in the table."""
        return datasets.DATASETS.get(self.dataset)

    @property
    def scale(self) -> str:
        """How much was run, `5 losses, 1 seed, 5,794 test queries.`, as far as it is known."""
        counts = [
            (len(self.entry.get("losses") or []), "loss", "losses"),
            (self.entry.get("seeds"), "seed", "seeds"),
            (self.entry.get("queries"), "test query", "test queries"),
        ]
        words = [f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count]
        return ", ".join(words) + "." if words else ""

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
        links = [link for notebook in self.notebooks for _, link in notebook.links]
        return next((link for link in links if link.endswith("/06_report.html")), None)


# --------------------------------------------------------------------------------- the numbers


def read_table(file: Path, columns: list[str], missing: list[str]) -> pd.DataFrame:
    """The csv table; empty, with an entry in `missing`, where it is absent or is another table."""
    try:
        table = pd.read_csv(file)
    except FileNotFoundError:
        missing.append(file.name)
    except ValueError as error:
        missing.append(f"{file.name} (cannot be read: {error})")
    else:
        if lost := [name for name in columns if name not in table]:
            missing.append(f"{file.name} (has no column {', '.join(lost)})")
        else:
            return table
    return pd.DataFrame(columns=columns)


def with_repeats(folder: Path, table: str, columns: list[str], missing: list[str]) -> pd.DataFrame:
    """A table of a study, with the rows of its repeats with other seeds."""
    parts = [read_table(file, columns, missing) for file in repeats.files_of(folder, table)]
    return pd.concat(parts, ignore_index=True)


def levels(folder: Path, missing: list[str]) -> pd.DataFrame:
    """MAP@R in percent per loss and arm: columns clean, random_background.

    The mean over draws first, then over seeds, so that every model counts alike.
    """
    columns = [*MODEL, "seed", "condition", "sides", "metric", "value"]
    table = with_repeats(folder, "retrieval", columns, missing)
    keep = (table["sides"] == "both") & (table["metric"] == "map_at_r")
    part = table[keep & table["condition"].isin(CONDITIONS)].astype({"value": float})
    models = part.groupby([*MODEL, "seed", "condition"])["value"].mean()
    wide = models.groupby([*MODEL, "condition"]).mean().unstack("condition")
    return 100 * wide.reindex(columns=CONDITIONS)


def changes(folder: Path, missing: list[str]) -> pd.DataFrame:
    """Random background minus clean in points of MAP@R per loss and arm: change, low, high.

    Over seeds the ends of the intervals are averaged too, which never makes them too narrow.
    """
    columns = ["contrast", *MODEL, "condition", "sides", "metric", "value", "low", "high"]
    table = with_repeats(folder, "effects", columns, missing)
    rows = effects.select(table, "shifted-clean", "random_background", "both")
    values = rows.astype(dict.fromkeys(("value", "low", "high"), float)).groupby(MODEL)
    return 100 * values[["value", "low", "high"]].mean().rename(columns={"value": "change"})


def published(facts: Path, dataset: str, missing: list[str]) -> pd.DataFrame:
    """The paper's MAP@R in percent per loss and arm: columns paper_clean, paper_random."""
    value = "map_at_r_percent_mean"
    columns = ["dataset", *MODEL, "condition", value]
    table = read_table(facts / "published_retrieval.csv", columns, missing)
    part = table[table["dataset"] == dataset].astype({value: float})
    wide = part.groupby([*MODEL, "condition"])[value].mean().unstack("condition")
    return wide.reindex(columns=CONDITIONS).set_axis(["paper_clean", "paper_random"], axis=1)


def headline_rows(
    folder: Path, facts: Path, dataset: str, missing: list[str]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """The headline table, the untrained trunk first: (label of the loss, its rows)."""
    ours = levels(folder, missing)
    table = ours.join(changes(folder, missing)).join(published(facts, dataset, missing))
    table["change"] = table["change"].fillna(table["random_background"] - table["clean"])
    table["paper_change"] = table["paper_random"] - table["paper_clean"]
    rows = table.reset_index().to_dict("records")
    rows.sort(key=lambda row: (row["loss"] != "none", row["loss"], row["arm"]))
    return [(loss_label(name), list(part)) for name, part in groupby(rows, lambda row: row["loss"])]


def loss_label(name: str) -> str:
    """How a loss is called: nothing for no loss; one that is not in the table keeps its name."""
    if name == "none":
        return ""
    return losses.get(name).label if name in losses.LOSSES else name


# --------------------------------------------------------------------------------- the pages


def page_title(page: Path) -> str:
    """The notebook's H1: from the page's title, else from the notebook beside it, else its name."""
    with open(page, encoding="utf-8", errors="replace") as stream:
        head = stream.read(1 << 14)  # pages hold megabytes of pictures
    if found := re.search(r"<title>(.*?)</title>", head, flags=re.DOTALL):
        return html.unescape(found[1]).strip() or page.stem
    notebook = page.with_suffix(".ipynb")
    if not notebook.exists():
        return page.stem
    return title(nbformat.read(notebook, as_version=4), page.stem)


def notebooks(folder: Path, used: list[str], missing: list[str]) -> list[Notebook]:
    """The pages of a study by number; `used` are the losses that have a page of their own."""
    found = sorted(folder.glob("[0-9][0-9]_*.html"))
    train = [f"03_train_{loss}" for loss in used] or ["03_train"]
    wanted = [name for stem in PAGES for name in (train if stem == "03_train" else [stem])]
    missing += [f"{name}.html" for name in wanted if name not in {page.stem for page in found}]
    return [
        _notebook(number, list(pages), folder.name)
        for number, pages in groupby(found, lambda page: page.stem[:2])
    ]


def _notebook(number: str, pages: list[Path], study: str) -> Notebook:
    """One entry of the list: a link with the title, or the title and a link a loss."""
    name, addresses = page_title(pages[0]), [quote(f"{study}/{page.name}") for page in pages]
    if len(pages) == 1 and pages[0].stem.count("_") == 1:
        return Notebook(number, name, [(name, addresses[0])])
    words = [loss_label(page.stem.split("_", 2)[-1]) for page in pages]
    return Notebook(number, name, list(zip(words, addresses, strict=True)))


def picture(file: Path, alt: str = "", page: str = "") -> Picture | None:
    """A figure with its size, for a page that does not jump; None where there is none.

    Addresses start at the study's name; `file` is `reports/<study>/figures/<page>/<name>`.
    """
    try:
        with Image.open(file) as image:
            return Picture(quote("/".join(file.parts[-4:])), *image.size, alt, page)
    except OSError:  # absent, or no picture
        return None


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
    return [(folder.name, notebooks(folder, [], [])) for folder in names]


# --------------------------------------------------------------------------------- the whole


def read_study(summary: Path, facts: Path) -> Study:
    """Everything that the front page shows of the study of `reports/summaries/<study>.json`.

    Raises:
        StudyError: the summary itself is no JSON object with a finding.
    """
    try:
        entry = read_json(summary)
    except StudyError:
        entry = None
    if not isinstance(entry, dict) or not entry.get("finding"):
        raise StudyError(
            f"{summary} should be a JSON object with the study's finding, as 06_report writes it. "
            "Delete it and run `make repro`."
        )
    folder, missing = summary.parent.parent / summary.stem, []
    pages = sorted(page.stem for page in folder.glob("[0-9][0-9]_*.html"))
    headline = picture(folder / HEADLINE)
    if not headline:
        missing.append(HEADLINE)
    return Study(
        name=summary.stem,
        entry=entry,
        rows=headline_rows(folder, facts, str(entry.get("dataset")), missing),
        notebooks=notebooks(folder, entry.get("losses") or [], missing),
        picture=headline,
        figures=figures_of(folder, pages),
        tables=tables_of(folder, entry.get("tables_sha256") or {}),
        made=provenance.read(folder, pages),
        missing=missing,
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
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"signed": signed, "percent": percent, "quote": quote}
    return made


def build(reports: Path, facts: Path) -> Path:
    """Write the front page `reports/index.html`; in the paper's order, the rendered demo last.

    Args:
        reports: the folder with `summaries/<study>.json` and one folder a study.
        facts: the folder with `published_retrieval.csv`.

    Returns:
        The path of the page.

    Raises:
        StudyError: there is no study yet, or a summary is broken.
    """
    summaries = sorted((reports / "summaries").glob("*.json"))
    if not summaries:
        raise StudyError(
            f"There is no study in {reports / 'summaries'} (one JSON file each). "
            "Run `make repro`: 06_report writes them."
        )
    studies = [read_study(file, facts) for file in summaries]
    studies.sort(key=lambda study: (overview_figure.rank(study.dataset), study.name))
    finding = overview_figure.write(studies, reports)
    first = picture(reports / "overview.png", finding) if finding else None
    first = replace(first, address="overview.png") if first else None
    gains = overview_figure.gains(overview_figure.chosen(studies)) if first else ""
    page = _environment().get_template("gallery.html.j2")
    more = others(reports, {study.name for study in studies})
    text = page.render(
        studies=studies, others=more, first=first, gains=gains, colours=COLOURS, labels=LABELS
    )
    with atomic(reports / "index.html") as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return reports / "index.html"


def main() -> int:
    """The command line. Returns 0, or 2 where there is nothing to show."""
    try:
        print(build(paths.REPORTS, paths.FACTS).relative_to(paths.ROOT).as_posix())
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
