"""A tiny measured study: two losses, any arms, two seeds, eight classes, numbers from a formula."""

from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from lib.core import paths
from lib.core.files import write_json
from lib.core.tiles import write_tiles
from lib.evaluation import effects, embeddings
from lib.evaluation.measured import Measured, name_of, read, write_compact

LOSSES, SEEDS, CLASSES = ("triplet", "arcface"), (0, 1), range(8)
LOST = {"untrained": 0.3, "base": 0.4, "bgaugment": 0.15, "greyaugment": 0.25}


def value(loss: str, arm: str, seed: int, condition: str, label: int) -> float:
    """MAP@R of a class: every condition but clean costs what the arm loses, times 0.5 to 1.5."""
    clean = 0.6 + 0.02 * LOSSES.index(loss if loss in LOSSES else "triplet") + 0.01 * seed
    cost = 0 if condition == "clean" else LOST[arm] * (0.5 + label / 7)
    return clean + 0.01 * (label % 3) - 0.5 * cost - 0.02 * len(condition) / 30


def rows(who: tuple[str, str, int], conditions: list[str]) -> pd.DataFrame:
    """`classes` of one model."""
    made = []
    for condition, label in product(conditions, CLASSES):
        many = condition == "random_background"
        for sides, draw in product(
            ("both",) if condition == "clean" else ("both", "query"), (0, 1)
        ):
            if draw == 0 or many:
                found = value(*who, condition, label) + 0.01 * draw + 0.05 * (sides == "query")
                metrics = dict.fromkeys(effects.METRICS, found)
                made.append([*who, condition, sides, draw, label, *metrics.values(), 4])
    return pd.DataFrame(made, columns=[*embeddings.CLASS, *embeddings.METRICS, "n"])


def learning(who: tuple[str, str, int]) -> dict:
    """Of one model: it rose until epoch 1."""
    names = dict(zip(("loss", "arm", "seed"), who, strict=True))
    return names | {
        "condition": "clean", "untrained": 0.2, "kept": 0.4, "gain": 0.2, "low": 0.1, "high": 0.3,
        "n": 12, "best": 1, "last": 2, "trained": True, "verdict": "rose until epoch 1",
    }  # fmt: skip


def history(models: list[tuple[str, str, int]]) -> pd.DataFrame:
    """Three epochs of every model."""
    made = [
        [epoch, condition, 0.2 + 0.1 * (epoch == 1), 1 / (1 + epoch), 1, "tiny", *who]
        for who in models
        for epoch in range(3)
        for condition in ("clean", "random_background")
    ]
    columns = [
        "epoch",
        "condition",
        "map_at_r",
        "loss_value",
        "best",
        "study",
        "loss",
        "arm",
        "seed",
    ]
    return pd.DataFrame(made, columns=columns)


def tiles(folder: Path, arms: list[str], conditions: list[str]) -> None:
    """The sheets, of grey images."""

    def write(name: str, table: pd.DataFrame) -> None:
        images = [np.full((8, 8, 3), at % 255, np.uint8) for at in range(len(table))]
        write_tiles(folder / name, images, table)

    write("conditions", pd.DataFrame(product(conditions, range(3)), columns=["condition", "row"]))
    write("seen", pd.DataFrame(product(arms, range(4)), columns=["arm", "row"]))
    line = product(["median"], arms, ["clean", "random_background"], range(3))
    shown = pd.DataFrame(line, columns=["rule", "arm", "condition", "place"])
    shown = shown.assign(loss="triplet", seed=0, right=shown["place"] % 2 == 0, label=0)
    write("gallery", shown)
    write("neighbours", shown[shown["condition"] == "clean"])


def write(
    study: str, arms: list[str], conditions: list[str], losses=LOSSES, seeds=SEEDS
) -> Measured:
    """Write the study's measured tables under paths.REPORTS."""
    folder = paths.StudyPaths(study).measured / "evaluation"
    models = list(product(losses, arms, seeds))
    for who in [("none", "untrained", 0), *models]:
        table, name = rows(who, conditions), name_of(*who)
        write_compact(folder / "classes" / f"{name}.parquet", table)
        queries = table[table["condition"].isin(["clean", "random_background"])].assign(
            row=table["label"]
        )
        write_compact(folder / "queries" / f"{name}.parquet", queries.drop(columns="n"))
        write_json(
            folder / "models" / f"{name}.json", {"loss": who[0], "arm": who[1], "seed": who[2]}
        )
        if who[0] != "none":
            write_json(folder / "learning" / f"{name}.json", learning(who))
    history(models).to_csv(folder / "training.csv", index=False)
    words = ["NA", "$x$", *(f"class {c}" for c in CLASSES[2:])]
    names = {"label": CLASSES, "class_name": words, "images": 4}
    labels = pd.DataFrame(names).assign(uniformity=np.linspace(0.3, 0.7, len(CLASSES)))
    labels.to_csv(folder / "labels.csv", index=False)
    masked = [rows((losses[0], arm, seeds[0]), conditions) for arm in arms]
    masked = pd.concat([pd.concat(masked).assign(masks=name, usable=1.0) for name in ("a", "b")])
    write_compact(folder / "mask_robustness.parquet", masked)
    tiles(folder, arms, conditions)
    facts = {
        "dataset": "rendered", "note": "", "masks": "a", "images": {"test": 32, "train": 12},
        "classes": {"train": 2}, "image_size": 8,
        "usable": 1.0, "arms": arms, "losses": list(losses), "seeds": list(seeds),
    }  # fmt: skip
    write_json(folder / "study.json", facts)
    return read(study)


def tell(notebook: str, **parameters) -> tuple[str, dict]:
    """Run a notebook's cells in this process: what it shows, as one text, and its variables."""
    InteractiveShell.clear_instance()
    shell, shown = InteractiveShell.instance(), []
    for cell in nbformat.read(paths.NOTEBOOKS / f"{notebook}.ipynb", as_version=4).cells:
        if cell.cell_type != "code":
            continue
        with capture_output() as captured:
            done = shell.run_cell(cell.source)
        done.raise_error()
        if "parameters" in cell.metadata.get("tags", []):
            shell.user_ns.update(parameters)
        result = shell.display_formatter.format(done.result)[0] if done.result is not None else {}
        for data in [*(out.data for out in captured.outputs), result]:
            shown += [str(text) for kind, text in data.items() if "image" not in kind]
    return "\n".join(shown), shell.user_ns
