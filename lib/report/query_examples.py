"""What a searcher sees: nearest images before and after the shift, queries picked by a rule."""

from matplotlib.figure import Figure

from lib.report.shift_tables import label_of
from lib.report.style import LABELS, framed, headline, plt


def gallery_finding(found: list[dict], loss: str) -> str:
    """Hits among the neighbours shown, before and after, per arm."""
    words = []
    for arm in ("base", "bgaugment"):
        before, after = (
            sum(int(f["hits"][1:].sum()) for f in found if (f["arm"], f["condition"]) == (arm, c))
            for c in ("clean", "random_background")
        )
        words.append(f"{LABELS[arm]} {before}\u00a0→\u00a0{after}")
    shown = sum(len(f["hits"]) - 1 for f in found) // 4
    return f"{label_of(loss)}: right neighbours among {shown}, before → after: " + ", ".join(words)


def gallery_figure(found: list[dict], title: str) -> Figure:
    """Rows: rule x arm x condition; first column the query, then its five nearest images."""
    figure, axes = plt.subplots(len(found), 6, figsize=(7.5, 1.2 * len(found) + 0.6))
    for line, entry in zip(axes, found, strict=True):
        for axis, image, hit in zip(line, entry["images"], entry["hits"], strict=True):
            framed(axis, image, None if axis is line[0] else hit)
        what = "clean" if entry["condition"] == "clean" else "shifted"
        line[0].set_ylabel(f"{entry['rule']}\n{LABELS[entry['arm']]}\n{what}", fontsize=7)
    headline(figure, title)
    return figure
