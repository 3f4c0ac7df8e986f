"""Letters that the figures' font lacks: another font of the machine has them, or they are replaced.

A class may be called 苹果. Matplotlib's own font has Latin, Greek, Cyrillic, Arabic and Hebrew
letters; for others a font of the machine is taken, and where no font has them, they are written in
Latin letters (anyascii), which the page then says.
"""

from functools import lru_cache

from anyascii import anyascii
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

OWN = "DejaVu Sans"  # comes with matplotlib
NOT_FOR_WORDS = ("Last Resort", "STIX", "cm", "DejaVu", "Noto Color Emoji")


@lru_cache(maxsize=512)
def _letters(file: str) -> frozenset[str]:
    """The letters of a font; none of one that cannot be read or scaled."""
    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def fonts_for(letters: set[str]) -> tuple[list[str], set[str]]:
    """Names of fonts that have `letters`, the figures' own first, and the letters that none has."""
    own = font_manager.findfont(OWN)
    wanted, names = {x for x in letters if x.isprintable()} - _letters(own), [OWN]
    plain = {
        entry.name: entry.fname
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal" and not entry.name.startswith(NOT_FOR_WORDS)
    }
    while wanted and plain:
        best = max(sorted(plain), key=lambda name: len(wanted & _letters(plain[name])))
        found = wanted & _letters(plain[best])
        if not found:
            break
        names.append(best)
        wanted -= found
    return names, wanted


def replaced(text: str, lacking: set[str]) -> str:
    """`text` with the letters of `lacking` written in Latin letters, or by their numbers."""
    return "".join((anyascii(x) or f"U+{ord(x):04X}") if x in lacking else x for x in text)


def make_legible(figure: Figure) -> str:
    """Give a figure fonts that have all its letters; returns which texts had to be replaced."""
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    names, lacking = fonts_for(set("".join(text.get_text() for text in texts)))
    if len(names) > 1:
        for text in texts:
            text.set_family(names)
    changed = {}
    for text in texts if lacking else []:
        if lacking & set(text.get_text()):
            changed[text.get_text()] = replaced(text.get_text(), lacking)
            text.set_text(changed[text.get_text()])
    for axes in figure.axes if lacking else []:  # tick labels are written anew at every drawing
        for axis in (axes.xaxis, axes.yaxis):
            labels = [text.get_text() for text in axis.get_ticklabels()]
            if lacking & set("".join(labels)):
                changed |= {x: replaced(x, lacking) for x in labels if lacking & set(x)}
                axis.set_ticks(axis.get_ticklocs(), [changed.get(x, x) for x in labels])
    if not changed:
        return ""
    told = ", ".join(f"{new} is {old}" for old, new in sorted(changed.items()))
    return f"No font on this machine has some letters of these names, so that here {told}."
