"""The committed pages in a real browser: quiet, offline, whole, fit for a phone, accessible.

Skipped where there is no Chromium (`apt-get install chromium`). The accessibility check also needs
axe-core: a file `node_modules/axe-core/axe.min.js` (`npm install axe-core`), or one named in AXE.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from lib.core import paths
from tests.report.browser import DESK, PHONE, Browser, found

AXE = Path(os.environ.get("AXE") or paths.ROOT / "node_modules" / "axe-core" / "axe.min.js")
FRONT = paths.REPORTS / "index.html"
PAGES = [FRONT, *sorted(paths.REPORTS.glob("*/*.html"))]
BROKEN_IMAGES = """Promise.all([...document.images].map(image => {
  image.loading = "eager";
  return image.decode().then(() => "", () => image.src.slice(0, 99));
})).then(found => found.filter(Boolean))"""
NAMELESS = """[...document.images].filter(i => i.alt.startsWith("Figure;") ||
  !(i.alt || (i.closest("a") || i).textContent).trim()).map(i => i.src.slice(0, 99))"""
LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
WIDE = """[...document.querySelectorAll("body *")].filter(e => {
  const width = document.documentElement.clientWidth;
  if (e.getBoundingClientRect().right <= width + 1) return false;
  for (let p = e; p !== document.body; p = p.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX)) return false;
  return true;
}).map(e => e.outerHTML.slice(0, 99))"""
RANKS = "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])"
VIOLATIONS = """axe.run(document, {resultTypes: ["violations"]}).then(result =>
  result.violations.map(v => v.id + ": " + v.nodes.map(n => n.target.join(" ")).join(", ")))"""
BAD = """<!DOCTYPE html><meta name="viewport" content="width=device-width"><title>bad</title>
<h1>a</h1><h3>b</h3><img src="none.png" alt="x"><img src="http://tests.invalid/a.png">
<a href="none.html">x</a><a href="#none">y</a>
<div style="width: 900px; background: red">wide</div><script>lost()</script>"""

pytestmark = pytest.mark.skipif(not found(), reason="no Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


def abroad(requests: list[str]) -> list[str]:
    """Requests that leave the machine."""
    return [url for url in requests if not url.startswith(("file:", "data:"))]


@cache
def places(page: Path) -> set[str]:
    """What a link can lead to on a page."""
    return set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def dead(links: list[str]) -> list[str]:
    """Local links whose file, or whose place on a page, does not exist."""
    lost = []
    for link in links:
        parts = urlsplit(link)
        file, place = Path(unquote(parts.path)), unquote(parts.fragment)
        gone = not file.exists() or (place and file.suffix == ".html" and place not in places(file))
        lost += [link] * (parts.scheme == "file" and bool(gone))
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_is_quiet_offline_and_whole(browser: Browser, page: Path) -> None:
    seen = browser.open(page)
    assert browser.value(BROKEN_IMAGES) == [] and browser.value(NAMELESS) == []
    assert seen.errors == [] and abroad(seen.requests) == []
    lost = dead(browser.value(LINKS))
    if page != FRONT and not (page.parent / "06_report.html").exists():  # a study under way
        lost = [link for link in lost if f"/{page.parent.name}/" not in link]
    # a page of an earlier notebook may outlive it; the front page says that it is stale
    lost = [link for link in lost if f"{paths.NOTEBOOKS.as_uri()}/" not in link]
    assert lost == []
    ranks = browser.value(RANKS)
    assert ranks[0] == 1 and ranks.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(ranks, ranks[1:], strict=False))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
@pytest.mark.parametrize("opened", [False, True], ids=["folded", "unfolded"])
def test_a_phone_does_not_scroll_sideways(browser: Browser, page: Path, opened: bool) -> None:
    browser.open(page, PHONE)
    browser.value(f"document.querySelectorAll('details').forEach(d => d.open = {opened:d})")
    assert browser.value(WIDE) == []
    assert browser.value("document.documentElement.scrollWidth") <= PHONE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core (npm install axe-core, or AXE=file)")
def test_axe_finds_nothing(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.value(AXE.read_text(encoding="utf-8") + "; 0")
    assert browser.value(VIOLATIONS) == []


def test_a_bad_page_is_caught(browser: Browser, tmp_path: Path) -> None:
    """Each check above fails on a page that has each fault."""
    page = tmp_path / "bad.html"
    page.write_text(BAD, encoding="utf-8")
    seen = browser.open(page, PHONE)
    assert len(browser.value(BROKEN_IMAGES)) == 2 and len(browser.value(NAMELESS)) == 1
    assert abroad(seen.requests) == ["http://tests.invalid/a.png"]
    assert len(dead(browser.value(LINKS))) == 2
    assert len(browser.value(WIDE)) == 1 and browser.value(RANKS) == [1, 3]
    assert browser.value("document.documentElement.scrollWidth") > PHONE
    assert any("lost is not defined" in error for error in seen.errors)


def test_the_button_unfolds_all_code(browser: Browser) -> None:
    browser.open(paths.REPORTS / "cub200-cpu" / "04_shift.html")
    states = "[...document.querySelectorAll('details.code')].map(d => d.open)"
    assert set(browser.value(states)) == {False}
    browser.value("document.getElementById('all').click()")
    assert set(browser.value(states)) == {True}
