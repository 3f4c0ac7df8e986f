"""Does README say what the committed tables say? `python -m tests.claims`, run before a release.

Not collected by pytest: a run of the demo, or of another study, changes tables that README quotes.
Prints every claim that README does not hold; returns 1 where there is one.
"""

import json
import math
import re
import sys
from collections.abc import Iterator

import pandas as pd
import yaml

from lib.core import params, paths
from lib.core.tiles import read_tiles
from lib.evaluation import effects
from lib.evaluation.measured import read
from lib.experiments import bias_dose_figure, catalogue, catalogue_page
from lib.front import first_figure, front_page, overview_figure, stale
from lib.front.first_figure import SHIFTED
from lib.report import answers, remedies
from lib.report.paper_comparison import DROP
from lib.report.shift_tables import told
from lib.report.style import label
from lib.training import arms

Claim = tuple[str, str]  # what it is about; the text that README must hold


def committed() -> list[front_page.Study]:
    """The studies of the figure on README's first screen."""
    files = sorted((paths.REPORTS / "summaries").glob("*.json"))
    changes = {study: stale.of_study(study, changed) for study, changed in stale.by_study().items()}
    read = [front_page.read_study(f, paths.FACTS, changes.get(f.stem, "")) for f in files]
    return overview_figure.chosen(read)


def of_studies() -> Iterator[Claim]:
    """The figure's title (as its alternative text, too), gains, attention scores, seeds."""
    studies = committed()
    finding = overview_figure.finding(studies)
    yield "figure", f"![{finding}](reports/overview.png)"
    for name, pair, moved, clean in overview_figure.gains(studies):
        yield f"{name}: {pair}, random background", moved
        yield f"{name}: {pair}, clean", clean
    for study in studies:
        for arm, score in study.scores:
            yield f"{study.label}: attention score, {arm}", f"{score:.2f}"
        for arm, share in study.lost.set_index("arm")["value"].items():
            yield f"{study.label}: lost, {arm}", f"{100 * share:.0f} %"
        table = answers.cost_table(read(study.name).classes).loc[label("base")]
        clean, shifted = (
            f"{table[f'{name}, % ↑']:.1f} %" for name in ("clean", "random background")
        )
        yield f"{study.label}: levels of base", f"from {clean} to {shifted}"


def of_controls() -> Iterator[Claim]:
    """What cutting and pasting costs, agreement with the paper."""
    for study in committed():
        m = read(study.name)
        if not m.folder.is_dir():
            continue
        cut = effects.joint(m.classes, "shifted-clean", "own_background", "both").set_index("arm")
        yield f"{study.label}: cut and pasted", told(cut.loc["base"], -100)
    birds = read("cub200-cpu").classes
    for condition in ("foreground_only", SHIFTED):
        cost = effects.joint(birds, "shifted-clean", condition, "both").set_index("arm")
        yield f"a wrong background, {condition}", told(cost.loc["base"], -100)
    folder = paths.StudyPaths("cub200-cpu").reports
    cells = pd.read_csv(folder / "against_published.csv").dropna(subset="same_sign")
    paper = pd.read_csv(folder / "against_published.csv").set_index(["what", "arm"])["paper"]
    for arm in ("base", "bgaugment"):
        score = paper.loc[("level", arm)]
        yield f"published attention, {arm}", f"{score.min():.2f} to {score.max():.2f}"
        shares = 100 * cells[cells["what"] == DROP].set_index("arm")["paper_share"][arm]
        yield f"published share, {arm}", f"{shares.min():.0f} to {shares.max():.0f} %"
    clean = paper.loc[("clean", "base")]
    yield "published level", f"{clean.min():.0f} to {clean.max():.0f} % on clean birds"
    for study in ("cub200-cpu", "cars196-cpu"):
        cells = pd.read_csv(paths.StudyPaths(study).reports / "against_published.csv")
        cells = cells.dropna(subset="same_sign")
        yield f"agreement, {study}", f"{cells['same_sign'].sum():.0f} of {len(cells)} effects"
        apart = cells[(cells["same_sign"] == 0) & (cells["low"] * cells["high"] > 0)]
        for row in apart.itertuples():
            ends = {"value": row.ours, "low": row.low, "high": row.high}
            digits = 2 if "attention" in row.what else 1
            yield f"against the paper, {study}, {row.loss}", told(ends, 1, digits)


def of_first_image() -> Iterator[Claim]:
    """Right neighbours in the first image, as its alternative text says."""
    for study in committed()[: first_figure.SETS]:
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


def of_setting() -> Iterator[Claim]:
    """Queries, classes and size of every study; base against the trunk on clean birds."""
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
    yield "test of training", f"failed by {', '.join(counts[:-1])} and {counts[-1]}"
    birds = read("cub200-cpu").classes
    levels = effects.joint_levels(birds[birds["condition"] == "clean"], ("arm",)).set_index("arm")
    base, trunk = (100 * levels["value"][arm] for arm in ("base", arms.UNTRAINED))
    yield "untrained on clean birds", f"{base:.1f} % against {trunk:.1f} %"


def of_places() -> Iterator[Claim]:
    """What BGAugment gains where the new background is a place that no other image shares."""
    for study in committed():
        rows = read(study.name).classes
        gain = effects.joint(rows, "bgaugment-base", "unshared_background", "both")
        yield f"places: {study.label}", f"{study.label.lower()} {told(gain.iloc[0])}"
    rows = read("grocery-cpu").classes
    gain = effects.joint(rows, "bgaugment-base", "other_class_background", "both")
    yield "places of another class: products", f"no clear gain: {told(gain.iloc[0])}"


def of_shared_photographs() -> Iterator[Claim]:
    """How much of base's drop they explain, in the set where they explain most."""
    shares = []
    for study in committed():
        back = effects.given_back(read(study.name).classes, "random_background", "unshared")
        shares.append(back.set_index("arm").loc["base", "value"])
    yield "shared photographs", f"less than {math.floor(100 * max(shares)) + 1} % of base's drop"


MASKED = (  # what README says of masks at search time: study, arm, remedy, condition, factor
    ("cub200-cpu", "base", "cut_out", "random_background", 100),
    ("cub200-cpu", "base", "cut_out", "clean", -100),
    ("cub200-cpu", "base", "box_crop", "random_background", 100),
    ("cub200-cpu", "bgaugment", "none", "random_background", 100),
    ("cub200-cpu", "bgaugment", "box_crop", "random_background", 100),
    ("cub200-cpu", "bgaugment", "cut_out", "random_background", 100),
    ("grocery-cpu", "bgaugment", "none", "random_background", 100),
    ("grocery-cpu", "base", "cut_out", "random_background", 100),
    ("grocery-cpu", "base", "cut_out", "clean", -100),
    ("grocery-cpu", "base", "box_crop", "random_background", 100),
    ("grocery-cpu", "base", "box_crop", "clean", -100),
)


def of_masks() -> Iterator[Claim]:
    """What masks at search time gain, and what they cost."""
    for study, arm, remedy, condition, factor in MASKED:
        gains = pd.read_csv(paths.StudyPaths(study).reports / "remedy_gains.csv")
        row = gains.set_index(["arm", "remedy", "condition", "sides"])
        found = row.loc[(arm, remedy, condition, "both")]
        yield f"masks: {study}, {arm}, {remedy}, {condition}", told(found, factor)
    gains = pd.read_csv(paths.StudyPaths("cars196-cpu").reports / "remedy_gains.csv")
    gains = gains[(gains["arm"] == "base") & (gains["sides"] == "both")]
    helps = gains.loc[gains["condition"] == "random_background", "low"].max() > 0
    costs = gains.loc[gains["condition"] == "clean", "high"].max() < 0
    words = f"{'one' if helps else 'neither'} helps, and {'both cost' if costs else 'cost'} quality"
    yield "masks: cars", f"cropped already, {words}"


ARMS_TOLD = (  # what README says of ways to train: arm, compared with, condition, factor
    ("bgaugment_50", "bgaugment", "random_background", 100),
    ("bgaugment_50", "bgaugment", "unshared_background", 100),
    ("bgaugment_50", "base", "clean", 100),
    ("pairs", "bgaugment", "random_background", 100),
    ("guided", "bgaugment", "random_background", -100),
    ("guided", "bgaugment", "unshared_background", 100),
    ("guided", "bgaugment", "other_class_background", 100),
    ("guided", "base", "clean", 100),
    ("greyaugment", "base", "random_background", -100),
    ("attribution_penalty", "base", "random_background", -100),
)


def of_other_arms() -> Iterator[Claim]:
    """What ways to train besides BGAugment gain, over base and over BGAugment."""
    table = remedies.read(read("grocery-arms"))
    keys = ["arm", "remedy", "condition", "sides"]
    over = {arm: remedies.gains(table, arm).set_index(keys) for arm in ("base", "bgaugment")}
    for arm, than, condition, factor in ARMS_TOLD:
        row = over[than].loc[(arm, remedies.NONE, condition, "both")]
        yield f"other arms: {arm} over {than}, {condition}", told(row, factor)


def of_blind_maps() -> Iterator[Claim]:
    """What a map scores that knows no model: a blob in the middle; a network of random weights."""
    spot, random = [], {}
    for study in committed():
        table = pd.read_csv(paths.StudyPaths(study.name).reports / "attention_controls.csv")
        found = table.set_index("control")["value"]
        spot.append(f"{found['centred_gaussian']:.2f}")
        if found["random_weights"] > dict(study.scores)[arms.UNTRAINED]:
            random[study.label.lower()] = f"{found['random_weights']:.2f}"
    yield "attention: a spot", f"scores {', '.join(spot[:-1])} and {spot[-1]}"
    yield "attention: random weights", f"on {' and '.join(random)} a network with random weights"
    yield "attention: random weights", f"untrained trunk ({' and '.join(random.values())})"


def of_packages() -> Iterator[Claim]:
    """What the products with a clear object and background lose."""
    for study in committed():
        if study.dataset != "grocery":
            continue
        table = answers.kinds_table(read(study.name))
        for (kind, arm), row in table.iterrows():
            if kind.startswith("Packages") and arm != label(arms.UNTRAINED):
                yield f"packages: {arm}", f"{arm} {row['share lost, % ↓']} %"


def of_catalogue() -> Iterator[Claim]:
    """The real shift: how often it is found, what BGAugment adds, whether composites predict it."""
    for file in paths.REPORTS.glob("*/catalogue.csv"):
        study = file.parent.name
        rows = catalogue.found(study)
        level = catalogue_page.levels(rows).set_index(["kind", "arm"])["value"][catalogue_page.ALL]
        yield "catalogue: base", f"{100 * level['base']:.0f} % of the searches"
        gain = catalogue_page.gain(rows, "bgaugment-base").set_index("kind").loc[catalogue_page.ALL]
        less = gain["value"] < 0
        words = f"{told(gain, -100 if less else 100)} points {'less' if less else 'more'} often"
        yield "catalogue: BGAugment", words
        links = catalogue.predicted(catalogue.by_class(read(study).classes, rows))
        link = links.set_index(["arm", "predictor"]).loc[("base", "lost")]
        yield "catalogue: correlation", f"rank correlation {told(link, 1, 2)} over {link['n']:.0f}"


def of_bias_dose() -> Iterator[Claim]:
    """The bias dose's finding."""
    for file in paths.REPORTS.glob("*/dial.csv"):
        yield "bias dose", bias_dose_figure.finding(pd.read_csv(file))


def of_demo() -> Iterator[Claim]:
    """The number to expect of the first run; only where the demo has just run."""
    file = paths.REPORTS / "demo" / "answers.json"
    if file.exists():
        yield "demo", json.loads(file.read_text(encoding="utf-8"))["finding"]


def of_tables() -> Iterator[Claim]:
    """Every table that a page writes stands in the row of its notebook."""
    stages = yaml.safe_load((paths.ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        notebook = re.search(r"lib\.execute (\w+)", stage["cmd"])
        for table in re.findall(r"reports/[^'\"]+/(\w+\.csv)", str(stage["outs"])) * bool(notebook):
            yield f"row of {notebook[1]}", f"`{table}`"


def missing() -> list[Claim]:
    """The claims that README does not hold."""
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    plain = " ".join(text.split())
    rows = dict(re.findall(r"^\| \d \| \[(\d\d_\w+)\](.+)$", text, flags=re.M))
    claims = [
        *of_studies(),
        *of_controls(),
        *of_first_image(),
        *of_setting(),
        *of_places(),
        *of_shared_photographs(),
        *of_masks(),
        *of_other_arms(),
        *of_blind_maps(),
        *of_packages(),
        *of_catalogue(),
        *of_bias_dose(),
        *of_demo(),
    ]
    claims += of_tables()
    return [
        (about, wanted)
        for about, wanted in claims
        if wanted not in (rows.get(about[7:], "") if about.startswith("row of") else plain)
    ]


def main() -> int:
    """Print what README lacks."""
    lost = missing()
    for about, wanted in lost:
        print(f"README.md does not say ({about}): {wanted}")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
