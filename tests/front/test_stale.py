"""The lock is honest: what it names is what git holds, and what differs is told."""

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lib.core import paths
from lib.front import stale

PIPELINE = """
stages:
  shift:
    matrix: {study: [mine]}
    cmd: mkdir -p reports/mine/made && cp lib/a.py reports/mine/made/x && cp lib/a.py reports/mine/y
    params: ["studies.mine.train"]
    deps: [lib, data/facts, data/photographs]
    outs:
      - reports/mine/made: {cache: false}
      - reports/mine/y: {cache: false}
  index:
    cmd: cp lib/a.py reports/index.html && cp lib/a.py reports/local.html
    deps: [lib]
    outs:
      - reports/index.html: {cache: false}
      - reports/local.html: {cache: false}
"""
BESIDE = """
stages:
  real:
    wdir: ../..
    cmd: for name in p q r s; do cp lib/a.py reports/mine/$name; done
    params: ["studies.mine.train"]
    deps: [lib/a.py]
    outs: [reports/mine/p: {cache: false}, reports/mine/q: {cache: false},
           reports/mine/r: {cache: false}, reports/mine/s: {cache: false}]
  alone:
    wdir: ../..
    cmd: cp lib/a.py reports/alone/08_alone.html
    deps: [data/facts]
    outs: [reports/alone/08_alone.html: {cache: false}]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of one stage, the front page and a pipeline beside them that DVC itself has run."""
    files = {
        "lib/a.py": "1", "lib/deeper/b.py": "2", "lib/__pycache__/a.pyc": "x",
        "data/facts/f.csv": "3", "data/photographs/p.jpg": "4", "dvc.yaml": PIPELINE,
        "params.yaml": "studies: {mine: {train: {epochs: 3, rate: 3.0e-5}}}",
        ".dvcignore": "__pycache__\n", "reports/mine/06_report.html": "page",
        "pipelines/beside/dvc.yaml": BESIDE, "reports/alone/keep": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "-q", "--no-scm"], ["repro", "-q", "-P"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params.yaml")
    stale.checksum.cache_clear()
    return tmp_path


@pytest.mark.slow
def test_nothing_changed_is_not_stale(repository: Path) -> None:
    assert stale.by_study() == {"mine": {}} and stale.sentence({}) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "kind", "named"),
    [
        ("lib/deeper/b.py", "2 ", "measuring code", "lib"),
        ("lib/new.py", "", "measuring code", "lib"),
        ("data/facts/f.csv", "other", "data", "data/facts"),
        ("data/photographs/p.jpg", "other", "data", "data/photographs"),
        ("reports/mine/made/x", "edited by hand", "results", "reports/mine/made"),
        ("reports/mine/y", "edited by hand", "results", "reports/mine/y"),
        ("params.yaml", "studies: {mine: {train: {epochs: 4, rate: 3.0e-5}}}", "parameters",
         "studies.mine.train"),
    ],
)  # fmt: skip
def test_whatever_differs_is_named(
    repository: Path, file: str, text: str, kind: str, named: str
) -> None:
    (repository / file).write_text(text)
    assert stale.by_study() == {"mine": {kind: [named]}}
    assert named in stale.sentence(stale.by_study()["mine"])


@pytest.mark.slow
def test_photographs_that_are_not_here_are_passed_over_and_results_are_not(repository) -> None:
    (repository / "data" / "photographs" / "p.jpg").unlink()
    (repository / "data" / "photographs").rmdir()
    assert stale.by_study() == {"mine": {}}
    (repository / "reports" / "mine" / "y").unlink()
    assert stale.by_study() == {"mine": {"results": ["reports/mine/y (gone)"]}}


@pytest.mark.slow
def test_pipelines_of_their_own_and_the_front_page(repository: Path, capsys) -> None:
    """`make stale` tells more than the front page does: all names, studies without a report."""
    stale.main()
    assert capsys.readouterr().out == ""
    (repository / "reports" / "local.html").write_text("of other studies")
    (repository / "data" / "facts" / "f.csv").write_text("other")
    for name in ("y", "p", "q", "r", "s"):
        (repository / "reports" / "mine" / name).write_text("edited by hand")
    (repository / "reports" / "index.html").write_text("edited by hand")
    names = [f"reports/mine/{name}" for name in "pqrsy"]
    told = stale.by_study()
    assert told == {"mine": {"data": ["data/facts"], "results": names}}
    assert "reports/mine/s and 1 more" in stale.sentence(told["mine"])
    stale.main()
    said = "Stale: changed since these results were made: "
    assert sorted(capsys.readouterr().out.splitlines()) == [
        f"alone: {said}data (data/facts); pages (08_alone).",
        f"front page: {said}results (reports/index.html); pages (index, local).",
        f"mine: {said}data (data/facts); results ({', '.join(names)}).",
    ]


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=paths.ROOT, capture_output=True, check=True).stdout


@pytest.mark.skipif(not (paths.ROOT / ".git").exists(), reason="no commit to look at")
def test_what_the_lock_says_was_written_is_what_git_holds(tmp_path: Path) -> None:
    """Nobody edits a result, or a lock, by hand: of the last commit, whatever lies here now."""
    wrong, seen = [], 0
    locks = ["dvc.lock", *git("ls-files", "pipelines/*/dvc.lock").decode().split()]
    read = [(Path(lock).parent, yaml.safe_load(git("show", f"HEAD:{lock}"))) for lock in locks]
    stages = [(at, n, stage) for at, lock in read for n, stage in lock["stages"].items()]
    for at, name, stage in stages:
        pipeline = yaml.safe_load(git("show", f"HEAD:{(at / 'dvc.yaml').as_posix()}"))["stages"]
        where = at / pipeline.get(name.partition("@")[0], {}).get("wdir", ".")
        for out in stage.get("outs", []):  # from the top of the repository
            out["path"] = os.path.normpath(where / out["path"])
        for out in (out["path"] for out in stage.get("outs", [])):
            for line in git("ls-tree", "-r", "HEAD", "--", out).decode().splitlines():
                facts, path = line.split("\t")
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_bytes(git("cat-file", "blob", facts.split()[2]))
        for out in stage.get("outs", []):
            found = stale.checksum(out["path"], tmp_path)
            seen += found is not None
            if found not in (None, out["md5"]):
                wrong.append((name, out["path"]))
    assert wrong == [] and seen > 20
    assert any(at.name == "catalogue" for at, _, _ in stages)


@pytest.mark.skipif(not (paths.ROOT / ".git").exists(), reason="no commit to look at")
def test_the_stage_of_the_front_page_declares_what_git_holds_of_it() -> None:
    """Beside the page of this machine's studies, which git does not hold."""
    stages = yaml.safe_load((paths.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    declared = {path for out in stages["index"]["outs"] for path in out}
    held = {name for name in git("ls-files", "reports").decode().split() if name.count("/") == 1}
    assert declared == held | {"reports/local.html"}


def md5_of(path: Path) -> str | None:
    """DVC's checksum of a file or folder, written out once more; None where nothing lies."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    if not path.is_dir():
        return None
    left_out = {"__pycache__", ".ipynb_checkpoints"}
    rows = []
    for file in path.rglob("*"):
        name = file.relative_to(path)
        if file.is_file() and not left_out & set(name.parts) and file.suffix != ".pyc":
            md5 = hashlib.md5(file.read_bytes()).hexdigest()
            rows.append({"md5": md5, "relpath": name.as_posix()})
    rows.sort(key=lambda row: row["relpath"])
    return hashlib.md5(json.dumps(rows).encode()).hexdigest() + ".dir"


def test_every_dependency_that_differs_is_told() -> None:
    """By a walk of its own over the lock: everything that git holds, studies on record."""
    told, stages = stale.by_study(), locked_stages()
    seen = 0
    for study, name, stage in stages:
        if study not in told or study == "demo":  # the demo's pages are made by running it
            continue
        named = {path for paths_of_kind in told[study].values() for path in paths_of_kind}
        for entry in stage.get("deps", []):
            path = entry["path"]
            if path.startswith("data/") and path != "data/facts":
                continue  # photographs, masks, weights: not in git
            seen += 1
            now = md5_of(paths.ROOT / path)
            expected = set() if now == entry["md5"] else {path if now else f"{path} (gone)"}
            assert expected <= named, f"{name}: {path}"
            others = {e["md5"] for s, _, stage in stages if s == study
                      for e in stage.get("deps", []) if e["path"] == path}  # fmt: skip
            assert expected or path not in named or len(others) > 1, f"{name}: {path}"
    assert seen > 20


def locked_stages() -> list[tuple[str, str, dict]]:
    """(study, stage, its entry) of every lock; the stages of a pipeline of its own by its text."""
    found = []
    for lock in [paths.ROOT / "dvc.lock", *paths.ROOT.glob("pipelines/*/dvc.lock")]:
        for name, stage in yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].items():
            own = re.search(r"--study ([\w-]+)", stage["cmd"])
            found.append((own[1] if own else "", name, stage))
    return found


def test_the_front_page_says_which_studies_are_stale() -> None:
    """The committed page and `make stale` say the same."""
    page = html.unescape((paths.REPORTS / "index.html").read_text(encoding="utf-8"))
    told = [stale.of_study(s, c) for s, c in stale.by_study().items() if c and s != "demo"]
    assert all(sentence in page for sentence in told)
    assert page.count("Stale: changed since") == sum(s.startswith("Stale") for s in told)


@pytest.mark.parametrize("study", ["cub200-cpu", "cars196-cpu", "grocery-cpu"])
def test_an_edit_that_decides_no_number_is_told_apart(study: str, monkeypatch) -> None:
    """By the fingerprints in the manifests: of code and data, a training's own key among them."""
    edits = {stale.MEASURING: ["lib/core"]}
    other = stale.other_numbers(study)
    started = "Stale: " if other else "Measured before lib/core "
    assert stale.of_study(study, edits).startswith(started)
    assert stale.of_study(study, edits | {"results": ["x"]}).startswith("Stale: ")
    page = {"pages": ["02_masks"], "notebooks": ["notebooks/02_masks.ipynb"]}
    if not other:
        assert stale.of_study(study, page).endswith("(notebooks/02_masks.ipynb): 02_masks.")
    real = stale.fingerprint
    monkeypatch.setattr(stale, "fingerprint", lambda *rooms: real(*rooms)[::-1])
    models = [path.stem for path in (paths.REPORTS / study).glob("measured/evaluation/models/*")]
    assert set(stale.other_numbers(study)) >= {*models, "attention", "remedies"}
    assert stale.of_study(study, edits).startswith("Stale: ")


def test_other_data_are_other_numbers(tmp_path: Path, monkeypatch) -> None:
    study = "cub200-cpu"
    shutil.copytree(paths.REPORTS / study / "measured", tmp_path / study / "measured")
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    same = stale.other_numbers(study)
    made = json.loads(next(tmp_path.rglob("triplet-base-0.json")).read_text())["data"].split("-")
    file = tmp_path / study / "measured" / "data" / "data.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"images": made[0] + "1", "backgrounds": made[2] + "1"}))
    assert stale.other_numbers(study) == same
    file.write_text(json.dumps({"images": "f" * 64, "backgrounds": made[2] + "1"}))
    assert "triplet-base-0" in stale.other_numbers(study)
