"""Tables and figures of 03_train: what the network sees, whether it learned, what was written."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.core import paths
from lib.evaluation.learning import Neighbours
from lib.images.scenes import Scenes
from lib.report.style import COLOURS, LABELS, MARKERS, contact_sheet, framed, headline, plt
from lib.training import arms, losses
from lib.training import sampling as sampling_

PANELS = {"clean": "MAP@R ↑, clean", "random_background": "MAP@R ↑, replaced"}


def seen(scenes: Scenes, size: int, p: float, count: int = 24) -> dict[str, np.ndarray]:
    """The same random training crops in both arms, uint8 (N, size, size, 3)."""
    pool = scenes.store.rows("train")
    rows = np.random.default_rng(0).choice(pool, min(count, len(pool)), replace=False)
    made = {
        arm: scenes.training(rows, size, np.random.default_rng(1), share)
        for arm, share in {"base": 0.0, "bgaugment": p}.items()
    }
    return {arm: x.permute(0, 2, 3, 1).byte().cpu().numpy() for arm, x in made.items()}


def seen_sheet(pictures: dict[str, np.ndarray], arm: str) -> tuple[Figure, str]:
    """A page of one arm's training images, and its finding."""
    changed = (pictures[arm] != pictures["base"]).reshape(len(pictures[arm]), -1).any(1).sum()
    finding = (
        f"{LABELS[arm]}: {changed} of {len(pictures[arm])} training images get another background"
    )
    return contact_sheet(list(pictures[arm]), [""] * len(pictures[arm]), 8, finding, 1.1), finding


def sampling(scenes: Scenes, loss: str, batch: int) -> str:
    """How a batch is put together, in words; classes with too few images are named."""
    labels = scenes.store.labels[scenes.store.rows("train")]
    classes = len(np.unique(labels))
    m = max(losses.get(loss).per_class, -(-batch // classes))
    short = sampling_.short_classes(labels, m)
    text = (
        f"{len(labels):,} training images of {classes:,} classes; a batch holds {m} image(s) of "
        f"each of {batch // m} classes. "
    )
    if not short:
        return text + f"Every class has at least {m}."
    return text + (
        f"{short:,} of the classes have fewer than {m}: theirs are drawn with replacement, as "
        "pytorch-metric-learning's sampler does, so that a batch can hold an image twice."
    )


def sentences(table: pd.DataFrame) -> str:
    """One line a model: by how much it rose, and whether it counts as trained."""
    lines = [
        f"- **{LABELS[row.arm]}, seed {row.seed}:** {row.verdict} (gain {row.gain:+.3f} "
        f"[{row.low:+.3f}, {row.high:+.3f}] over the untrained trunk's {row.untrained:.3f}, "
        f"n = {row.n} queries)."
        for row in table.itertuples()
    ]
    counts = f"**{table['trained'].sum()} of {len(table)} model(s) count as trained**"
    first = f"{counts} (risen clearly above the untrained trunk, then no longer rising)."
    return "\n".join([first, "", *lines])


def gain_finding(table: pd.DataFrame) -> str:
    """The mean gain of each arm over the untrained trunk, in words."""
    mean = table.groupby("arm")["gain"].mean()
    words = ", ".join(f"{LABELS[arm]} {value:+.3f}" for arm, value in mean.items())
    return f"Validation MAP@R over the untrained trunk's: {words}"


def curves(history: pd.DataFrame, table: pd.DataFrame, title: str, note: str) -> Figure:
    """Loss and validation MAP@R over epochs: both arms, all seeds, the kept epoch ringed."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    panels = dict(zip(PANELS, axes[1:], strict=True))
    for (arm, seed), part in history.groupby(["arm", "seed"]):
        style = {"color": COLOURS[arm], "marker": MARKERS[arm], "ms": 4}
        name = LABELS[arm] if seed == history["seed"].min() else None
        clean = part[part["condition"] == "clean"]
        axes[0].plot(clean["epoch"], clean["loss_value"], **style, label=name)
        for condition, axis in panels.items():
            line = part[part["condition"] == condition].set_index("epoch")["map_at_r"]
            axis.plot(line, **style)
            if condition == arms.selection(arm):
                best = part["best"].iloc[0]
                axis.plot(best, line[best], "o", ms=13, mfc="none", mec=COLOURS[arm], mew=2)
    for condition, axis in panels.items():
        level = table.loc[table["condition"] == condition, "untrained"].mean()
        axis.axhline(level, color=COLOURS["untrained"], ls="--", label=LABELS["untrained"])
        axis.set(title=PANELS[condition], xlabel="epoch")
    axes[0].set(title="loss ↓ (mean of the epoch)", xlabel="epoch")
    axes[0].legend()
    axes[1].legend()
    headline(figure, title, note)
    return figure


def neighbour_finding(near: Neighbours, labels: np.ndarray) -> str:
    """How many of the shown neighbours are of the query's class, per model."""
    hits = {arm: labels[rows] == labels[near.queries][:, None] for arm, rows in near.found.items()}
    words = ", ".join(f"{LABELS[arm]} {hit.sum()}" for arm, hit in hits.items())
    return f"Right neighbours among {next(iter(hits.values())).size}: {words}"


def neighbour_figure(near: Neighbours, scenes: Scenes, size: int, title: str) -> Figure:
    """A block of lines a query: the query, then its neighbours; a green frame is a right one."""
    labels, lines = scenes.store.labels, len(near.queries) * len(near.found)
    figure, axes = plt.subplots(lines, 6, figsize=(8, 1.35 * lines + 0.4), squeeze=False)
    pairs = [(q, arm) for q in range(len(near.queries)) for arm in near.found]
    for line, (query, arm) in zip(axes, pairs, strict=True):
        shown = np.array([near.queries[query], *near.found[arm][query]])
        pictures = scenes.images.centre(shown, size)[:, :3].permute(0, 2, 3, 1).byte().cpu().numpy()
        for axis, picture, hit in zip(
            line, pictures, labels[shown] == labels[shown[0]], strict=True
        ):
            framed(axis, picture, None if axis is line[0] else hit)
        line[0].set_ylabel(LABELS[arm], fontsize=8)
    headline(figure, title)
    return figure


# ----------------------------------------------------------------------------- what was written


def written(study: str, loss: str, figures: Path) -> pd.DataFrame:
    """Every file that the notebook wrote: where, what it holds, how large."""
    folder = paths.StudyPaths(study).models / loss
    holds = {"training.csv": "the curves", "models.json": "which weights are whose"}
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    files += sorted(figures.iterdir())
    weights = {".safetensors": "weights of the kept epoch"}
    rows = [
        [f.name, holds.get(f.name, weights.get(f.suffix, "figure")), _size(f), _place(f.parent)]
        for f in files
    ]
    return pd.DataFrame(rows, columns=["file", "holds", "size", "in"]).set_index("file")


def _place(file: Path) -> str:
    return str(file.relative_to(paths.ROOT)) if file.is_relative_to(paths.ROOT) else str(file)


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.1f} kB"
