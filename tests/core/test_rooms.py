"""The house: imports go down the rooms only, and every room says what it is for."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from lib.core import paths

ROOMS = sorted(file.parent for file in paths.LIB.rglob("__init__.py"))


def test_imports_go_down_the_rooms_only(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(paths.ROOT)
    broken = lint_imports(config_filename=str(paths.ROOT / "pyproject.toml"), no_cache=True)
    assert broken == 0, capsys.readouterr().out


def test_an_import_upwards_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself, on a house of two rooms: exit code 1 names a broken contract."""
    for name, text in (("upper", ""), ("lower", "import house_of_two.upper\n")):
        (tmp_path / "house_of_two" / name).mkdir(parents=True)
        (tmp_path / "house_of_two" / name / "__init__.py").write_text(text)
    (tmp_path / "house_of_two" / "__init__.py").touch()
    contract = "[importlinter:contract:1]\nname = down\ntype = layers\nlayers =\n  upper\n  lower\n"
    contract += "containers = house_of_two\n"
    (tmp_path / "c.ini").write_text(f"[importlinter]\nroot_package = house_of_two\n{contract}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert lint_imports(config_filename="c.ini", no_cache=True) == 1


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(paths.ROOT)))
def test_every_room_says_what_it_is_for(room: Path) -> None:
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert told and len(told.split()) >= 8


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {file.parent for file in paths.LIB.rglob("*.py")}
    assert folders == set(ROOMS)


def test_dask_is_imported_by_the_grid_alone() -> None:
    """It is an extra: whoever did not install it misses nothing but the grid."""
    found = set()
    for file in paths.LIB.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.split(".")[0] for name in names} & {"dask", "distributed", "dask_jobqueue"}:
                found.add(file.relative_to(paths.LIB).as_posix())
    assert found == {"run/machines.py"}
