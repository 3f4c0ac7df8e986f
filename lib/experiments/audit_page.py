"""The page of an audit: verdict first, the effect as images, tables, what to do about it.

One self-contained file, and the numbers as audit.json beside it.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lib.core import paths
from lib.core.files import atomic
from lib.evaluation.remedies import REMEDIES
from lib.evaluation.statistics import MIN_CLASSES
from lib.execute.html import TEMPLATES
from lib.experiments.audit import Audit, short
from lib.experiments.audit_search import CLEAN, NONE, PLACES, QUERY, SHIFTED
from lib.images import conditions
from lib.report import style
from lib.report.letters import make_legible

COLOURS = {"model": "#D55E00", "reference": "#666666"}
SOME = 0.05  # a smaller loss, with an interval that holds zero, asks for nothing
WORST = 10  # classes on the page


def home(name: str) -> Path:
    """Where the page of an audit lies."""
    return paths.REPORTS / "audit" / name


def write(audit: Audit, folder: Path) -> Path:
    """Write index.html and audit.json into `folder`; returns the page."""
    numbers = audit.numbers() | {"sentences": verdict(audit)}
    with atomic(folder / "audit.json") as temporary:
        text = json.dumps(numbers, indent=1, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomic(folder / "index.html") as temporary:
        temporary.write_text(html(audit), encoding="utf-8")
    return folder / "index.html"


# ------------------------------------------------------------------------------------------- words


def called(condition: str) -> str:
    """A condition's name; here no image is a training image."""
    return "place of another image" if condition == PLACES else conditions.get(condition).label


def percent(value: float | None, sign: str = "") -> str:
    """A share in percent, `–` where there is none; a true minus."""
    if value is None:
        return "–"
    return f"{style.rounded(100 * value, 0, sign)} %".replace("-", "−")


def points(value: float | None, sign: str = "") -> str:
    """100 times a value with one digit."""
    return "–" if value is None else style.rounded(100 * value, 1, sign).replace("-", "−")


def within(low: float | None, high: float | None, ends: Any = percent) -> str:
    """An interval in words; '' where there is none."""
    if low is None or high is None:
        return ""
    return f"95 % CI {ends(low).removesuffix(' %')} to {ends(high).removesuffix(' %')}"


def verdict(audit: Audit) -> list[str]:
    """What was found, in sentences; the first is the verdict."""
    found = [_headline(audit) + _remedied(audit), *audit.masks["warnings"]]
    query = audit.level(SHIFTED, QUERY)
    if query.get("lost") is not None:
        told = within(query["lost_low"], query["lost_high"])
        found.append(
            "With a new background in the query only and a clean gallery, "
            f"{percent(query['lost'])} of MAP@R is lost{f' ({told})' if told else ''}."
        )
    other = audit.level(SHIFTED, who="reference")
    if other.get("lost") is not None:
        found.append(
            f"The reference, {short(audit.about['reference']['name'])}, loses "
            f"{percent(other['lost'])} on the same images."
        )
    found.append(
        f"The masks show an object in {percent(audit.masks['usable'])} of the images"
        + (
            f"; half of those cover more than {percent(audit.masks['median_area'])} of theirs."
            if audit.masks["median_area"] is not None
            else "."
        )
    )
    return found + [audit.about["model"]["assumed"]] * bool(audit.about["model"]["assumed"])


def _headline(audit: Audit) -> str:
    shift = audit.level(SHIFTED)
    lost, low, high = (shift.get(key) for key in ("lost", "lost_low", "lost_high"))
    if lost is None:
        return "The model finds nothing on the clean images, so no background can cost it anything"
    told = within(low, high)
    if low is None:
        few = audit.images["classes"] < MIN_CLASSES
        why = (
            f"{audit.images['classes']} classes, {MIN_CLASSES} are needed"
            if few
            else "too few differ"
        )
        told, low, high = f"no interval: {why}", lost, lost
    if low > 0:
        return f"Changing only the background costs {percent(lost)} of MAP@R ({told})"
    if high < 0:
        return f"Changing only the background raises MAP@R by {percent(-lost)} (loss: {told})"
    return (
        "Changing only the background does not significantly change MAP@R: "
        f"it loses {percent(lost)} ({told})"
    )


def _remedied(audit: Audit) -> str:
    shift, best = audit.level(SHIFTED), audit.best
    low = shift.get("lost_low") if shift.get("lost_low") is not None else shift.get("lost")
    if low is None or low <= 0 or not len(audit.remedies):
        return "."
    if not best or best["recovered"] is None:
        return "; no remedy at inference significantly helps."
    doing = REMEDIES[best["remedy"]].doing
    return f"; {doing} recovers {percent(min(best['recovered'], 1.0))} of that."


def advice(audit: Audit) -> list[str]:
    """What to do about it."""
    shift, best, told = audit.level(SHIFTED), audit.best, []
    low = shift.get("lost_low") if shift.get("lost_low") is not None else shift.get("lost")
    if audit.masks["warnings"]:
        told.append(
            "Look at the masks below first. If they miss your objects, choose another mask source "
            "(docs/add-a-mask-source.md); the numbers are only as good as they are."
        )
    if low is None or low <= 0 or shift["lost"] < SOME:
        return [*told, "No action is needed on the ground of these images."]
    if best:
        doing = REMEDIES[best["remedy"]].doing
        cost = _cost(best["clean_change"], best["clean_change_low"], best["clean_change_high"])
        told.append(
            f"Without training: {doing}, in queries and catalogue alike. On images as they are, "
            f"this {cost}."
        )
    query = audit.remedies[audit.remedies["applied"] == QUERY] if len(audit.remedies) else []
    if len(query):
        row = query.loc[query["shifted"].astype(float).idxmax()]
        low, high = row["gain_low"], row["gain_high"]
        helps = "helps" if low is not None and low > 0 else "does not help"
        interval = within(low, high, points) or "no interval"
        told.append(
            "Where the catalogue cannot be embedded anew, treating the queries alone "
            f"{helps} here: best is {REMEDIES[row['remedy']].doing}, "
            f"{points(row['gain'], '+')} points of MAP@R ({interval})."
        )
    told.append(
        "With training: replace the backgrounds of training images (BGAugment). The study of this "
        "repository does it on a folder of one's own and measures what it gains "
        "(docs/own-photographs.md)."
    )
    return told


def _cost(change: float, low: float | None, high: float | None) -> str:
    told = within(low, high, points)
    if low is not None and low <= 0 <= high:
        return f"changes MAP@R by {points(change, '+')} points, which is not significant ({told})"
    verb = "costs" if change < 0 else "gains"
    return f"{verb} {points(abs(change))} points of MAP@R ({told or 'no interval'})"


# ------------------------------------------------------------------------------------------ tables


def condition_table(audit: Audit) -> pd.DataFrame:
    """Every condition: MAP@R in percent, and the share lost with its interval; as text."""
    who = [name for name in ("model", "reference") if name in audit.about]
    rows = []
    for name in dict.fromkeys(audit.levels["condition"]):
        row = [called(name)]
        for one in who:
            both, query = audit.level(name, who=one), audit.level(name, QUERY, who=one)
            row += [points(both.get("value")), _lost(both, name)]
            row += [_lost(query, name)] if one == "model" else []
        rows.append(row)
    columns = ["condition", "MAP@R ↑", "lost ↓", "lost, query only ↓"]
    columns += ["reference: MAP@R ↑", "reference: lost ↓"] if "reference" in who else []
    return pd.DataFrame(rows, columns=columns)


def _lost(level: dict[str, Any], name: str) -> str:
    if name == CLEAN or level.get("lost") is None:
        return "–"
    low, high = level["lost_low"], level["lost_high"]
    if low is None:
        return percent(level["lost"])
    ends = f"{percent(low).removesuffix(' %')}, {percent(high).removesuffix(' %')}"
    return f"{percent(level['lost'])} [{ends}]"


WAYS = {
    "both": "queries, catalogue",
    "query_clean_gallery": "queries, clean catalogue",
    QUERY: "queries alone",
}


def remedy_table(audit: Audit) -> pd.DataFrame:
    """Every remedy and way to apply it, in points of MAP@R with intervals; as text."""
    rows = [
        [
            row["label"], WAYS[row["applied"]],
            _change(row["clean_change"], row["clean_change_low"], row["clean_change_high"]),
            _change(row["gain"], row["gain_low"], row["gain_high"]),
            percent(row["recovered"]),
        ]
        for row in audit.remedies.to_dict("records")
    ]  # fmt: skip
    columns = ["remedy", "applied to", "clean images ↑", "new backgrounds ↑", "recovered ↑"]
    return pd.DataFrame(rows, columns=columns)


def _change(value: float | None, low: float | None, high: float | None) -> str:
    told = points(value, "+")
    return told if low is None else f"{told} [{points(low, '+')}, {points(high, '+')}]"


def class_table(audit: Audit, count: int = WORST) -> pd.DataFrame:
    """The classes that lose most, as text."""
    rows = [
        [
            r["class_name"],
            str(r["n"]),
            points(r[CLEAN]),
            points(r["shifted"]),
            points(r["change"], "+"),
        ]
        for r in audit.classes.head(count).to_dict("records")
    ]
    columns = ["class", "queries", "clean ↑", "new background ↑", "change ↑"]
    return pd.DataFrame(rows, columns=columns)


def attention_sentence(audit: Audit) -> str:
    """The attention scores in words; '' where they were not measured."""
    parts = []
    for row in audit.attention.to_dict("records"):
        if row["score"] is None:
            continue
        told = within(row["low"], row["high"], lambda value: f"{value:.2f}".replace("-", "−"))
        score = f"{row['score']:.2f}".replace("-", "−")
        parts.append(f"{score} for the {row['who']}{f' ({told})' if told else ''}")
    if not parts:
        return ""
    return (
        f"Attention score by {audit.attention['method'].iloc[0].replace('_', ' ')}, over "
        f"{audit.attention['images'].iloc[0]} images: {', '.join(parts)}. 0: no more on the object "
        "than a uniform map has; 1: all of it."
    )


# ----------------------------------------------------------------------------------------- figures


def loss_figure(audit: Audit) -> tuple[plt.Figure, str]:
    """Share of MAP@R lost under every condition with its interval, model and reference."""
    names = [name for name in dict.fromkeys(audit.levels["condition"]) if name != CLEAN]
    who = [name for name in COLOURS if name in audit.about]
    figure, axis = plt.subplots(figsize=(8.6, 1.5 + 0.38 * len(names) * (0.6 + 0.4 * len(who))))
    for place, one in enumerate(who):
        for at, name in enumerate(names):
            level, y = audit.level(name, who=one), at + 0.3 * (place - (len(who) - 1) / 2)
            if level.get("lost") is None:
                continue
            ends = [level["lost_low"], level["lost_high"]]
            if None not in ends:
                axis.plot([100 * end for end in ends], [y, y], color=COLOURS[one], lw=2)
            label = audit.about[one]["name"] if at == 0 else None
            marker = "os"[place]
            axis.plot(100 * level["lost"], y, marker, color=COLOURS[one], label=_short(label))
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(range(len(names)), [called(name) for name in names])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("share of clean MAP@R lost, % (95 % interval over classes)")
    if len(who) > 1:
        axis.legend(loc="best", fontsize=9)
    finding = _headline(audit) + "."
    style.headline(figure, finding)
    return figure, finding


def _short(name: str | None) -> str | None:
    plain = name and short(name)
    return plain if not plain or len(plain) < 40 else plain[:37] + "..."


def _figure(figure: plt.Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def _picture(image: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def heat(image: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """An image in grey under a map in [0, 1], as uint8."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.6 + 60
    colour = plt.get_cmap("inferno")(amount)[..., :3] * 255
    return np.round(0.45 * grey + 0.55 * colour).clip(0, 255).astype(np.uint8)


# -------------------------------------------------------------------------------------------- page


def html(audit: Audit) -> str:
    """The page as text."""
    style.use_style()
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, TEMPLATES]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    figure, finding = loss_figure(audit)
    finding = f"{finding} {make_legible(figure)}".strip()
    return environment.get_template("audit.html.j2").render(
        sentences=verdict(audit), audit=audit, advice=advice(audit), figure=_figure(figure),
        finding=finding, rankings=_rankings(audit), conditions=_sheet(audit), masks=_masks(audit),
        maps=_maps(audit), attention=attention_sentence(audit),
        tables={
            "conditions": condition_table(audit), "remedies": remedy_table(audit),
            "classes": class_table(audit),
        },
        source=audit.masks["source"], title=_title(audit), short=short,
    )  # fmt: skip


def _title(audit: Audit) -> str:
    return f"{short(audit.about['model']['name'])} on {audit.images['title']}"


def _named(condition: str, remedy: str) -> str:
    label = called(condition)
    return label if remedy == NONE else f"{label}, {REMEDIES[remedy].label}"


def _rankings(audit: Audit) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for line in audit.sheets.get("rankings", []):
        entry = groups.setdefault(
            line["rule"], {"rule": line["rule"], "class_name": line["class_name"], "lines": []}
        )
        query, *near = [_picture(image) for image in line["images"]]
        entry["lines"].append(
            {
                "label": _named(line["condition"], line["remedy"]),
                "query": query,
                "near": list(zip(near, line["right"], line["names"], strict=True)),
                "right": sum(line["right"]),
            }
        )
    return list(groups.values())


def _sheet(audit: Audit) -> list[tuple[str, list[str]]]:
    made = audit.sheets.get("conditions", {})
    return [(called(name), [_picture(image) for image in images]) for name, images in made.items()]


def _masks(audit: Audit) -> list[dict[str, Any]]:
    return [
        {
            "picture": _picture(style.overlay(entry["image"], entry["mask"])),
            "label": f"{percent(entry['area'])}{'' if entry['usable'] else ', not used'}",
        }
        for entry in audit.sheets.get("masks", [])
    ]


def _maps(audit: Audit) -> list[dict[str, Any]]:
    return [
        {
            "image": _picture(style.overlay(entry["image"], entry["mask"])),
            "map": _picture(heat(entry["image"], entry["map"])),
            "label": f"{entry['score']:.2f}".replace("-", "−"),
        }
        for entry in audit.sheets.get("attention", [])
    ]
