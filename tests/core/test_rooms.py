"""The house: imports go down the rooms only, and every room says what it is for."""

import ast
from pathlib import Path

import pytest
from importlinter import cli

from lib.core import paths

ROOMS = sorted(path.parent for path in paths.LIB.rglob("__init__.py"))
ROOT = paths.ROOT


def test_imports_go_down_the_rooms(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(no_cache=True) == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_an_import_up_the_rooms_is_noticed(tmp_path: Path, monkeypatch, capsys) -> None:
    """The contract itself: the core of a small house that uses its report."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = text[text.index("[tool.importlinter]") :].replace('"lib"', '"small"')
    (tmp_path / "pyproject.toml").write_text(contract.partition("\n[project")[0], encoding="utf-8")
    for room in ROOMS:
        folder = tmp_path / "small" / room.relative_to(ROOT / "lib")
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (tmp_path / "small" / "core" / "a.py").write_text("from small.report import b\n")
    (tmp_path / "small" / "report" / "b.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.lint_imports(no_cache=True) == cli.EXIT_STATUS_ERROR
    assert "small.core.a" in (told := capsys.readouterr().out) and "small.report.b" in told


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_says_what_it_is_for(room: Path) -> None:
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert told and len(told.split()) > 8
    for file in room.glob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file
