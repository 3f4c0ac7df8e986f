"""The front matter agrees with itself: lock, pyproject, conda file, Makefile, citation."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import lib

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PLATFORMS = [
    {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux"},
    {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
]
PYTHONS = ["3.11", "3.12"]


def declared() -> list[Requirement]:
    """Every requirement of pyproject.toml, the extras included."""
    lines = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    return [Requirement(line) for line in lines]


def pins(python: str, platform: dict[str, str]) -> dict[str, list[str]]:
    """Name -> versions that the lock asks for on that python and platform."""
    where = {**default_environment(), **platform, "os_name": "posix"}
    where |= {"python_version": python, "python_full_version": f"{python}.9"}
    found: dict[str, list[str]] = {}
    for line in LOCK.splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "--hash")):
            pin = Requirement(line.split(" #")[0].rstrip(" \\"))
            (spec,) = pin.specifier  # exactly one, and exact
            assert spec.operator == "==" and "*" not in spec.version, line
            if pin.marker is None or pin.marker.evaluate(where):
                found.setdefault(canonicalize_name(pin.name), []).append(spec.version)
    return found


def conda() -> dict:
    """The parsed environment.yml."""
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def verbs() -> set[str]:
    """The verbs that the Makefile declares as .PHONY."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {verb for line in re.findall(r"^\.PHONY:(.*)$", text, re.M) for verb in line.split()}


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a source file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: "-".join(list(p.values())[:2]))
def test_lock_pins_every_requirement_once_and_within_its_bounds(python, platform):
    found = pins(python, platform)
    assert not {name: versions for name, versions in found.items() if len(versions) > 1}
    for requirement in declared():
        (version,) = found[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but the lock has {version}"


def test_lock_keeps_torch_and_torchvision_together_and_plain():
    found = pins("3.11", PLATFORMS[0])
    assert found["torch"] == ["2.15.0"]  # the pair that design and results were made with
    assert found["torchvision"] == ["0.29.2"]


def test_lock_names_no_address_and_no_folder():
    assert "# " in LOCK and "make lock" in LOCK.splitlines()[1]
    # a word boundary: packages called httpx are fine
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links|file:|(^|\s)/\w", LOCK, re.M)


def test_python_versions_agree():
    supported = SpecifierSet(PROJECT["requires-python"])
    minors = [f"3.{minor}" for minor in range(8, 20) if supported.contains(f"3.{minor}.0")]
    assert minors == PYTHONS
    (python,) = [d for d in conda()["dependencies"] if str(d).startswith("python=")]
    assert python.removeprefix("python=") == PYTHONS[0]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "(3, 11) <= sys.version_info[:2] < (3, 13)" in makefile
    assert f"--python-version {PYTHONS[0]}" in makefile


def test_every_file_of_a_pinned_package_is_known_by_its_checksum():
    packages = re.findall(
        r"^(\S+==.*)\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", LOCK, re.M
    )
    assert len(packages) == len(re.findall(r"^\S+==", LOCK, re.M)) > 100


def test_conda_installs_the_lock_and_the_package_apart():
    (section,) = [d["pip"] for d in conda()["dependencies"] if isinstance(d, dict)]
    assert "pip" in conda()["dependencies"]
    assert section == ["-r requirements.lock"]  # beside hashes pip refuses `-e .`
    said = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "pip install --no-deps -e ." in said
    assert (ROOT / section[0].removeprefix("-r ")).read_text(encoding="utf-8") == LOCK


def test_every_import_is_declared():
    ours = {canonicalize_name(requirement.name) for requirement in declared()}
    owners = packages_distributions()
    known = set(sys.stdlib_module_names) | {"lib", "tests", "benchmarks"}
    missing = []
    for path in [p for name in ("lib", "tests", "benchmarks") for p in (ROOT / name).rglob("*.py")]:
        siblings = {other.stem for other in path.parent.glob("*.py")}
        for name in imported(path) - known - siblings:
            dists = {canonicalize_name(dist) for dist in owners.get(name, [name])}
            if not dists & ours:
                missing.append(f"{path.relative_to(ROOT)} imports {name}: add it to pyproject.toml")
    assert not missing, "\n".join(missing)


def test_version_and_name_are_said_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lib.__version__
    assert "arXiv.2210.01615" in citation["references"][0]["doi"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.M)[:2] == ["Unreleased", lib.__version__]
    assert conda()["name"] == PROJECT["name"]
    assert citation["authors"] == PROJECT["authors"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")
def test_make_help_names_every_verb():
    command = ["make", "--no-print-directory", "help"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    shown = dict(line.removeprefix("make ").split(None, 1) for line in run.stdout.splitlines())
    assert set(shown) == verbs() >= {"setup", "repro", "test", "lab", "report", "lock"}


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        (".venv", True),
        (".venv-uv/bin/uv", True),
        ("data/raw/cub200/1.jpg", True),
        ("data/models/demo/contrastive/base.safetensors", True),
        ("data/README.md", False),
        ("data/facts/published_retrieval.csv", False),
        ("lib/__pycache__/paths.pyc", True),
        ("notebooks/.ipynb_checkpoints/01_data.ipynb", True),
        ("reports/demo/03_train.failed.ipynb", True),
        ("reports/cub200-cpu/03_train.ipynb", False),
        ("reports/demo/03_train.ipynb", True),
        (".dvc/config", False),
        (".dvc/tmp/lock", True),
    ],
)
def test_git_keeps_the_small_and_leaves_the_large(path, ignored, tmp_path):
    git = ["git", "-c", "core.excludesFile=", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for name in (".gitignore", ".dvc/.gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    run = subprocess.run([*git, "check-ignore", "--quiet", "--no-index", path], check=False)
    assert run.returncode == (0 if ignored else 1)
