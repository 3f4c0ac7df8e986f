"""Places: a floor and a wall in perspective, painted with procedural surfaces.

A *view* of a place is another camera, crop and light on the same world-anchored pattern:
recognisable, never the same pixels. A new surface is one function and one entry in SURFACES; a
new kind of place one entry in HABITATS (behind objects) or BACKDROPS (replacement backgrounds).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
TILE = 256  # side of the periodic noise tile, in lattice points


def mix(low: Array, high: Array, t: Array) -> Array:
    """Blend two colours (3,) or pictures (...,3) by a weight (...), clipped to [0,1]."""
    return low + (high - low) * np.clip(t, 0, 1).astype(np.float32)[..., None]


def hsv(hue: float, saturation: float, value: float) -> Array:
    """One colour as float32 RGB in [0,1]; hue wraps, the others are clipped to [0,1]."""
    ramp = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    s, v = np.clip([saturation, value], 0, 1)
    return (v * (1 - s + s * ramp)).astype(np.float32)


class Grain:
    """Seeded noise on the plane: `n(u, v)` smooth 1/f noise, `n.cell(i, j)` white per cell."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.white = rng.random((TILE, TILE), dtype=np.float32)
        radius = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None])
        radius[0, 0] = np.inf  # no constant part
        cloud = np.fft.irfft2(np.fft.rfft2(self.white - 0.5) / np.maximum(radius, 0.02) ** 1.2)
        self.tile = np.clip(0.5 + cloud / (4 * cloud.std()), 0, 1).astype(np.float32)

    def __call__(self, u: Array, v: Array) -> Array:
        """Bilinear look-up in [0,1]; one unit is the size of the finest grain."""
        i, j = np.floor(u), np.floor(v)
        a, b = u - i, v - j
        i, j = i.astype(np.int32) % TILE, j.astype(np.int32) % TILE
        k, m = (i + 1) % TILE, (j + 1) % TILE
        near = self.tile[j, i] * (1 - a) + self.tile[j, k] * a
        return near * (1 - b) + (self.tile[m, i] * (1 - a) + self.tile[m, k] * a) * b

    def cell(self, u: Array, v: Array | float = 0.0) -> Array:
        """One uniform number in [0,1) for each unit cell."""
        i, j = (np.floor(np.asarray(x, np.float32)).astype(np.int32) % TILE for x in (u, v))
        return self.white[j, i]


# A surface: plane coordinates (N,), v = 0 where floor meets wall and growing up or away; a grain;
# three colours; a pattern number in [0,1] -> colours (N,3).


def _planks(u, v, n, c, k):
    i, y = np.floor(u), v / 4 + 7 * n.cell(u)
    edge = np.minimum(0.5 - abs(u % 1 - 0.5), 2 - 4 * abs(y % 1 - 0.5))
    fibre = n(u * 30 + 9 * np.floor(y), v * 2 + 31 * n.cell(i, y))
    wood = mix(c[0], c[1], 0.5 * n.cell(i, y) + 0.9 * (fibre - 0.2) * (0.4 + k))
    return mix(c[2] * 0.3, wood, edge * 30)


def _tiles(u, v, n, c, k):
    edge = np.minimum(0.5 - abs(u % 1 - 0.5), 0.5 - abs(v % 1 - 0.5))
    check = (np.floor(u) + np.floor(v)) % 2 if k > 0.6 else n.cell(u, v) < 0.25 * k
    face = mix(c[0], c[1], check) * (0.92 + 0.14 * n.cell(u, v) - 0.1 * n(u * 5, v * 5))[:, None]
    return mix(c[2], face, edge * 25 - 0.4)


def _bricks(u, v, n, c, k):
    y = v * 2.5
    x = u + 0.5 * np.floor(y)
    edge = np.minimum(0.5 - abs(x % 1 - 0.5), 0.2 - 0.4 * abs(y % 1 - 0.5))
    face = mix(c[0], c[1], n.cell(x, y)) * (0.7 + 0.6 * n(u * 25, v * 25))[:, None]
    return mix(c[2], face, edge * 25 - 0.6)


def _grass(u, v, n, c, k):
    blades = n.cell(u * 40, v * 16) * (0.4 + n(u * 90, v * 40)) + n(u * 9, v * 9) - 0.5
    inside = np.hypot(u * 5 % 1 - 0.5, v * 5 % 1 - 0.5) < 0.22
    flower = (n.cell(u * 5, v * 5) > 1.02 - 0.1 * k) & inside
    return mix(mix(c[1] * 0.6, c[0] * 1.1, blades), c[2], flower)


def _sand(u, v, n, c, k):
    ripple = np.sin(v * (9 + 14 * k) + 9 * n(u * 4, v * 4))
    return mix(
        c[0], c[1], 0.25 + 0.2 * ripple + 0.35 * n.cell(u * 60, v * 30) + 0.4 * n(u * 9, v * 9)
    )


def _carpet(u, v, n, c, k):
    rosette = np.cos(2 * np.pi * u) * np.cos(2 * np.pi * v) + (k - 0.5) * np.cos(6.3 * (u + v))
    picture = mix(mix(c[0], c[1], rosette * 6), c[2], 1.5 - 12 * abs(rosette - 0.55))
    return picture * (0.75 + 0.5 * n(u * 50, v * 50))[:, None]


def _wallpaper(u, v, n, c, k):
    x, y = u % 1 - 0.5, (v + 0.5 * np.floor(u)) % 1 - 0.5
    petals = 0.24 + 0.1 * np.cos((3 + int(k * 4)) * np.arctan2(y, x)) - np.hypot(x, y)
    picture = mix(mix(c[0], c[1], (abs(x) > 0.42) * 0.7), c[2], petals * 18)
    return picture * (0.95 + 0.1 * n(u * 9, v * 9))[:, None]


def _clouds(u, v, n, c, k):
    sky = mix(c[0] * 0.4 + 0.6, c[0], v / 4)
    return mix(sky, np.float32(0.97), 5 * (n(u * 5, v * 11) - 0.62 + 0.2 * k))


def _pines(u, v, n, c, k):
    picture = mix(c[0] * 0.3 + 0.7, c[0] * 0.6 + 0.4, v / 4)
    for layer in (3.0, 2.0, 1.0):
        x = u * (0.5 + 0.35 * (3 - layer) * k) * 3 / layer + 0.37 * layer
        tall = (0.8 + 1.2 * n.cell(x, layer)) * (0.6 + 0.4 * layer)
        reach = 0.5 * (1 - v / tall) * (0.6 + 0.4 * (-v * 5 / layer % 1))
        tree = c[1] * (0.3 + 0.2 * layer + 0.5 * n(u * 60, v * 30))[:, None]
        picture = mix(picture, tree, (reach - abs(x % 1 - 0.5)) * 25)
    return picture


def _sea(u, v, n, c, k):
    waves = mix(c[0], c[1], 2.2 * n(u * 6, v * 70) - 0.5)
    waves = mix(waves, np.float32(1), 2 - 20 * abs(v - 0.06 - 0.08 * n(u * 3, 0 * v)))  # surf
    return mix(waves, _clouds(u, v, n, c, k), (v - 0.45 - 0.3 * k) * 60)


def _shelf(u, v, n, c, k):
    y, i = v % 1, np.floor(u * 7 + 0.35 * n.cell(u * 7, v))
    pick, shade = n.cell(i, v), n.cell(i + 50, v)
    book = mix(mix(c[0], c[1], pick > 0.35), c[2], pick > 0.7) * (0.55 + 0.6 * shade)[:, None]
    book = mix(book, np.float32(0.9), (abs(y - 0.3 - 0.3 * shade) < 0.03 * k + 0.01) * 0.6)
    book = mix(book, np.float32(0.05), (y > 0.55 + 0.33 * n.cell(i + 99, v)) * 0.9)
    return mix(book, c[2] * 0.35 + np.float32([0.3, 0.2, 0.1]), y < 0.07)


def _scatter(u, v, n, c, picture, shape, density):
    """Draw one shape (radius up to 0.75) in every cell of a jittered lattice."""
    for a, b in ((0, 0), (1, 0), (0, 1), (1, 1)):
        p, q = np.floor(u - 0.5) + a, np.floor(v - 0.5) + b
        x = u - p - 0.25 - 0.5 * n.cell(p, q)
        y = v - q - 0.25 - 0.5 * n.cell(p + 31, q)
        colour = mix(mix(c[0], c[1], n.cell(p, q + 57)), c[2], 3 * n.cell(p + 7, q + 91) - 2)
        cover, gain = shape(x, y, n.cell(p + 13, q + 5))
        picture = mix(picture, colour * gain[:, None], cover * (n.cell(p + 3, q + 77) < density))
    return picture


def _leaves(u, v, n, c, k):
    def leaf(x, y, r):
        s, t = np.cos(6.3 * r), np.sin(6.3 * r)
        x, y = x * s + y * t, y * s - x * t
        edge = (0.3 + 0.15 * k) * (1 - (x / 0.75) ** 2) - abs(y)
        return np.clip(edge * 25, 0, 1), 0.65 + 0.5 * r + 0.5 * y - 0.35 * (abs(y) < 0.03)

    return _scatter(u, v, n, c, mix(c[0] * 0.25, c[0] * 0.5, n(u * 9, v * 9)), leaf, 1.0)


def _bokeh(u, v, n, c, k):
    def disc(x, y, r):
        d = np.hypot(x, y) - 0.2 - 0.45 * r
        return 0.65 * np.clip(-d * 20, 0, 1), 1.0 + 0.3 * np.exp(-((d * 14) ** 2))

    return _scatter(u, v, n, c, mix(c[0] * 0.1, c[1] * 0.3, n(u * 2, v * 2)), disc, 0.3 + 0.5 * k)


def _skyline(u, v, n, c, k):
    picture = mix(c[2], c[0], v / 5)
    for layer in (2.0, 1.0):
        x = u * 1.6 / layer + 5 * layer
        house = c[1] * (0.35 + 0.3 * layer + 0.3 * n.cell(x, layer))[:, None]
        pane = (abs(x * 5 % 1 - 0.5) < 0.28) & (abs(v * 5 % 1 - 0.5) < 0.3)
        glow = 0.2 + 0.8 * (n.cell(x * 5, v * 5) < 0.3 + 0.5 * k)
        house = mix(house, np.float32([1, 0.9, 0.6]) * glow[:, None], pane * 0.8)
        picture = mix(picture, house, (layer * (0.5 + 0.9 * n.cell(x, 9 * layer)) - v) * 40)
    return picture


def _stone(u, v, n, c, k):
    vein = abs(n(u * 4 + 5 * n(v * 3, u * 3), v * 4) - 0.5)
    picture = mix(c[0], c[1], n(u * 7, v * 7) * 1.4 - 0.2 + 0.4 * (n(u * 55, v * 55) - 0.5))
    return mix(c[2] * 0.6, picture, vein * (8 + 20 * k))


def _fabric(u, v, n, c, k):
    fold = 0.8 + 0.22 * np.sin(u * 3 + 6 * n(u * 1.5, v * 1.5) + 2 * k * v)
    plaid = 0.4 * ((u * 2) % 1 < 0.3 + 0.2 * k) + 0.4 * ((v * 2) % 1 < 0.3)
    return mix(c[0], c[1], plaid) * (fold * (0.9 + 0.1 * np.sin(u * 90) * np.sin(v * 90)))[:, None]


def _marbled(u, v, n, c, k):
    warp = n(u * 2 + 30 * n(v * 2, u * 2) * k, v * 2 + 9)
    return mix(mix(c[0], c[1], warp * 3 - 1), c[2], 4 * n(u * 4 + 50, v * 4 + 8 * warp) - 2.2)


# name -> pattern; ranges of hue, saturation, value of the first colour and of cells per metre
SURFACES: dict[str, tuple[Callable[..., Array], tuple[tuple[float, float], ...]]] = {
    "planks": (_planks, ((0.04, 0.11), (0.30, 0.65), (0.40, 0.85), (1.5, 3.5))),
    "tiles": (_tiles, ((0.00, 1.00), (0.05, 0.50), (0.55, 0.95), (1.2, 3.0))),
    "bricks": (_bricks, ((-0.03, 0.09), (0.20, 0.65), (0.45, 0.80), (0.9, 1.8))),
    "grass": (_grass, ((0.19, 0.36), (0.45, 0.75), (0.40, 0.70), (0.8, 1.6))),
    "sand": (_sand, ((0.07, 0.13), (0.20, 0.50), (0.70, 0.95), (0.7, 1.6))),
    "snow": (_sand, ((0.52, 0.66), (0.02, 0.10), (0.95, 1.00), (0.4, 1.0))),
    "carpet": (_carpet, ((0.00, 1.00), (0.35, 0.75), (0.35, 0.70), (1.0, 2.2))),
    "wallpaper": (_wallpaper, ((0.00, 1.00), (0.10, 0.50), (0.60, 0.95), (1.2, 3.0))),
    "clouds": (_clouds, ((0.50, 0.63), (0.30, 0.70), (0.65, 0.95), (0.6, 1.3))),
    "pines": (_pines, ((0.34, 0.60), (0.25, 0.60), (0.45, 0.80), (0.8, 1.3))),
    "sea": (_sea, ((0.47, 0.63), (0.40, 0.75), (0.45, 0.85), (0.6, 1.0))),
    "shelf": (_shelf, ((0.00, 1.00), (0.30, 0.70), (0.40, 0.80), (0.9, 1.6))),
    "leaves": (_leaves, ((0.04, 0.40), (0.40, 0.75), (0.35, 0.75), (1.6, 3.2))),
    "stone": (_stone, ((0.00, 1.00), (0.03, 0.25), (0.40, 0.80), (0.7, 1.8))),
    "fabric": (_fabric, ((0.00, 1.00), (0.25, 0.70), (0.35, 0.85), (0.8, 2.0))),
    "skyline": (_skyline, ((0.50, 1.10), (0.15, 0.50), (0.30, 0.90), (0.6, 1.0))),
    "bokeh": (_bokeh, ((0.00, 1.00), (0.40, 0.80), (0.70, 1.00), (0.8, 1.6))),
    "marbled": (_marbled, ((0.00, 1.00), (0.20, 0.70), (0.40, 0.90), (0.5, 1.5))),
}
# kind of place -> (floor, wall, distance of the wall in metres); no pair is in both tables
HABITATS: dict[str, tuple[str, str, float]] = {
    "kitchen": ("planks", "tiles", 2.4),
    "meadow": ("grass", "clouds", 6.0),
    "street": ("tiles", "bricks", 3.0),
    "beach": ("sand", "sea", 5.0),
    "parlour": ("carpet", "wallpaper", 2.6),
    "winter": ("snow", "pines", 5.0),
    "library": ("planks", "shelf", 2.6),
    "thicket": ("grass", "leaves", 2.8),
}
BACKDROPS: dict[str, tuple[str, str, float]] = {
    "terrace": ("stone", "skyline", 5.0),
    "night": ("stone", "bokeh", 4.0),
    "glade": ("leaves", "pines", 5.0),
    "studio": ("fabric", "fabric", 2.4),
    "quarry": ("sand", "stone", 3.0),
    "party": ("planks", "bokeh", 3.0),
    "fantasy": ("marbled", "marbled", 3.0),
    "bazaar": ("carpet", "fabric", 2.6),
    "roof": ("bricks", "skyline", 5.0),
    "dream": ("snow", "marbled", 4.0),
}


class Place(NamedTuple):
    """Two painters (u, v) -> colours, in metres, and the distance of the wall in metres."""

    floor: Callable[[Array, Array], Array]
    wall: Callable[[Array, Array], Array]
    depth: float


def _paint(surface: str, rng: np.random.Generator) -> Callable[[Array, Array], Array]:
    """Draw colours, scale, pattern number and grain of one surface inside its ranges."""
    pattern, ranges = SURFACES[surface]
    h, s, v, scale = (rng.uniform(*r) for r in ranges)
    free = ranges[0][1] - ranges[0][0] >= 1  # any hue is natural, so contrasts are too
    turn = rng.choice([-0.08, 0.08, 0.45]) if free else rng.uniform(-0.03, 0.03)
    second = hsv(h + turn, s * rng.uniform(0.7, 1.2), v * rng.uniform(0.6, 0.85))
    third = hsv(h + rng.uniform(-0.2, 0.2), s * 0.35, v * rng.uniform(1.0, 1.4))
    colours, k, n = (hsv(h, s, v), second, third), rng.random(), Grain(rng)
    return lambda a, b: pattern(a * scale, b * scale, n, colours, k)


def draw_place(kind: str, rng: np.random.Generator) -> Place:
    """Draw one place of a kind named in HABITATS or BACKDROPS."""
    floor, wall, depth = (HABITATS | BACKDROPS)[kind]
    return Place(_paint(floor, rng), _paint(wall, rng), depth * rng.uniform(0.85, 1.2))


def view(place: Place, rng: np.random.Generator, height: int, width: int) -> Array:
    """Photograph a place: random camera, crop and light; float32 (height,width,3) in [0,1]."""
    focal, pitch, yaw = rng.uniform(0.95, 1.35), rng.uniform(0.14, 0.30), rng.uniform(-0.35, 0.35)
    aside, eye = rng.uniform(-1.5, 1.5), rng.uniform(0.85, 1.15)
    v, u = np.mgrid[:height, :width].astype(np.float32)
    v, u = (np.stack([t + 0.25, t + 0.75]) for t in (v, u))  # two rays a pixel, on its diagonal
    u, v = (u - width / 2) / min(height, width), (v - height / 2) / min(height, width)
    y = -v * np.cos(pitch) - focal * np.sin(pitch)
    z = focal * np.cos(pitch) - v * np.sin(pitch)
    x, z = u * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - u * np.sin(yaw)
    up = eye + y * place.depth / z  # height of the ray at the wall; below 0 it met the floor first
    floor = up < 0
    t = np.where(floor, -eye / np.minimum(y, -1e-3), place.depth / z).astype(np.float32)
    across = x * t + aside
    picture = np.empty((*u.shape, 3), np.float32)
    picture[floor] = place.floor(across[floor], (place.depth - z * t)[floor])
    picture[~floor] = place.wall(across[~floor], up[~floor].astype(np.float32))
    angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.4)
    light = 1 + fall * (u[0] * np.cos(angle) + v[0] * np.sin(angle))
    balance = rng.uniform(0.8, 1.1) * rng.uniform(0.95, 1.05, 3)
    return np.clip(picture.mean(0) * light[..., None] * balance, 0, 1).astype(np.float32)
