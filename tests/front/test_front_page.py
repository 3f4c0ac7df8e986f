"""lib.front.front_page: the front page, from made-up studies whose numbers are known by hand."""

import base64
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup, Tag
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from lib.core import paths
from lib.core.errors import StudyError
from lib.core.files import write_json
from lib.execute.html import network_references
from lib.front import front_page

FINDING = "A new background takes 7.5 of 15.0 points of MAP@R"
LOSSES = ["contrastive", "multi_similarity"]
COLUMNS = ("clean", "random_background", "change", "low", "high", "lost", "lost_low", "lost_high")
PAPER = "dataset,loss,arm,condition,map_at_r_percent_mean,std\n" + "".join(
    f"cub200,multi_similarity,{arm},{condition},{value},\n"
    for arm, condition, value in [
        ("base", "clean", 19.19),
        ("base", "random_background", 12.21),
        ("bgaugment", "clean", 18.93),
        ("bgaugment", "random_background", 15.65),
    ]
)


def models() -> list[dict]:
    """Rows of a summary: the trunk, then base and BGAugment of two losses, the better second."""
    rows = [("none", "untrained", (20, 11, -9, None, None, 45, None, None))]
    for better, loss in enumerate(LOSSES):
        base = (22.04 + better, 14.5 + better, -7.54, -9.5, -5.58, 34.2, 25.1, 43.3)
        ours = (25 + better, 20 + better, -5, -6.96, -0.04, 20, 12.2, 27.8)
        rows += [(loss, "base", base), (loss, "bgaugment", ours)]
    return [
        {"loss": loss, "arm": arm} | dict(zip(COLUMNS, x, strict=True)) for loss, arm, x in rows
    ]


def change(reports: Path, name: str = "cub200-cpu", **facts) -> None:
    """Say something else in a study's summary."""
    file = reports / "summaries" / f"{name}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts), encoding="utf-8")


def make_study(reports: Path, name: str, dataset: str, finding: str = FINDING) -> Path:
    """A complete study as notebooks 01 to 07 leave it; returns its folder."""
    folder = reports / name
    (folder / "figures" / "06_report").mkdir(parents=True)
    for stem in front_page.PAGES:
        text = f"<html><head><title>Title &lt;of&gt; {stem[:2]}</title></head></html>"
        (folder / f"{stem}.html").write_text(text, encoding="utf-8")
    svg = '<svg width="45pt" height="15pt" viewBox="0 0 45 15" xmlns="http://www.w3.org/2000/svg"/>'
    (folder / front_page.HEADLINE).write_text(svg, encoding="utf-8")
    (folder / "effects.csv").write_text("a table", encoding="utf-8")
    entry = {
        "study": name, "dataset": dataset, "note": "", "finding": finding,
        "map_at_r_percent": {"base": {"clean": 22.54, "random_background": 15.0}},
        "models": models(), "lost": {"base": [0.6, 0.5, 0.7], "bgaugment": [0.2, None, None]},
        "gains": {"bgaugment-base": {"random_background": [2.06, 1.4, 2.7]}},
        "attention_score": {"untrained": 0.2, "base": -0.0512, "bgaugment": None},
        "queries": 5794, "losses": LOSSES, "arms": ["base", "bgaugment"], "seeds": 2,
        "not_trained": "none", "tables_sha256": {},
    }  # fmt: skip
    (reports / "summaries").mkdir(exist_ok=True)
    write_json(reports / "summaries" / f"{name}.json", entry)
    return folder


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    folder = tmp_path / "facts"
    folder.mkdir()
    (folder / "published_retrieval.csv").write_text(PAPER, encoding="utf-8")
    return folder


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    make_study(folder, "a-demo", "rendered")
    make_study(folder, "cub200-cpu", "cub200")
    return folder


def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def study_of(page: Path, name: str = "cub200-cpu") -> Tag:
    return parsed(page).find(id=f"study-{name}")


def cells(part: Tag) -> list[list[str]]:
    """The table's body rows as text, each led by the loss that its group is headed with."""
    return [
        [body.get_text("|", strip=True).split("|")[0] if body.find(scope="rowgroup") else ""]
        + [cell.get_text(strip=True) for cell in row(["th", "td"])]
        for body in part("tbody")
        for row in body("tr")
        if row.find("th", scope="row")
    ]


def test_the_summaries_here_are_as_the_committed_ones(reports) -> None:
    written = json.loads((reports / "summaries" / "cub200-cpu.json").read_text())
    for file in (paths.REPORTS / "summaries").glob("*.json"):
        assert set(json.loads(file.read_text(encoding="utf-8"))) == set(written), file
    assert set(front_page.HELD) <= set(written)


def test_the_table_holds_the_summarys_numbers_beside_the_papers(reports, facts) -> None:
    rows = {tuple(row[:2]): row[2:] for row in cells(study_of(front_page.build(reports, facts)))}
    assert list(rows)[0] == ("", "untrained trunk") and len(rows) == 5
    ours = ["23.0", "15.5", "−7.5", "−9.5 to −5.6"]
    assert rows["Multi-similarity", "base"] == [*ours, "19.2", "12.2", "−7.0"]
    ours = ["22.0", "14.5", "−7.5", "−9.5 to −5.6"]
    assert rows["Contrastive", "base"] == [*ours, "–", "–", "–"]
    assert rows["Multi-similarity", "BGAugment"][:4] == ["26.0", "21.0", "−5.0", "−7.0 to 0.0"]
    assert rows["Multi-similarity", "BGAugment"][4:] == ["18.9", "15.7", "−3.3"]
    assert rows["", "untrained trunk"][:4] == ["20.0", "11.0", "−9.0", "–"]


def test_what_was_not_measured_is_a_dash(reports, facts) -> None:
    alone = [{"loss": "triplet", "arm": "greyaugment", "clean": 30.0}]
    change(reports, models=alone, lost={}, gains={}, attention_score={})
    part = study_of(front_page.build(reports, facts))
    assert cells(part) == [["Triplet", "GreyAugment", "30.0", *["–"] * 3]]
    assert FINDING in part.h2.get_text() and "Attention" not in part.get_text()


def test_studies_page_and_stale_line_are_the_callers(reports, facts) -> None:
    first = front_page.build(reports, facts).read_bytes()
    page = front_page.build(
        reports, facts, ["a-demo"], "local.html", lambda study: f"Stale: {study} <x>"
    )
    soup = parsed(page)
    assert page.name == "local.html" and len(soup.select("section.study")) == 1
    assert "Stale: a-demo <x>" in soup.get_text() and not soup.find(id="others")
    assert (reports / "local.png").exists() and (reports / "index.html").read_bytes() == first
    assert b"Stale" not in first


def test_the_first_figure_shows_no_data_set_twice(reports, facts, monkeypatch) -> None:
    make_study(reports, "cub200-arms", "cub200")
    change(reports, name="cub200-arms", losses=LOSSES[:1])
    make_study(reports, "cars196-cpu", "cars196")
    drawn = []
    monkeypatch.setattr(front_page.first_figure, "write", lambda studies, *_: drawn.extend(studies))
    front_page.build(reports, facts)
    assert drawn == ["Birds", "Cars"]


def test_gains_are_a_row_a_study_and_contrast(reports, facts) -> None:
    soup = parsed(front_page.build(reports, facts))
    row = [cell.get_text() for cell in soup.find(attrs={"aria-label": "Gains"}).tbody("tr")[0]]
    assert [t for t in row if t.strip()] == ["Birds", "BGAugment − base", "2.1 [1.4, 2.7]", "–"]


def test_models_that_did_not_learn_are_named(reports, facts) -> None:
    for told, shown in (("none", False), ("Triplet base seed 0", True)):
        change(reports, not_trained=told)
        text = parsed(front_page.build(reports, facts)).get_text()
        assert ("did not pass the training test" in text, told in text) == (shown, shown)


def test_photographs_come_first_and_the_demo_has_no_column_of_the_paper(reports, facts) -> None:
    soup = parsed(front_page.build(reports, facts))
    found = soup.select("section.study")
    assert [part["id"] for part in found] == ["study-cub200-cpu", "study-a-demo"]
    assert found[0].select(".paper") and not found[1].select(".paper")
    assert {len(row) for row in cells(found[1])} == {6}
    assert "not photographed" in found[1].get_text() and "Not shown" not in soup.get_text()
    assert "2 losses, 2 seeds, 5,794 test queries." in found[0].get_text()
    scores = [" ".join(p.get_text().split()) for p in found[0]("p") if "Attention" in p.get_text()]
    assert scores[0].endswith("untrained trunk 0.200, base −0.051.")  # and None is left out


def test_same_files_same_bytes(reports, facts, tmp_path) -> None:
    first = front_page.build(reports, facts).read_bytes()
    assert front_page.build(reports, facts).read_bytes() == first
    moved = reports.rename(tmp_path / "elsewhere")
    assert front_page.build(moved, facts).read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert sorted(path.name for path in moved.iterdir()) == [
        "a-demo", "cub200-cpu", "index.html", "overview.png", "overview.svg", "summaries",
    ]  # fmt: skip


def test_every_local_link_leads_somewhere_and_nothing_is_loaded(reports, facts) -> None:
    make_study(reports, "a b#1%", "folder")
    page = front_page.build(reports, facts)
    soup = parsed(page)
    found = [tag[key] for key in ("href", "src") for tag in soup.find_all(attrs={key: True})]
    local = [address for address in found if not address.startswith("https:")]
    assert len(local) >= 3 * 9 and len(found) - len(local) == 1
    ids = {tag["id"] for tag in soup.find_all(id=True)}
    for address in local:
        if address.startswith("#"):
            assert address[1:] in ids
        else:
            assert (page.parent / unquote(address)).is_file(), address
    named = {word for tag in soup.find_all(attrs={"aria-labelledby": True})
             for word in tag["aria-labelledby"].split()}  # fmt: skip
    assert named <= ids
    assert network_references(page.read_text(encoding="utf-8")) == [] and not soup("script")


def test_every_notebook_has_a_line(reports, facts) -> None:
    lines = study_of(front_page.build(reports, facts)).select("ol li")
    assert [line.find(class_="number").text for line in lines] == [
        f"0{number}" for number in range(1, 8)
    ]
    assert [a.text for a in lines[5]("a")] == ["Title <of> 06"]


@pytest.mark.fault(
    "foreign/front-page",
    "HTML in names on the front page",
    "tags in study, finding and note",
    "shown as text",
)
def test_text_from_files_stays_text(reports, facts) -> None:
    evil = '<script>alert(1)<&"x'
    make_study(reports, evil, "<b>set", finding=f"</h2>{evil} wins")
    change(reports, evil, models=[models()[1] | {"loss": "<i>mine"}], lost={})
    (reports / evil / "01_data.html").write_text("<title>&lt;script&gt; a</title>")
    soup = parsed(front_page.build(reports, facts))
    assert not soup(["script", "b", "i"])
    part = soup.select("section.study")[1]  # the paper's data set comes first
    assert evil in part.h2.get_text() and f"</h2>{evil} wins" in part.h2.get_text()
    assert part.img["alt"] == f"</h2>{evil} wins"
    assert "<i>mine" in part.table.get_text() and part.select("li a")[0].text == "<script> a"


def test_what_is_missing_is_named(reports, facts) -> None:
    gone = (front_page.HEADLINE, "03_train.html", "05_attention.html", "07_remedies.html")
    for name in gone:
        (reports / "cub200-cpu" / name).unlink()
    soup = parsed(front_page.build(reports, facts))
    part = soup.find(id="study-cub200-cpu")
    said = part.select_one(".missing").get_text()
    assert all(name in said for name in gone)
    assert "04_shift.html" not in said and not part("img")
    assert not soup.find(id="study-a-demo").select(".missing")


def test_a_study_of_which_only_the_summary_is_there(reports, facts) -> None:
    shutil.rmtree(reports / "cub200-cpu")
    part = study_of(front_page.build(reports, facts))
    assert "base 60 % [50 to 70], BGAugment 20 %" in part.h2.get_text() and len(cells(part)) == 5
    assert all(stem in part.select_one(".missing").get_text() for stem in front_page.PAGES)
    assert not part(["img", "ol"])


def test_the_title_of_a_page_is_its_own_or_its_name(tmp_path) -> None:
    page = tmp_path / "04_shift.html"
    for text, title in (("<p>no title", "04_shift"), ("<title>\n Shift &lt;1</title>", "Shift <1")):
        page.write_text(text, encoding="utf-8")
        assert front_page.page_title(page) == title


def test_no_study_and_broken_summaries_say_what_to_do(reports, facts) -> None:
    with pytest.raises(StudyError, match="make repro"):
        front_page.build(reports / "nowhere", facts)
    file = reports / "summaries" / "cub200-cpu.json"
    whole = json.loads(file.read_text())
    for text in ('{"finding": ', "[1]", '{"study": "x"}'):
        file.write_text(text)
        with pytest.raises(StudyError, match=r"cub200-cpu.json.*make repro"):
            front_page.build(reports, facts)
    for key in ("finding", "models"):
        file.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        for read in (
            lambda: front_page.build(reports, facts),
            lambda: front_page.on_record(reports),
        ):
            with pytest.raises(StudyError, match=rf"cub200-cpu.json.* lacks {key}\. .*make repro"):
                read()
    assert not (reports / "index.html").exists()


def test_headings_and_table_headers_are_in_order(reports, facts) -> None:
    soup = parsed(front_page.build(reports, facts))
    ranks = [int(tag.name[1]) for tag in soup(["h1", "h2", "h3", "h4"])]
    assert ranks[0] == 1 and ranks.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(ranks, ranks[1:], strict=False))
    assert soup.html["lang"] == "en" and soup.find("meta", attrs={"name": "viewport"})
    for table in soup("table"):
        assert table.caption and all(cell.get("scope") for cell in table("th"))
        assert all(row.parent.name in ("thead", "tbody") for row in table("tr"))
    for table in soup.select(".study table"):
        assert table.find(scope="rowgroup")["colspan"] in ("5", "8")
    widths = {
        sum(int(cell.get("colspan", 1)) for cell in row(["th", "td"]))
        for row in soup.find(id="study-cub200-cpu").select("thead tr")
    }
    assert widths == {8}
    skip = soup.select_one("a.skip")
    assert soup.find(id=skip["href"][1:]).name == "main"


def test_the_command_says_what_it_wrote_or_what_is_wrong(reports, facts, monkeypatch, capsys):
    monkeypatch.setattr(front_page.paths, "ROOT", reports.parent)
    monkeypatch.setattr(front_page.paths, "REPORTS", reports)
    monkeypatch.setattr(front_page.paths, "FACTS", facts)
    assert front_page.main() == 0
    assert capsys.readouterr().out.split() == ["reports/index.html", "reports/local.html"]
    monkeypatch.setattr(front_page.paths, "REPORTS", reports / "none")
    assert front_page.main() == 2 and "make repro" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "words"), [(-7.84, "−7.8"), (0.26, "+0.3"), (-0.04, "0.0"), (float("nan"), "–")]
)
def test_signed(value: float, words: str) -> None:
    assert front_page.signed(value) == words


def test_figures_lead_to_their_place_in_the_notebook(reports, facts) -> None:
    folder, outputs = reports / "cub200-cpu", []
    (folder / "figures" / "04_shift").mkdir()
    for name, colour in (("conditions", "red"), ("x y", "blue"), ("unseen", "green")):
        file = folder / "figures" / "04_shift" / f"{name}.webp"
        Image.new("RGB", (40, 30), colour).save(file)
        image = base64.b64encode(file.read_bytes()).decode()
        outputs.append(
            new_output(
                "display_data",
                {"image/jpeg": image},
                metadata={"image/jpeg": {"alt": f"<{name}> falls", "figure": name}},
            )
        )
    executed = new_notebook(cells=[new_code_cell("", outputs=outputs[:2])])
    nbformat.write(executed, folder / "04_shift.ipynb")
    (folder / "05_attention.ipynb").write_text("{broken")
    lists = parsed(front_page.build(reports, facts)).find(id="study-cub200-cpu").select(".figures")
    links = [
        [(a["href"], a.text, a.img["src"], a.img["width"]) for a in part("a")] for part in lists
    ]
    one, two = (
        (f"cub200-cpu/04_shift.html#figure-{name}", f"<{unquote(name)}> falls",
         f"cub200-cpu/figures/04_shift/{name}.webp", "40")
        for name in ("conditions", "x%20y")
    )  # fmt: skip
    assert links == [[one], [one, two]]  # what is seen at first sight, then all


def test_how_a_study_was_made_is_told(reports, facts) -> None:
    folder = reports / "cub200-cpu"
    machine = {"cores": 2, "processor": "P", "memory_gb": 25, "gpu": None, "python": "3.11.7",
               "system": "Linux", "packages": {"torch": "2.15.0"}}  # fmt: skip
    runs = {
        "01_data": {"seconds": 90, "finished": "2026-01-02 10:00 UTC", "machine": machine},
        "try": {"seconds": 9999, "finished": "2027-01-01 00:00 UTC", "machine": machine},
        "06_report": {
            "seconds": 30, "finished": "2026-01-03 09:00 UTC", "commit": "abc", "code": "c0de",
            "data": {"images": "1234"}, "machine": machine | {"gpu": "G"},
        },
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(runs))
    change(reports, tables_sha256={"effects.csv": "00ff", "gone.csv": "11"})
    part = parsed(front_page.build(reports, facts)).find(id="study-cub200-cpu")
    text = " ".join(part.get_text().split())
    assert "Finished 2026-01-03. The last run of every page took 2.0 minutes" in text
    assert "Data: images 1234." in text
    assert "on 2 cores (P), 25 GB of memory, no GPU, Linux, Python 3.11.7, torch 2.15.0; 2" in text
    rows = [[c.get_text() for c in row(["th", "td"])] for row in part.select("details tbody tr")]
    assert rows == [
        ["01_data", "1.5", "2026-01-02 10:00 UTC", "–", "–"],
        ["06_report", "0.5", "2026-01-03 09:00 UTC", "abc", "c0de"],
    ]
    assert [li.text for li in part.select(".tables li")] == ["effects.csv 00ff"]
    for broken in ("", "[]", '{"01_data": {}}', '{"01_data": 3}'):
        (folder / "run.json").write_text(broken)
        assert front_page.build(reports, facts).exists()


def test_a_study_under_way_is_listed_with_the_pages_that_it_has(reports, facts) -> None:
    (reports / "cars").mkdir()
    (reports / "cars" / "01_data.html").write_text("<title>Data</title>")
    (reports / "empty").mkdir()
    soup = parsed(front_page.build(reports, facts))
    part = soup.find(attrs={"aria-labelledby": "others"})
    assert [h.text for h in part("h3")] == ["cars"]
    assert [(a.text, a["href"]) for a in part("a")] == [("Data", "cars/01_data.html")]


def test_studies_of_one_data_set_are_told_apart(reports, facts) -> None:
    make_study(reports, "cub200-arms", "cub200")
    change(reports, "cub200-arms", seeds=1)
    soup = parsed(front_page.build(reports, facts))
    names = [a.text for a in soup.nav("a") if a["href"].startswith("#study-")]
    assert names == ["Birds", "Birds (cub200-arms)", "Demo"]
    gains = soup.find(attrs={"aria-label": "Gains"})
    assert [row.th.text for row in gains.tbody("tr")] == ["Birds"]  # one line a data set
