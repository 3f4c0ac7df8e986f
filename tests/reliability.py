"""The register of faults: tests marked `fault`, and the page that a run of them writes.

    @pytest.mark.fault("disk/store", "a flipped byte in a store", "one bit", "refused by name")

A test may carry several marks, and a mark may be on several tests. With `--reliability FILE` the
run writes the page: one row a fault, and what was seen. Only literal strings: the page is checked
against the marks without running anything.
"""

import ast
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from lib.core.files import atomic

LONGEST = ("test_pipeline.py",)  # begin first: no core shall end with it
TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "reliability.md"
GROUPS = {
    "killed": "Killed",
    "disk": "Disk and files",
    "data": "Pictures, labels, masks",
    "numbers": "Numbers",
    "parameters": "Parameters and order",
    "network": "Network and archives",
    "foreign": "Foreign files and names",
    "together": "Two runs at once",
    "place": "Clock, locale, place",
}
HEAD = "| fault | how it is made | what is promised | what was seen |\n|---|---|---|---|"
INTRODUCTION = """# Reliability

Faults that occur on other people's machines, provoked on purpose: `make test-faults` injects each
of them, checks what is promised, and writes this page; nothing on it is typed by hand. No fault
may lead to a wrong number: a run ends with the same bytes as an undisturbed one, or it
stops and names the file or value that is wrong.
"""

Fault = tuple[str, str, str, str]  # key "group/name", fault, how it is made, what is promised


def marked() -> dict[str, Fault]:
    """Every fault that a test is marked with, by key."""
    found: dict[str, Fault] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                fault = tuple(ast.literal_eval(argument) for argument in node.args)
                if found.setdefault(fault[0], fault) != fault:
                    raise ValueError(f"two descriptions of fault {fault[0]}")
    return found


def seen(outcomes: list[tuple[str, str]]) -> str:
    """What was seen, in words, from (outcome, reason) of every test of a fault."""
    count = Counter(outcome for outcome, _ in outcomes)
    words = []
    for outcome in ("failed", "passed", "skipped"):
        if number := count[outcome]:
            reasons = sorted({why for kind, why in outcomes if kind == outcome and why})
            cases = f" ({number} cases)" if number > 1 else ""
            named = {"failed": "**not kept**", "passed": "kept", "skipped": "not tried here"}
            words.append(named[outcome] + cases + (f": {'; '.join(reasons)}" if reasons else ""))
    return ", ".join(words)


def cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def page(faults: dict[str, Fault], outcomes: dict[str, list[tuple[str, str]]]) -> str:
    """The page: a table a group, one row a fault, also for those that the run left out."""
    parts = [INTRODUCTION]
    for group, title in GROUPS.items():
        keys = [key for key in faults if key.split("/")[0] == group]
        told = {key: seen(outcomes.get(key, [])) or "left out of this run" for key in keys}
        rows = [f"| {' | '.join(map(cell, [*faults[key][1:], told[key]]))} |" for key in keys]
        parts += [f"\n## {title}\n\n{HEAD}", *rows] if rows else []
    return "\n".join(parts) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="FILE", help="write the page of faults from this run")


_outcomes: dict[str, list[tuple[str, str]]] = defaultdict(list)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            item.user_properties.append(("fault", mark.args[0]))
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name not in LONGEST, not slow[item.path]))  # stable


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    ended = report.when == "call" or report.outcome != "passed"
    if not ended or (report.when == "teardown" and report.outcome != "failed"):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple | list) else ""  # of a skip
    for name, key in report.user_properties:
        if name == "fault":
            _outcomes[key].append((report.outcome, why.removeprefix("Skipped: ")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--reliability")
    if target and not hasattr(session.config, "workerinput"):  # not in a worker of xdist
        with atomic(Path(target)) as temporary:
            temporary.write_text(page(marked(), _outcomes), encoding="utf-8")
