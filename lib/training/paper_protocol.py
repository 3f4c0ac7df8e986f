"""The paper's training protocol as data, and how a study's settings differ from it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from lib.training import losses


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
    "lr_loss": Setting(None, STEPS),  # a value a loss and data set: lib.training.losses
    "weight_decay": Setting(1e-4, ""),
    "batch": Setting(32, ""),
    "iterations": Setting(100, "shorter epochs, validated more often"),
    "epochs": Setting(1000, "a bound on the time"),
    "patience": Setting(15, "shorter, as the epochs are fewer"),
    "precision": Setting("f32", "faster; linear layer and loss stay f32"),
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


@dataclass(frozen=True)
class Difference:
    """One thing that the study does otherwise than the paper, and why."""

    what: str
    paper: str
    here: str
    why: str


DIFFERENCES = (
    Difference("backgrounds", "one pool for training and validation, another for the test",
               "three pools, disjoint",
               "chosen: else the BGAugment arm is picked on photographs that it trained on"),
    Difference("unusable masks", "not said",
               "an image whose mask is nearly empty or full keeps its own background",
               "chosen: an image of pure background would pass for an object"),
    Difference("masks made from", "the images", "the images as they are on disk, then shrunk",
               "chosen: U2-Net on shrunken images fits worse"),
    Difference("spread", "standard deviation over five draws of backgrounds",
               "paired differences with intervals over classes, and over draws and seeds apart",
               "chosen: draws are the smallest of the three"),
    Difference("conditions", "clean and random background, both sides",
               "further ones, and a changed query against a clean gallery",
               "chosen: tells the background from cut-and-paste artefacts"),
    Difference("attention score where it is undefined", "not said",
               "counted and left out", "chosen: a mean is of known numbers"),
    Difference("trunk, crop, optimiser, steps (CPU studies)", "see the table of page 03",
               "see the table of page 03", "forced: two cores; the GPU studies keep the paper's"),
    Difference("mask model (CPU studies)", "U2-Net", "the small U2-Net (u2netp)",
               "forced: a fortieth of the size; page 02 measures what it costs"),
    Difference("copy of the photographs", "the published files", "named on page 01",
               "forced where the official source is gone or not reachable"),
)  # fmt: skip

BROKEN = (
    ("the loss raises an exception where it should return its value",
     "losses are pytorch-metric-learning's, each trained in the tests"),
    ("every experiment's configuration passes an argument that its class does not take",
     "an unknown or mistyped parameter stops before anything runs, with a sentence"),
    ("paths of checkpoints are filled in by hand",
     "DVC's stages hand weights on; their checksum is checked before use"),
    ("no masks come with it, and none of the commands that made them",
     "02_masks makes them, and measures them against hand-labelled ones"),
)  # fmt: skip


def differences() -> pd.DataFrame:
    """What this study does otherwise than the paper; settings: `against_paper`."""
    rows = [[d.what, d.paper, d.here, d.why] for d in DIFFERENCES]
    return pd.DataFrame(rows, columns=["what", "paper", "here", "why"])


def broken() -> pd.DataFrame:
    """What breaks in the published code, and how this study avoids it."""
    return pd.DataFrame(BROKEN, columns=["in the published code", "here"])
