"""What the README and the notebooks promise is there."""

import json
import re

import nbformat
import pandas as pd
import yaml

from lib.core import params, paths
from lib.report import answers, bias_dose_figure, front_page, overview_figure

README = (paths.ROOT / "README.md").read_text(encoding="utf-8")


def test_the_sentence_under_the_figure_is_the_studies_own() -> None:
    files = sorted((paths.REPORTS / "summaries").glob("*.json"))
    studies = [front_page.read_study(file, paths.FACTS) for file in files]
    finding = overview_figure.finding(overview_figure.chosen(studies))
    told = README.replace("\n", " ")
    assert told.count(finding) == 2  # once for the eye, once as the picture's alternative text
    assert f"![{finding}](reports/overview.png)" in README
    assert overview_figure.gains(overview_figure.chosen(studies)) in told


def test_what_the_first_screen_says_of_losses_is_in_the_tables() -> None:
    wanted = "metric == 'map_at_r' and sides == 'both'"
    effects = {
        name: repeats.joined(paths.REPORTS / f"{name}-cpu", "effects").query(wanted)
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
    assert all(table["seed"].nunique() == 3 for table in effects.values())
    gain = {"arcface", "normalized_softmax", "triplet"}
    assert sure("cars196", "random_background", 1) == gain
    assert sure("cars196", "clean", -1) == {"contrastive"}
    assert sure("cars196", "random_background", -1) == {"contrastive"}
    down = effects["cub200"].query(
        "contrast == 'shifted-clean' and condition == 'random_background'"
    )
    drop = down.pivot_table(index="loss", columns="arm", values="value")
    assert drop["untrained"].mean() <= drop["base"].mean()
    kept = down[down["arm"] == "bgaugment"]
    assert (kept["high"] < 0).all()
    least, most = -100 * kept["value"].max(), -100 * kept["value"].min()
    assert f"every network still surely loses, {least:.1f} to {most:.1f} points" in README
    clean = answers.Tables.read(paths.REPORTS / "cars196-cpu")
    ends, trunk = (clean.levels(arm, "clean")["value"] for arm in ("bgaugment", "untrained"))
    assert (ends["contrastive"] < trunk["none"].iloc[0]).all()
    kept = json.loads((paths.REPORTS / "summaries" / "cars196-cpu.json").read_text())
    lost = {
        arm: 1 - v["random_background"] / v["clean"] for arm, v in kept["map_at_r_percent"].items()
    }
    assert abs(lost["base"] - lost["untrained"]) < 0.02


def test_how_many_networks_did_not_rise_is_on_the_pages_of_training() -> None:
    files = sorted((paths.REPORTS / "cub200-cpu").glob("03_train_*.ipynb"))
    pages = [file.read_text(encoding="utf-8") for file in files]
    stuck = "**base, seed 0:** did not rise clearly above the untrained trunk"
    assert len(pages) == 5 and sum(stuck in page for page in pages) == 3
    assert "three of the five `base` networks of the first training did not rise" in README


def test_missed_or_distracting_is_the_studys_own() -> None:
    tables = answers.Tables.read(paths.REPORTS / "cub200-cpu")
    assert f"On birds, {answers.distraction(tables)}." in README
    removed, foreign = (
        tables.change("base", condition)["value"].mean()
        for condition in (answers.REMOVED, "random_background")
    )
    assert foreign < 4 * removed < 0


def test_the_attention_scores_are_the_studies_own() -> None:
    moved, after, blob = [], [], []
    for name in ("cub200-cpu", "cars196-cpu"):
        tables = answers.Tables.read(paths.REPORTS / name)
        score = tables.attention.query("metric == 'attention_score' and arm == 'bgaugment'")
        change = tables.attention_effects.query("metric == 'attention_score'")
        moved.append(answers.together(change, 1, 3))
        after.append(f"{score['value'].mean():.3f}")
        controls = tables.attention_controls.set_index("control")["value"]
        blob.append(f"{controls[answers.BLOB]:.3f}")
        assert set(score["n"]) == {200}
    assert f"moves it by {moved[0]} on birds and {moved[1]} on cars" in README
    assert f"to {' and '.join(after)}; a blob" in README
    assert f"sees no network, has {' and '.join(blob)}." in README


def test_what_is_said_of_seeds_is_the_studys_own() -> None:
    for name in ("cub200-cpu", "cars196-cpu"):
        kept = json.loads((paths.REPORTS / "summaries" / f"{name}.json").read_text())
        assert kept["over_seeds"] and kept["over_seeds"] in README, name


def test_the_minutes_of_another_seed_are_those_of_the_runs() -> None:
    told = []
    for name in ("cub200-cpu", "cars196-cpu"):
        runs = json.loads((paths.REPORTS / name / "run.json").read_text())
        spent = [run["seconds"] / 60 for page, run in runs.items() if page.startswith("08_repeat")]
        assert len(spent) == 2
        told.append(f"{min(spent):.0f} to {max(spent):.0f}")
    birds, cars = told
    text = README.replace("\n", " ")
    assert f"of the birds took {birds} minutes, one of the cars {cars} (on a processor" in text


def test_all_models_of_all_seeds_are_in_one_table() -> None:
    wanted = {
        (loss, arm) for loss in params.everything()["losses"] for arm in ("base", "bgaugment")
    }
    for name, seeds in (("cub200-cpu", 3), ("cars196-cpu", 3), ("demo", 3)):
        table = pd.read_csv(paths.REPORTS / name / "all_seeds.csv")
        assert table.equals(repeats.joined(paths.REPORTS / name, "retrieval"))
        for condition in ("clean", "random_background"):
            part = table[(table["condition"] == condition) & (table["loss"] != "none")]
            trained = part[["loss", "arm", "seed"]].drop_duplicates()
            assert len(trained) == seeds * len(wanted), (name, condition)
            assert set(zip(trained["loss"], trained["arm"], strict=True)) == wanted


def test_the_dials_finding_is_the_tables() -> None:
    found = bias_dose_figure.finding(pd.read_csv(paths.REPORTS / "dial" / "dial.csv"))
    assert found[0].lower() + found[1:] in README.replace("\n  ", " ")
    table = pd.read_csv(paths.REPORTS / "dial" / "dial_response.csv")
    value = 100 * table.set_index(["metric", "arm", "bias"])["value"].sort_index()
    clean = value["clean", "base"]
    assert f"clean pictures, {clean[0.95]:.1f} instead of {clean[0]:.1f} %" in README
    worst = value["drop"].groupby("arm").min()
    assert worst.idxmin() == "untrained"
    assert f"the untrained\n  trunk loses {-worst['untrained']:.1f} points, more than" in README


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


def test_every_question_of_the_report_has_its_figure() -> None:
    text = (paths.NOTEBOOKS / "06_report.ipynb").read_text(encoding="utf-8")
    for number, section in enumerate(text.split("## Q")[1:], start=1):
        led = re.findall(r"\((\w+)\.ipynb#(figure-\w+)\)", section)
        assert led or "show(" in section, number
        for page, anchor in led:
            for study in ("cub200-cpu", "cars196-cpu", "demo"):
                made = (paths.REPORTS / study / f"{page}.html").read_text(encoding="utf-8")
                assert f'id="{anchor}"' in made, (study, page, anchor)
    assert number == 8
