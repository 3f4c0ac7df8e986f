"""dvc.yaml tells the truth: a stage depends on every room of lib that its command can reach."""

import ast
import json
import re

import grimp
import pytest
import yaml

from lib.core import paths

PIPELINES = [paths.ROOT / "dvc.yaml", *sorted(paths.ROOT.glob("pipelines/*/dvc.yaml"))]
MEASURING = ("data", "masks", "mask_summary", "train", "shift", "attention", "remedies")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("lib")


def stages() -> dict[str, dict]:
    found = {}
    for file in PIPELINES:
        found |= yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]
    return found


def notebook_imports(name: str, graph: grimp.ImportGraph) -> set[str]:
    """Modules of lib that a source notebook imports."""
    cells = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    found = set()
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name if name in graph.modules else node.module for name in names}
    return found


def roots(command: str, graph: grimp.ImportGraph) -> set[str]:
    """The modules that a stage's command starts from: its own, and those of its notebooks."""
    module = re.search(r"python -m ([\w.]+)", command)[1]
    found = {f"{module}.__main__" if f"{module}.__main__" in graph.modules else module}
    for name in re.findall(r"\b\d\d_\w+", command):
        found |= notebook_imports(name, graph)
    return found


def reached(modules: set[str], graph: grimp.ImportGraph) -> set[str]:
    """Everything that some modules can reach."""
    return set.union(*(graph.find_upstream_modules(module) | {module} for module in modules))


def rooms(modules: set[str], graph: grimp.ImportGraph) -> set[str]:
    """The rooms of everything that some modules can reach."""
    return {name.split(".")[1] for name in reached(modules, graph) if "." in name}


def files_of(room: str, modules: set[str], graph: grimp.ImportGraph) -> set[str]:
    """The files of a room that some modules can reach; a package's own line of words left out."""
    own = {name for name in reached(modules, graph) if name.startswith(f"lib.{room}.")}
    return {f"{name.replace('.', '/')}.py" for name in own}


@pytest.mark.parametrize("name", stages())
def test_a_stage_depends_on_every_room_that_it_reaches_or_on_its_files(name: str, graph) -> None:
    stage = stages()[name]
    start = roots(stage["cmd"], graph)
    named = {dep for dep in stage["deps"] if dep.startswith("lib")}
    needed = set()
    for room in rooms(start, graph):
        files = {dep for dep in named if dep.startswith(f"lib/{room}/")}
        needed |= files_of(room, start, graph) if files else {f"lib/{room}"}
    assert needed <= named, f"missing: {sorted(needed - named)}"
    assert named <= needed, f"not reached: {sorted(named - needed)}"
    for notebook in re.findall(r"\b\d\d_\w+", stage["cmd"]):
        assert f"notebooks/{notebook}.ipynb" in stage["deps"]


@pytest.mark.parametrize("name", MEASURING)
def test_measuring_never_depends_on_telling(name: str, graph) -> None:
    found = rooms(roots(stages()[name]["cmd"], graph), graph)
    assert not found & {"report", "execute", "front", "run"}
    assert not any(dep.startswith("notebooks") for dep in stages()[name]["deps"])


def test_a_stage_that_lacks_a_room_is_noticed(graph) -> None:
    """The check itself: the trainer reaches images, and takes them from no other place."""
    assert "images" in rooms({"lib.training.trainer"}, graph)
    assert "report" in rooms(roots("python -m lib.execute 04_shift", graph), graph)


def test_folders_of_ones_own_are_looked_at_in_every_run() -> None:
    found = stages()
    (listing,) = next(iter(found["files"]["outs"]))
    assert found["files"]["always_changed"] is True and listing in found["data"]["deps"]


def test_a_refused_run_leaves_earlier_results_where_they_are() -> None:
    """DVC removes a stage's outputs before it runs, unless they persist."""
    for name, stage in stages().items():
        kept = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
        for out in kept:
            settings = next(iter(out.values())) if isinstance(out, dict) else {}
            assert settings.get("persist"), f"{name}: {out}"


def test_measured_tables_keep_to_their_budget() -> None:
    """13 MB a study on record (54 models) and 3 MB a file: git keeps every version."""
    studies = sorted(paths.REPORTS.glob("*/measured"))
    assert studies or not (paths.ROOT / ".git").exists()
    for study in studies:
        sizes = [file.stat().st_size for file in study.rglob("*") if file.is_file()]
        assert sum(sizes) < 13e6 and max(sizes) < 3e6, study.parent.name
