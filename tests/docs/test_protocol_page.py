"""The pages on the protocol and on running elsewhere say what the code and the stages do."""

import re
import subprocess

import pytest
import yaml

from lib.core import params, paths
from lib.masks import rembg_models
from lib.models import trunks
from lib.training import paper_protocol
from tests.helpers import blocks, run, text_of

GPU, CPU = ("cub200", "cars196", "sop"), ("cub200-cpu", "cars196-cpu")
ELSEWHERE = "reproduce-elsewhere.md"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the protocol page."""
    part = text_of("protocol.md").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def value(study: str, name: str) -> object:
    section, key = name.split(".")
    return params.section(study, section)[key]


def test_the_values_of_the_protocol_are_those_of_the_code() -> None:
    table = {name.strip("`"): (paper, here) for _, name, paper, here in rows("What is set")}
    assert {f"train.{name}" for name in paper_protocol.PAPER} <= set(table)
    for name, (paper, here) in table.items():
        assert [value(study, name) for study in GPU] == [yaml_value(here)] * len(GPU), name
        known = paper_protocol.PAPER.get(name.removeprefix("train."))
        if known and known.value is not None:
            assert yaml_value(paper) == known.value, name


def yaml_value(text: str) -> object:
    return params.load(text)


def test_what_the_cpu_studies_change_is_named() -> None:
    names = {name.strip("`") for _, name, *_ in rows("What is set")}
    text = text_of("protocol.md").split("The CPU studies set other values for")[1].split(":")[0]
    free = {"train.seeds"}  # as many as there is time for
    changed = {n for n in names for study in CPU if value(study, n) != value("cub200", n)}
    assert set(re.findall(r"`([\w.]+)`", text)) - free == changed - free


def test_every_difference_is_on_the_page() -> None:
    named = [what for what, *_ in rows("Every deliberate difference")]
    assert [
        difference.what for difference in paper_protocol.DIFFERENCES if difference.what not in named
    ] == []
    for *_, setter in rows("Every deliberate difference"):
        for name in re.findall(r"`(\w+\.\w+)`", setter):
            assert value("cub200", name) is not None


def test_the_commands_by_hand_are_those_of_the_stages() -> None:
    stages = yaml.safe_load((paths.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    by_hand = [line.strip() for line in blocks(ELSEWHERE, "bash")[0].splitlines()]
    commands = [
        " ".join(stage["cmd"].split()).replace("${item.study}", "$study")
        for stage in stages.values()
    ]
    assert [line for line in by_hand if line.startswith("python")] == commands


@pytest.mark.parametrize("block", range(2))
def test_the_scripts_are_bash_and_name_studies_that_exist(block: int) -> None:
    script = blocks(ELSEWHERE, "bash")[block]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    for study in re.findall(r"(?:study=|--study )([\w-]+)", script):
        assert params.study(study)


def test_the_line_that_picks_a_study_does(tmp_path) -> None:
    (line,) = [x for x in text_of(ELSEWHERE).splitlines() if x.startswith("sed ")]
    (tmp_path / "params.yaml").write_bytes(paths.PARAMS.read_bytes())
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    assert params.everything(tmp_path / "params.yaml")["run"] == ["cub200"]


def test_weights_are_fetched_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(rembg_models, "download", lambda archive, folder: asked.append(archive.url))
    monkeypatch.setattr(rembg_models, "rembg_home", lambda: paths.ROOT / "nowhere")
    monkeypatch.setattr(rembg_models, "check", lambda *_: None)
    monkeypatch.setattr(trunks, "download_weights", lambda url: asked.append(url))
    monkeypatch.setattr(trunks, "fill", lambda *_: None)
    run(ELSEWHERE)
    assert [url.rsplit("/", 1)[-1].split("-")[0] for url in asked] == ["u2net.onnx", "bn_inception"]


def test_what_a_stage_reads_and_writes_is_what_it_declares() -> None:
    stages = yaml.safe_load((paths.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    named = (re.search(r"(\d\d_\w+|lib\.(?!execute)[\w.]+)", s["cmd"])[1] for s in stages.values())
    known = dict(zip(named, stages.values(), strict=True))
    known.pop("lib.front.front_page")
    pattern = r"^\| `(\d\d_\w+|lib\.(?!front)[\w.]+)` \| (.+) \| (.+) \|$"
    lines = re.findall(pattern, text_of(ELSEWHERE), flags=re.M)
    assert [name for name, *_ in lines] == list(known)
    for name, reads, writes in lines:
        stage = {"deps": known[name]["deps"], "outs": map(str, known[name]["outs"])}
        for part, told in (("deps", reads), ("outs", writes)):
            text = " ".join(stage[part]).replace("${item.study}", "<study>")
            text = text.replace("${item.loss}", "<loss>")
            for path in re.findall(r"`((?:data|reports)/[^`*]*<study>[^`*]*)`", told):
                assert path in text, (name, part, path)
