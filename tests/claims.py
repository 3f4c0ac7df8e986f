"""Do README and docs/findings.md say what the committed tables say? `python -m tests.claims`.

Run before a release. Not collected by pytest: a run of the demo, or of another study, changes
tables that they quote. A claim is a row of a table, or a piece of a sentence with its number in
it. Prints every claim that its page does not hold; returns 1 where there is one.
"""

import math
import re
import sys
from collections.abc import Iterator

import pandas as pd
import yaml

from lib.core import params, paths
from lib.core.files import read_json
from lib.core.tiles import read_tiles
from lib.evaluation import effects
from lib.evaluation.measured import read
from lib.experiments import bias_dose, bias_dose_page, catalogue, catalogue_page
from lib.front import first_figure, front_page, overview_figure, stale
from lib.front.first_figure import SHIFTED
from lib.report import answers, remedies
from lib.report.paper_comparison import DROP
from lib.report.shift_tables import label_of, told
from lib.report.style import label
from lib.training import arms

Claim = tuple[str, str]  # what it is about; the text that the page must hold
GAIN = "bgaugment-base"
BIRDS, CARS, PRODUCTS = "cub200-cpu", "cars196-cpu", "grocery-cpu"
ARMS, BIRD_ARMS = "grocery-arms", "cub200-arms"  # all arms
SETS = (BIRDS, CARS, PRODUCTS)  # a column each
HALF = "bgaugment_50"
FALSE = "(what the page says of this is no longer true)"
STUDIED = {BIRDS: "birds", CARS: "cars", PRODUCTS: "products"}


def committed() -> list[front_page.Study]:
    """The studies of the figure on README's first screen."""
    files = sorted((paths.REPORTS / "summaries").glob("*.json"))
    changes = {study: stale.of_study(study, changed) for study, changed in stale.by_study().items()}
    read = [front_page.read_study(f, paths.FACTS, changes.get(f.stem, "")) for f in files]
    return overview_figure.chosen(read)


def line(*cells: str) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def effect(study: str, contrast: str, condition: str, sides: str = "both", arm: str = "") -> str:
    """A joint effect in points, `lost` ones positive; a dash where it was not measured."""
    found = effects.joint(read(study).classes, contrast, condition, sides)
    found = found[found["arm"] == arm] if arm else found
    return told(found.iloc[0], -100 if contrast == "shifted-clean" else 100) if len(found) else "–"


def cost(study: str, condition: str, sides: str = "both") -> str:
    """What a condition costs base."""
    return effect(study, "shifted-clean", condition, sides, arm="base")


def gain(study: str, condition: str, sides: str = "both") -> str:
    """What BGAugment gains over base."""
    return effect(study, GAIN, condition, sides)


def remedy(
    study: str, arm: str, name: str, condition: str, than: str = "base", loss: str = "",
    sign: int = 1, whole: bool = False, seed: int | None = None,
) -> str:  # fmt: skip
    """What an arm under a remedy at search time gains over another arm without one.

    With `seed`, of this training alone (the interval then covers test classes only).
    """
    classes = read(study).classes  # all test classes; the remedies' tables hold some of them
    table = classes.assign(remedy=name) if whole else remedies.read(read(study))
    table = table if seed is None else table[table["seed"] == seed]
    found = remedies.gains(table[table["loss"] == loss] if loss else table, than)
    found = found.set_index(["arm", "remedy", "condition", "sides"])
    key = (arm, name, condition, "both")
    return told(found.loc[key], 100 * sign) if key in found.index else "–"


def numbers(words: str) -> list[float]:
    """The value of an effect in words, and the ends of its interval."""
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", words)]


def undecided(words: str) -> bool:
    """Whether the interval of an effect in words includes 0."""
    _, low, high = numbers(words)
    return low <= 0 <= high


def points_of(words: str) -> float:
    """The number before an interval."""
    return numbers(words)[0]


def each_time(study: str, arm: str, condition: str, than: str = "base", whole: bool = False) -> str:
    """What an arm gains in every training of a study of all arms, in points."""
    seeds = params.section(study, "train")["seeds"]
    found = [remedy(study, arm, "none", condition, than, whole=whole, seed=seed) for seed in seeds]
    return ", ".join(words.split(" ")[0] for words in found)


def controls(study: str) -> pd.Series:
    """The attention score of maps that know no trained model."""
    table = pd.read_csv(paths.StudyPaths(study).reports / "attention_controls.csv")
    return table.set_index("control")["value"]


# ------------------------------------------------------------------------------- both pages


def of_first_screen() -> Iterator[Claim]:
    """Both figures' alternative texts, and the levels in the sentences below."""
    studies = committed()
    folders = {study.label: paths.REPORTS / study.name for study in studies}
    hits = [first_figure.right(part) for *_, part in first_figure.shown(folders)]
    for before, base, after in zip(hits[::3], hits[1::3], hits[2::3], strict=True):
        words = f"{before} right as photographed; on other backgrounds {base} with base"
        yield "first figure", f"{words}, {after} with BGAugment"
    yield "figure", f"![{overview_figure.finding(studies)}](reports/overview.png)"
    levels = []
    for study in studies:
        table = answers.cost_table(read(study.name).classes).loc[label("base")]
        ends = (f"{table[f'{name}, % ↑']:.1f} %" for name in ("clean", "random background"))
        levels.append("from {} to {}".format(*ends))
    yield "levels of base: birds", f"{levels[0]} on birds"
    yield "levels of base: cars", f"{levels[1]} on cars"
    yield "levels of base: products", f"{levels[2]} on products"
    for study in studies[: first_figure.SETS]:
        _, table = read_tiles(paths.StudyPaths(study.name).reports / first_figure.SHEET)
        table = table[(table["rule"] == first_figure.MOST) & (table["place"] > 0)]
        right = table.groupby(["arm", "condition"])["right"].agg(["sum", "size"])
        clean, base, arm = (
            f"{right['sum'][key]} of {right['size'][key]}"
            for key in (("base", "clean"), *((a, SHIFTED) for a in ("base", "bgaugment")))
        )
        yield (
            f"first image, {study.label}",
            f"{clean} right as photographed; on other backgrounds {base} with base, "
            f"{arm} with BGAugment",
        )


def of_main_table() -> Iterator[Claim]:
    """Shares lost, and what BGAugment gains: a row a set."""
    for study in committed():
        lost = study.lost.set_index("arm")
        shares = [f"{told(lost.loc[arm], 100, 0)} %" for arm in ("base", "bgaugment")]
        moved, clean = gain(study.name, SHIFTED), gain(study.name, "clean")
        yield "main table", line(study.label, *shares, moved, clean)


def of_sentences() -> Iterator[Claim]:
    """README's sentences of one finding each."""
    moved, own, grey = (cost(BIRDS, name) for name in (SHIFTED, "own_background", REMOVED))
    yield (
        "the background",
        f"Another photograph costs base {moved} points on birds; pasting the object back",
    )
    yield "cutting and pasting", f"pasting the object back where it was costs {own}"
    yield "none instead of a wrong one", f"grey costs {grey}"
    new, clean = (remedy(ARMS, HALF, "none", c, "bgaugment") for c in (SHIFTED, "clean"))
    yield (
        "half",
        f"half minus all is {new} points on random photographs (undecided), {clean} (better)"
        if undecided(new)
        else FALSE,
    )
    new = remedy(BIRDS, HALF, "none", SHIFTED, "bgaugment", whole=True)
    words = "half costs a little on random photographs"
    yield "half, birds", words if -1 < points_of(new) < 0 and not undecided(new) else FALSE
    for study, name in ((BIRDS, "birds"), (PRODUCTS, "products")):
        yield f"cut out, {name}", f"{remedy(study, 'base', 'cut_out', SHIFTED)} points on {name}"
        paid = remedy(study, "base", "cut_out", "clean", sign=-1)
        yield f"cut out, clean, {name}", f"{paid} on {name}"
    placed = [
        remedy(ARMS, arm, name, "other_class_background")
        for arm, name in (("base", "cut_out"), ("bgaugment", "none"), (HALF, "none"))
    ]
    words = "(all products, two losses), grey gains {}, BGAugment {}, on half {};".format(*placed)
    yield "cut out, other places", words
    grey, arm = (
        points_of(remedy(BIRD_ARMS, *way, "other_class_background"))
        for way in (("base", "cut_out"), ("bgaugment", "none"))
    )
    yield "cut out, other places, birds", f"on birds, BGAugment leads ({arm}, grey {grey})"
    below = [read_json(f) for f in (read(BIRDS).folder / "learning").glob("*-base-*.json")]
    count = sum(found["gain"] < 0 for found in below)
    words = "base ended below the trunk with four of five losses"
    yield "base on birds, validation", words if (count, len(below)) == (4, 5) else FALSE
    hits = remedies.levels(remedies.read(read(BIRDS)))
    hits = hits[(hits["arm"] == "base") & (hits["remedy"] == remedies.NONE)]
    easy = 100 * hits[hits["sides"] == "both"].set_index("condition")["value"]["clean"]
    yield "12 classes, level", f"base has {easy:.0f} % on clean birds"
    places = [gain(PRODUCTS, f"{kind}_background") for kind in ("unshared", "other_class")]
    yield "places", "products {}; places of another class, {}".format(*places)
    scores = [dict(study.scores) for study in committed()]
    for name, score in zip(STUDIED.values(), scores, strict=True):
        yield "attention", f"on {name} ({score['base']:.2f} to {score['bgaugment']:.2f})"
    spots = [f"{controls(study)['centred_gaussian']:.2f}" for study in SETS]
    yield "attention, a spot", f"without any model, scores {', '.join(spots[:2])} and {spots[2]}."
    lost = [lost_by_queries(study) for study in SETS]
    yield "query only", "base loses {:.0f}, {:.0f} and {:.0f} % of its MAP@R".format(*lost)
    usual, worse = pasted()
    words = "pasting costs {:.0f} to {:.0f} % of that (with eroded masks, {:.0f} to {:.0f} %)"
    yield "cutting and pasting, share", words.format(*usual, *worse)
    yield from of_catalogue()
    yield from of_agreement()
    yield from of_setting()
    yield from of_dial()


def of_dial() -> Iterator[Claim]:
    """What more bias in training does to each arm, on drawn images."""
    rows = bias_dose.Measured("dial").rows
    change = bias_dose_page.slopes(rows).set_index(["loss", "arm", "metric"])
    change = change.loc[bias_dose_page.MEAN]
    costs, looks = (change.xs(name, level="metric") for name in ("drop", "attention_score"))
    yield "dial: base", f"a new background costs base {told(costs.loc['base'], -100)} points more"
    yield "dial: attention", f"attention score falls by {told(looks.loc['base'], -1, 2)}"
    still = all(undecided(told(table.loc["bgaugment"], 100)) for table in (costs, looks))
    yield "dial: BGAugment", "with BGAugment, neither changes measurably" if still else FALSE
    yield "dial: bias", f"From none to {rows['bias'].max():.0%}".replace("%", " %")
    yield "dial: half", "Up to half, the mean cost is no higher." if no_dearer(rows) else FALSE


def no_dearer(rows: pd.DataFrame) -> bool:
    """Whether a new background costs base no more, in the mean, up to half of biased images."""
    found = bias_dose_page.response(rows).set_index(["loss", "arm", "metric", "bias"]).sort_index()
    costs = -found.loc[(bias_dose_page.MEAN, "base", "drop")]["value"]
    return costs[[0.25, 0.5]].max() <= costs[0.0]


def of_dial_in_full() -> Iterator[Claim]:
    """Findings: every setting, and the change from end to end."""
    rows = bias_dose.Measured("dial").rows
    found = bias_dose_page.response(rows).set_index(["loss", "arm", "metric", "bias"])
    mean = found.loc[bias_dose_page.MEAN]
    measures = (("drop", -100, 1), ("attention_score", 1, 2))
    for bias in sorted(rows["bias"].unique()):
        cells = [
            told(mean.loc[(arm, metric, bias)], scale, digits)
            for metric, scale, digits in measures
            for arm in ("base", "bgaugment")
        ]
        yield "dial", line(f"{100 * bias:.0f} %", *cells)
    change = bias_dose_page.slopes(rows).set_index(["loss", "metric", "arm"])
    costs, clean = (change.loc[bias_dose_page.MEAN, name] for name in ("drop", "clean"))
    base, arm = (told(costs.loc[name], -100) for name in ("base", "bgaugment"))
    yield "dial: ends", f"the cost rises by {base} points with base and by {arm} with BGAugment"
    yield "dial: between", f"between the two: {told(costs.loc[GAIN])})"
    base, arm = (told(clean.loc[name], 100) for name in ("base", "bgaugment"))
    yield "dial: clean", f"base changes by {base} points of MAP@R, BGAugment by {arm}."
    words = "up to a half, the mean cost is no higher than without any (not tested)"
    yield "dial: shape", words if no_dearer(rows) else FALSE
    looks = found.sort_index().loc[("normalized_softmax", "base", "attention_score")]
    words = "with normalised softmax, the attention score is lower at a half already"
    yield "dial: score", words if looks["high"][0.5] < looks["low"][0.0] else FALSE
    alone = told(change.loc[("multi_similarity", "drop", "base")], -100)
    yield "dial: one loss", f"is undecided ({alone})" if undecided(alone) else FALSE


def lost_by_queries(study: str) -> float:
    """The percentage of MAP@R that base loses, mean of its models, when only queries change."""
    rows = read(study).classes
    rows = rows[(rows["arm"] == "base") & (rows["condition"] == "clean")]
    level = 100 * effects.joint_levels(rows, ("arm",))["value"].iloc[0]
    return 100 * points_of(cost(study, SHIFTED, "query")) / level


def eroded(study: str) -> list[float]:
    """What another photograph, and pasting back, cost one model of base with eroded masks."""
    table = pd.read_csv(paths.StudyPaths(study).reports / "mask_sensitivity.csv")
    table = table[(table["contrast"] == "shifted-clean") & (table["arm"] == "base")]
    table = table[(table["masks"].str.contains("eroded")) & (table["metric"] == "map_at_r")]
    found = table[table["sides"] == "both"].set_index("condition")["value"]
    return [-100 * found[name] for name in (SHIFTED, "own_background")]


def pasted() -> list[tuple[float, float]]:
    """Percent of what another photograph costs that pasting back costs, least and most of the sets.

    With the usual masks (mean of base's models) and with eroded ones (one model).
    """
    usual = [points_of(cost(s, "own_background")) / points_of(cost(s, SHIFTED)) for s in SETS]
    worse = [eroded(s)[1] / eroded(s)[0] for s in SETS]
    return [(100 * min(shares), 100 * max(shares)) for shares in (usual, worse)]


def of_shared_photographs() -> Iterator[Claim]:
    """How much of base's drop they explain, in the set where they explain most."""
    shares = []
    for study in committed():
        back = effects.given_back(read(study.name).classes, SHIFTED, "unshared")
        shares.append(back.set_index("arm").loc["base", "value"])
    yield "shared photographs", f"less than {math.floor(100 * max(shares)) + 1} % of base's drop"


def of_agreement() -> Iterator[Claim]:
    """How often the paper's sign is found."""
    for study, name in ((BIRDS, "birds"), (CARS, "cars")):
        cells = pd.read_csv(paths.StudyPaths(study).reports / "against_published.csv")
        cells = cells.dropna(subset="same_sign")
        agree = f"{cells['same_sign'].sum():.0f} of {len(cells)}"
        yield f"agreement, {name}", f"{agree} effects on {name}"
        clean = cells[cells["what"].str.endswith(", clean")]
        agree = f"{clean['same_sign'].sum():.0f} of {len(clean)}"
        yield f"agreement on clean, {name}", f"{agree} on {name}"


def of_catalogue() -> Iterator[Claim]:
    """The real shift: how often it is found, and what BGAugment adds."""
    rows = catalogue.found(PRODUCTS)
    level = catalogue_page.levels(rows).set_index(["kind", "arm"])["value"][catalogue_page.ALL]
    yield "catalogue: base", f"in {100 * level['base']:.0f} % of searches"
    moved = catalogue_page.gain(rows, GAIN).set_index("kind").loc[catalogue_page.ALL]
    yield "catalogue: BGAugment", f"BGAugment changes this by {told(moved)} points"
    words = "On a real shift (products), we detect no gain."
    yield "catalogue: no gain", words if undecided(told(moved)) else FALSE
    rows = read(PRODUCTS).classes
    rows = rows[(rows["condition"] == SHIFTED) & (rows["sides"] == "both")]
    hits = effects.joint_levels(rows, ("arm",), "p_at_1").set_index("arm")["value"]
    yield "P@1 on composites", f"composites, by {100 * (hits['bgaugment'] - hits['base']):.1f})"
    link = catalogue_link(rows=catalogue.found(PRODUCTS))
    shown = told(link, 1, 2)
    words = f"show no link with finding it: rank correlation {shown}"
    yield "catalogue: no link", words if undecided(shown) else FALSE


def catalogue_link(rows: pd.DataFrame) -> pd.Series:
    """How base's losses on composites go with how often a product is found in the catalogue."""
    links = catalogue.predicted(catalogue.by_class(read(PRODUCTS).classes, rows))
    return links.set_index(["arm", "predictor"]).loc[("base", "lost")]


def of_setting() -> Iterator[Claim]:
    """Queries, classes and size of every study; the test of training; base on clean birds."""
    for study in committed():
        rows = read(study.name).classes
        rows = rows[(rows["condition"] == "clean") & (rows["arm"] == "base")]
        model = rows[(rows["loss"] == rows["loss"].iloc[0]) & (rows["seed"] == rows["seed"].min())]
        size = params.section(study.name, "train")["image_size"]
        yield (
            f"{study.label}: queries",
            f"{size} pixels, {model['n'].sum():,} queries of {model['label'].nunique()} ",
        )
    failed = {s.label.lower(): s.entry["not_trained"].split(":")[0] for s in committed()}
    words = [f"{'' if at else 'models '}on {name}" for at, name in enumerate(failed)]
    counts = [f"{count} {where}" for count, where in zip(failed.values(), words, strict=True)]
    yield "test of training", f"{', '.join(counts[:-1])} and {counts[-1]} fail"
    files = [f for s in (BIRDS, PRODUCTS) for f in (read(s).folder / "learning").glob("*-base-*")]
    none = not any(read_json(file)["trained"] for file in files)
    yield "test of training", "among them every base model of birds and products" if none else FALSE
    birds = read(BIRDS).classes
    levels = effects.joint_levels(birds[birds["condition"] == "clean"], ("arm",)).set_index("arm")
    base, trunk = (100 * levels["value"][arm] for arm in ("base", arms.UNTRAINED))
    hits = effects.joint_levels(birds[birds["condition"] == "clean"], ("arm",), "p_at_1")
    hits = hits.set_index("arm")["value"]
    first = f"{100 * hits['base']:.0f} % against {100 * hits[arms.UNTRAINED]:.0f} %"
    words = f"{base:.1f} % against {trunk:.1f} % for the untrained trunk, the first hit right in"
    yield "untrained on clean birds", f"{words} {first}"


# ------------------------------------------------------------------------- docs/findings.md

REMOVED = "foreground_only"
NEW = (SHIFTED, "unshared_background", "clean")  # what the arms are compared under
COSTS = {
    "another photograph": (SHIFTED, "both"), "another photograph, query only": (SHIFTED, "query"),
    "a place of the same data set": ("unshared_background", "both"),
    "a place of another class": ("other_class_background", "both"),
    "a place of its own class": ("same_class_background", "both"),
    "its own, cut out and pasted back": ("own_background", "both"),
    "none: grey": (REMOVED, "both"), "none: black": ("foreground_on_black", "both"),
}  # fmt: skip
GAINS = {
    "another photograph": (SHIFTED, "both"), "another photograph, query only": (SHIFTED, "query"),
    "a place of the same data set": ("unshared_background", "both"),
    "a place of another class": ("other_class_background", "both"),
    "none: grey": (REMOVED, "both"), "as photographed": ("clean", "both"),
}  # fmt: skip
MASKED = {
    "base, object on grey": ("base", "cut_out"), "base, crop to the object": ("base", "box_crop"),
    "BGAugment alone": ("bgaugment", "none"),
    "BGAugment, object on grey": ("bgaugment", "cut_out"),
    "BGAugment, crop to the object": ("bgaugment", "box_crop"),
}  # fmt: skip


def of_tables() -> Iterator[Claim]:
    """Every row of the tables of findings: costs, gains, ways to train, masks, attention."""
    for name, setting in COSTS.items():
        yield "costs", line(name, *(cost(study, *setting) for study in SETS))
    for name, setting in GAINS.items():
        yield "gains", line(name, *(gain(study, *setting) for study in SETS))
    for study, kind in ((ARMS, "arms"), (BIRD_ARMS, "arms on birds")):
        table = remedies.read(read(study))
        for arm in (name for name, none in remedies.rows_of(table) if none == remedies.NONE):
            if arm not in ("base", "bgaugment", arms.UNTRAINED):
                whole = study == BIRD_ARMS  # the remedies' tables hold some test classes alone
                cells = [remedy(study, arm, "none", c, "bgaugment", whole=whole) for c in NEW]
                cells.insert(1, each_time(study, arm, SHIFTED, "bgaugment", whole))
                yield kind, line(label(arm), *cells)
    for name, setting in GAINS.items():
        condition, sides = setting
        if sides == "both" and condition != REMOVED:
            cells = (remedy(BIRDS, HALF, "none", condition, than, whole=True)
                     for than in ("bgaugment", "base"))  # fmt: skip
            yield "half on birds", line(name, *cells)
    for name, (arm, used) in MASKED.items():
        cells = [remedy(s, arm, used, c) for s in SETS for c in (SHIFTED, "clean")]
        yield "masks", line(name, *cells)
    for study in committed():
        rows = read(study.name).classes
        rows = rows[rows["condition"].isin(["clean", SHIFTED])]
        hits = effects.joint_levels(rows, ("arm",), "p_at_1").set_index(["arm", "condition"])
        for arm in (arms.UNTRAINED, "base", "bgaugment"):
            ends = (f"{100 * hits['value'][arm, name]:.1f} %" for name in ("clean", SHIFTED))
            yield "first hit", line(study.label, label(arm), *ends)
    yield from of_attention()


def of_attention() -> Iterator[Claim]:
    """The attention score of every arm and of maps that know no model, and the paper's."""
    studies = committed()
    for arm in (arms.UNTRAINED, "base", "bgaugment"):
        yield "attention", line(label(arm), *(f"{dict(s.scores)[arm]:.2f}" for s in studies))
    for name, control in (("random weights", "random_weights"),
                          ("a spot in the middle", "centred_gaussian")):  # fmt: skip
        yield "attention", line(name, *(f"{controls(s.name)[control]:.2f}" for s in studies))
    paper = pd.read_csv(paths.StudyPaths(BIRDS).reports / "against_published.csv")
    paper = paper.set_index(["what", "arm"])
    for arm in ("base", "bgaugment"):
        score = paper["paper"].loc[("level", arm)]
        yield f"published attention, {arm}", f"{score.min():.2f} to {score.max():.2f}"
    for outcome in ("similarity_kept", "map_at_r_change"):
        counts = []
        for study in SETS:
            link = pd.read_csv(paths.StudyPaths(study).reports / "attention_link.csv")
            link = link[(link["over"] == "images") & (link["arm"] != arms.UNTRAINED)]
            link = link[link["outcome"] == outcome]
            counts.append(f"{(link['low'] > 0).sum()} of {len(link)} models on {STUDIED[study]}")
        yield f"attention and {outcome}", "{}, {} and {}".format(*counts)


def of_paper() -> Iterator[Claim]:
    """Levels and shares of the paper, and every effect that contradicts it significantly."""
    for study in (BIRDS, CARS):
        cells = pd.read_csv(paths.StudyPaths(study).reports / "against_published.csv")
        if study == BIRDS:
            clean = cells[(cells["what"] == "clean") & (cells["arm"] == "base")]["paper"]
            yield "published level", f"{clean.min():.0f} to {clean.max():.0f} % on clean birds"
            for arm in ("base", "bgaugment"):
                shares = cells[(cells["what"] == DROP) & (cells["arm"] == arm)]["paper_share"] * 100
                yield f"published share, {arm}", f"{shares.min():.0f} to {shares.max():.0f} %"
        apart = cells[(cells["same_sign"] == 0) & (cells["low"] * cells["high"] > 0)]
        for row in apart.itertuples():
            digits = 2 if "attention" in row.what else 1
            ends = {"value": row.ours, "low": row.low, "high": row.high}
            what = f"{'birds' if study == BIRDS else 'cars'} | {label_of(row.loss)}"
            ours, paper = told(ends, 1, digits), f"{row.paper:.2f}"
            about = f"{label(row.arm)}, change on {DROP}" if row.what == DROP else row.what
            yield "against the paper", f"| {what} | {about} | {ours} | {paper} |"


def of_all_sets() -> Iterator[Claim]:
    """What is said of all sets at once, or of cars without a number."""
    points = {c: [points_of(cost(s, c)) for s in SETS] for c in (REMOVED, SHIFTED)}
    usual, worse = pasted()
    words = "costs {:.0f} to {:.0f} % of what another photograph costs".format(*usual)
    yield "cutting and pasting", f"{words} (with eroded masks, {worse[0]:.0f} to {worse[1]:.0f} %)"
    less = all(grey < moved for grey, moved in zip(*points.values(), strict=True))
    yield "grey", "On all three sets, grey in place of the background costs less" if less else FALSE
    lost = [study.lost.set_index("arm")["value"] for study in committed()]
    more = all(shares[arms.UNTRAINED] > shares["base"] for shares in lost)
    yield "trunk", "it loses a larger share than base on all three sets" if more else FALSE
    trunks = [points_of(effect(s, "shifted-clean", SHIFTED, arm=arms.UNTRAINED)) for s in SETS]
    fewer = [trunk < own for trunk, own in zip(trunks, points[SHIFTED], strict=True)]
    words = "base on all three sets, but fewer points on cars and products"
    yield "trunk, points", words if fewer == [False, True, True] else FALSE
    table = pd.read_csv(paths.StudyPaths(CARS).reports / "remedy_gains.csv")
    table = table[(table["arm"] == "base") & (table["sides"] == "both")]
    helps = table.loc[table["condition"] == SHIFTED, "low"].max() > 0
    costs = table.loc[table["condition"] == "clean", "high"].max() < 0
    words = f"{'one' if helps else 'neither'} shows a gain for base, and both cost it quality"
    words = words if costs else FALSE
    yield "masks: cars", words


def of_words() -> Iterator[Claim]:
    """README's sentences without a number: they stand there where the tables say so."""
    table = pd.read_csv(paths.StudyPaths(CARS).reports / "remedy_gains.csv")
    rows = table[(table["arm"] == "base") & (table["sides"] == "both")]
    rows = rows[rows["remedy"] == "cut_out"].set_index("condition")
    only = rows["low"][SHIFTED] <= 0 and rows["high"]["clean"] < 0
    yield (
        "cut out, cars",
        "On cars, already cropped, grey shows no gain and costs." if only else FALSE,
    )
    apart = []
    for study in (BIRDS, CARS):
        cells = pd.read_csv(paths.StudyPaths(study).reports / "against_published.csv")
        apart.append(((cells["same_sign"] == 0) & (cells["low"] * cells["high"] > 0)).sum())
    words = "[Seven](docs/findings.md#against-the-paper) are significant with the other sign"
    yield "against the paper", words if apart == [2, 5] else FALSE
    helps = numbers(remedy(ARMS, "greyaugment", "none", SHIFTED))[1] > 0
    worse = numbers(remedy(ARMS, "attribution_penalty", "none", SHIFTED))[2] < 0
    harms = numbers(remedy(ARMS, "greyaugment", "none", "unshared_background"))[2] < 0
    words = (
        "(GreyAugment) gain nothing there and harm on places; a penalty on attribution does harm"
    )
    yield "grey, penalty", words if worse and harms and not helps else FALSE
    found = remedies.gains(remedies.read(read(ARMS)), "bgaugment")
    found = found[(found["remedy"] == remedies.NONE) & (found["condition"] == SHIFTED)]
    ends = found[found["sides"] == "both"].set_index("arm")[["low", "high"]]
    level = ends["low"]["pairs"] < 0 < ends["high"]["pairs"]
    words = "(Pairs) cannot be told apart from BGAugment; a guide towards the object (Guided) gains"
    yield "other ways", words if level and ends["high"]["guided"] < 0 else FALSE
    pairs = remedy(BIRD_ARMS, "pairs", "none", SHIFTED, "bgaugment", whole=True)
    guide = remedy(BIRD_ARMS, "guided", "none", SHIFTED, whole=True)
    found = remedy(BIRD_ARMS, "bgaugment", "none", SHIFTED, whole=True)
    yield "retrained on birds", f"of one loss agree: BGAugment gains {found} points"
    small = undecided(pairs) and 0 < points_of(guide) < 1 and not undecided(guide)
    words = f"Pairs cannot be told apart from BGAugment either ({pairs}); Guided gains little."
    yield "other ways, birds", words if small else FALSE


def of_arms() -> Iterator[Claim]:
    """What findings say in words of the arms on products."""
    others = [
        arm
        for arm, name in remedies.rows_of(remedies.read(read(ARMS)))
        if name == remedies.NONE and arm not in ("base", "bgaugment", arms.UNTRAINED)
    ]
    words = "Seven arms are compared here, and the intervals are not adjusted for that."
    yield "arms compared", words if len(others) == 7 else FALSE
    new, clean = (
        {arm: remedy(ARMS, arm, "none", c, "bgaugment") for arm in others}
        for c in (SHIFTED, "clean")
    )
    milder = points_of(clean[HALF]) > 0 and not undecided(clean[HALF]) and undecided(new[HALF])
    yield "half", "**Half a dose is milder.**" if milder else FALSE
    rest = [clean[arm] for arm in ("bgaugment_25", "bgaugment_75")]
    words = "A quarter and three quarters gain on photographs as they are, too,"
    yield "other doses", words if all(points_of(w) > 0 and undecided(w) for w in rest) else FALSE
    doses = ("bgaugment_25", HALF, "bgaugment_75", "bgaugment")
    each = [numbers(each_time(ARMS, arm, SHIFTED)) for arm in doses]
    orders = {
        tuple(sorted(doses, key=dict(zip(doses, at, strict=True)).get))
        for at in zip(*each, strict=True)
    }
    words = "The order of the doses on new backgrounds changed"
    yield "order of doses", words if len(orders) > 1 else FALSE
    clear = [remedy(ARMS, "guided", "none", c, "bgaugment") for c in NEW[1:]]
    up = min(numbers(each_time(ARMS, "guided", "clean", "bgaugment"))) > 0
    words = "(positive in all three trainings), no difference is significant"
    yield "guide, clean", words if up and all(map(undecided, clear)) else FALSE


def of_details() -> Iterator[Claim]:
    """Packages, other masks, doses loss by loss, the catalogue."""
    for (kind, arm), row in answers.kinds_table(read(PRODUCTS)).iterrows():
        if kind.startswith(("Packages", "Fruit")) and arm != label(arms.UNTRAINED):
            yield f"{kind}: {arm}", f"{row['share lost, % ↓']} % with {arm}"
    placed = [
        remedy(ARMS, arm, name, "other_class_background")
        for arm, name in (("base", "cut_out"), ("bgaugment", "none"), (HALF, "none"),
                          ("bgaugment", "cut_out"))
    ]  # fmt: skip
    words = "base {} points (all 40 classes, two losses, three trainings), "
    words += "BGAugment alone {}, half a dose alone {}, and BGAugment with objects on grey {}."
    yield "masks on other places", words.format(*placed)
    new = [remedy(ARMS, HALF, "none", f"{kind}_background") for kind in ("unshared", "other_class")]
    words = "it gains {} over base, on places of another class {}"
    yield "half on places", words.format(*new)
    grey = [remedy(ARMS, "greyaugment", "none", c) for c in (SHIFTED, "unshared_background")]
    words = "{} points on another photograph; on places of the same data set it does harm, {}"
    harm = undecided(grey[0]) and numbers(grey[1])[2] < 0
    yield "grey on places", words.format(*grey) if harm else FALSE
    failed = answers.not_trained(read(ARMS).learning).split(":")[0].replace(" of ", " of these ")
    yield "test of training, arms", f"{failed} models fail the test of training"
    rows = catalogue.found(PRODUCTS)
    level = catalogue_page.levels(rows).set_index(["kind", "arm"])["value"]
    for row in catalogue_page.gain(rows, GAIN).itertuples():
        ends = (f"{100 * level[row.kind, arm]:.0f} %" for arm in ("base", "bgaugment"))
        yield "catalogue", line(row.kind.lower(), *ends, told(row._asdict()))
    link = catalogue_link(rows)
    yield "catalogue: correlation", f"rank correlation {told(link, 1, 2)} over {link['n']:.0f}"
    found = remedy(ARMS, "attribution_penalty", "none", SHIFTED, loss="multi_similarity")
    yield "the penalty", f"on another photograph is {found}"
    yield "half, over base", f"{remedy(ARMS, HALF, 'none', SHIFTED)} points on another photograph"
    yield "half, clean", f"on photographs as they are ({remedy(ARMS, HALF, 'none', 'clean')})"
    found = remedy(BIRD_ARMS, "guided", "none", SHIFTED, whole=True)
    words = "A guide gains less than BGAugment, and little over base: {} points"
    yield "the guide on birds", words.format(found)
    found = remedy(BIRD_ARMS, "bgaugment", "none", SHIFTED, whole=True)
    *first, last = each_time(BIRD_ARMS, "bgaugment", SHIFTED, whole=True).split(", ")
    words = f"({', '.join(first)} and {last} in the three trainings)"
    yield "retrained on birds", f"gains {found} points over base on another photograph {words}"
    found = remedy(BIRD_ARMS, "bgaugment", "none", "clean", whole=True)
    yield "retrained on birds, clean", f"photographs as they are: {found}. Pairs cannot"
    behind = [
        sum(
            numbers(remedy(BIRD_ARMS, "pairs", "none", c, "bgaugment", whole=True, seed=s))[2] < 0
            for s in (0, 1, 2)
        )
        for c in (SHIFTED, "clean")
    ]
    count = ["none", "one", "two", "three"]
    words = "{} of three trainings on another photograph, and in {} of three on photographs"
    yield "Pairs on birds, one by one", words.format(*(count[n] for n in behind))
    failed = answers.not_trained(read(BIRD_ARMS).learning).split(":")[0]
    words = f"{failed.replace(' of ', ' of these ')} models fail the test of training on"
    yield "test of training, arms on birds", words
    placed = [
        remedy(BIRD_ARMS, arm, name, "other_class_background")
        for arm, name in (("base", "cut_out"), ("bgaugment", "none"), ("bgaugment", "box_crop"))
    ]
    words = "base on grey {}, BGAugment alone {}, BGAugment with a crop to the object {}."
    yield "masks on other places, birds", words.format(*placed)
    price = remedy(BIRD_ARMS, "base", "cut_out", "clean")
    words = f"the price of grey is undecided (as photographed, {price})"
    yield "price of grey, retrained", words if undecided(price) else FALSE
    few = [remedy(BIRDS, HALF, "none", c, "bgaugment") for c in (SHIFTED, "clean")]
    words = "On the 12 classes of its page 07, neither difference is significant."
    yield "half on birds, few classes", words if all(map(undecided, few)) else FALSE
    late = remedy(BIRD_ARMS, "base", "late_mask", SHIFTED)
    yield "late mask", f"Base gains {late} points on another photograph"
    grey = remedy(BIRD_ARMS, "base", "cut_out", SHIFTED)
    yield "late mask, grey", f"the same models gain {grey} from objects on grey"
    drops = []
    for study in SETS:
        masks = pd.read_csv(paths.StudyPaths(study).reports / "mask_sensitivity.csv")
        masks = masks[(masks["arm"] == "base") & (masks["condition"] == SHIFTED)]
        masks = masks[(masks["sides"] == "both") & (masks["metric"] == "map_at_r")]
        most, least = (-100 * masks["value"].agg(end) for end in ("min", "max"))
        drops.append(f"{least:.1f} to {most:.1f} on {STUDIED[study]}")
    yield "other masks", f"{drops[0]}, {drops[1]} and {drops[2]}"
    hits = remedies.levels(remedies.read(read(BIRDS)))
    hits = hits[(hits["arm"] == arms.UNTRAINED) & (hits["sides"] == "both")]
    hits = 100 * hits.set_index(["condition", "remedy"])["value"]
    for name in (SHIFTED, "clean"):
        yield (
            f"the trunk, cut out, {name}",
            f"from {hits[name, 'none']:.1f} to {hits[name, 'cut_out']:.1f} %",
        )


# ----------------------------------------------------------------------------- README alone


def of_rows() -> Iterator[Claim]:
    """Every table that a page writes stands in the row of its notebook."""
    stages = yaml.safe_load((paths.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        notebook = re.search(r"lib\.execute (\w+)", stage["cmd"])
        tables = re.findall(r"reports/[^'\"]+/(\w+\.(?:csv|parquet))", str(stage["outs"]))
        for table in tables if notebook else ():
            yield f"row of {notebook[1]}", f"`{table}`"


PAGES = {
    "README.md": (
        of_first_screen,
        of_shared_photographs,
        of_main_table,
        of_sentences,
        of_words,
        of_rows,
    ),
    "docs/findings.md": (
        of_tables,
        of_dial_in_full,
        of_shared_photographs,
        of_paper,
        of_agreement,
        of_all_sets,
        of_arms,
        of_details,
    ),
}


def missing() -> list[tuple[str, Claim]]:
    """The claims that a page does not hold."""
    lost = []
    for page, claims in PAGES.items():
        text = (paths.ROOT / page).read_text(encoding="utf-8")
        plain = " ".join(text.split())
        rows = dict(re.findall(r"^\| \d+ \| \[(\d\d_\w+)\](.+)$", text, flags=re.M))
        for about, wanted in (claim for part in claims for claim in part()):
            held = rows.get(about[7:], "") if about.startswith("row of") else plain
            if wanted not in held:
                lost.append((page, (about, wanted)))
    return lost


def main() -> int:
    """Print what the pages lack."""
    if stale_sets := set(SETS) - {study.name for study in committed()}:
        print(f"The pages of {', '.join(sorted(stale_sets))} are older than its tables: make pages")
        return 1
    lost = missing()
    for page, (about, wanted) in lost:
        print(f"{page} does not say ({about}): {wanted}")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
