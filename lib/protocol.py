"""The paper's training protocol as data, and how a study's settings differ from it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from lib import losses


@dataclass(frozen=True)
class Setting:
    """One value of the paper (section 4 and its code), and why a study may depart from it."""

    value: Any
    departure: str


STEPS = "few large steps: a budget of minutes"
PAPER: dict[str, Setting] = {
    "trunk": Setting("bn_inception", "small; a package carries its weights"),
    "embedding": Setting(128, ""),
    "image_size": Setting(227, "fewer pixels, less time"),
    "optimiser": Setting("rmsprop", STEPS),
    "lr_trunk": Setting(1e-6, STEPS),
    "lr_head": Setting(1e-6, STEPS),
    "lr_loss": Setting(None, STEPS),  # a value a loss and data set: lib.losses
    "weight_decay": Setting(1e-4, ""),
    "batch": Setting(32, ""),
    "iterations": Setting(100, "shorter epochs, validated more often"),
    "epochs": Setting(1000, "a bound on the time"),
    "patience": Setting(15, "shorter, as the epochs are fewer"),
    "precision": Setting("f32", "faster; linear layer and loss stay f32"),
    "p": Setting(1.0, "only a share of the images is changed"),
    "seeds": Setting([42], "other seeds; several show the spread"),
}


def against_paper(settings: dict[str, Any], loss: str, dataset: str) -> pd.DataFrame:
    """The settings beside the paper's: one row a parameter, differences marked and explained.

    Args:
        settings: value of every parameter in PAPER.
        loss, dataset: they decide the learning rate of the loss's own weights.
    """
    published = losses.learning_rate(loss, dataset)
    rows = []
    for name, setting in PAPER.items():
        theirs, ours = setting.value, settings[name]
        if name == "lr_loss":
            theirs, ours = (published, ours or published) if published else ("no weights",) * 2
        differs = theirs != ours
        rows.append([name, ours, theirs, "differs" if differs else "", setting.departure * differs])
    columns = ["parameter", "here", "paper", "", "why"]
    return pd.DataFrame(rows, columns=columns).set_index("parameter").map(_short)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
