"""What the README and the notebooks promise is there."""

import json
import re

import nbformat
import pandas as pd
import yaml

from lib import dial, gallery, overview, params, paths, repeat

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_sentence_under_the_figure_is_the_studies_own() -> None:
    files = sorted((paths.REPORTS / "summaries").glob("*.json"))
    studies = [gallery.read_study(file, paths.FACTS) for file in files]
    finding = overview.finding(overview.chosen(studies))
    told = README.replace("\n", " ")
    assert told.count(finding) == 2  # once for the eye, once as the picture's alternative text
    assert f"![{finding}](reports/overview.png)" in README
    assert overview.gains(overview.chosen(studies)) in told


def test_what_the_first_screen_says_of_losses_is_in_the_tables() -> None:
    wanted = "metric == 'map_at_r' and sides == 'both'"
    effects = {
        name: repeat.joined(paths.REPORTS / f"{name}-cpu", "effects").query(wanted)
        for name in ("cub200", "cars196")
    }

    def sure(name: str, condition: str, sign: int) -> set[str]:
        """Losses with an interval beyond zero in every seed."""
        part = effects[name].query("contrast == 'bgaugment-base' and condition == @condition")
        ends = part["low"] if sign > 0 else -part["high"]
        least = ends.groupby(part["loss"]).min()
        return set(least.index[least > 0])

    four = {"triplet", "normalized_softmax", "contrastive", "multi_similarity"}
    assert sure("cub200", "random_background", 1) == four
    assert sure("cub200", "clean", -1) == {"arcface"}
    assert effects["cub200"]["seed"].nunique() == 3 and effects["cars196"]["seed"].nunique() == 2
    gain = {"arcface", "normalized_softmax", "triplet"}
    assert sure("cars196", "random_background", 1) == gain
    assert sure("cars196", "clean", -1) == {"contrastive", "triplet"}
    assert sure("cars196", "random_background", -1) == {"contrastive"}
    down = effects["cub200"].query(
        "contrast == 'shifted-clean' and condition == 'random_background'"
    )
    drop = down.pivot_table(index="loss", columns="arm", values="value")
    assert (drop["bgaugment"] / drop["base"]).dropna().gt(0.5).all()
    assert drop["untrained"].mean() <= drop["base"].mean()
    kept = json.loads((paths.REPORTS / "summaries" / "cars196-cpu.json").read_text())
    lost = {
        arm: 1 - v["random_background"] / v["clean"] for arm, v in kept["map_at_r_percent"].items()
    }
    assert abs(lost["base"] - lost["untrained"]) < 0.02


def test_what_is_said_of_seeds_is_the_studys_own() -> None:
    for name in ("cub200-cpu", "cars196-cpu"):
        kept = json.loads((paths.REPORTS / "summaries" / f"{name}.json").read_text())
        assert kept["over_seeds"] and kept["over_seeds"] in README, name


def test_all_models_of_all_seeds_are_in_one_table() -> None:
    wanted = {
        (loss, arm) for loss in params.everything()["losses"] for arm in ("base", "bgaugment")
    }
    for name, seeds in (("cub200-cpu", 3), ("cars196-cpu", 2), ("demo", 3)):
        table = pd.read_csv(paths.REPORTS / name / "all_seeds.csv")
        assert table.equals(repeat.joined(paths.REPORTS / name, "retrieval"))
        for condition in ("clean", "random_background"):
            part = table[(table["condition"] == condition) & (table["loss"] != "none")]
            trained = part[["loss", "arm", "seed"]].drop_duplicates()
            assert len(trained) == seeds * len(wanted), (name, condition)
            assert set(zip(trained["loss"], trained["arm"], strict=True)) == wanted


def test_the_dials_finding_is_the_tables() -> None:
    found = dial.finding(pd.read_csv(paths.REPORTS / "dial" / "dial.csv"))
    assert found[0].lower() + found[1:] in README.replace("\n  ", " ")


def test_the_number_to_expect_is_the_committed_demos() -> None:
    finding = json.loads((paths.REPORTS / "demo" / "answers.json").read_text())["finding"]
    assert finding in README


def test_every_table_is_in_the_row_of_its_notebook() -> None:
    """03_train's curves become a table of the report only once all losses are there."""
    told = {}
    for stem, row in re.findall(r"^\| \d \| \[(\d\d_\w+)\](.+)$", README, flags=re.M):
        told[stem] = set(re.findall(r"`(\w+\.csv)`", row))
    assert told["03_train"] == {"training.csv"}
    told["06_report"] |= told.pop("03_train")
    for file in ("dvc.yaml", "dial/dvc.yaml", "repeat/dvc.yaml"):
        for stage in yaml.safe_load((paths.ROOT / file).read_text())["stages"].values():
            if (stem := stage["cmd"].split()[3:4]) and stem[0] in told:
                outs = re.findall(r"reports/[^'\"]+/(\w+\.csv)", str(stage["outs"]))
                assert told.pop(stem[0]) == set(outs)
    assert told == {}


def test_named_studies_exist() -> None:
    studies = params.everything()["studies"]
    for study in re.findall(r"^\| `([\w-]+)`", README, flags=re.M):
        assert study in {*studies}, study


def test_notebooks_open_alike() -> None:
    files = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    assert len(files) == 8
    for file in files:
        first, second = nbformat.read(file, as_version=4).cells[:2]
        assert first.source.startswith("# ") and second.metadata["tags"] == ["parameters"]
        for word in ("**Question:**", "**Inputs:**", "**Outputs:**"):
            assert word in first.source, file.name
