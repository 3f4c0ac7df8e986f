"""The embedded demo data set: toys in places, drawn by our own code, with exact masks.

A class is a family of things (mug, duck, rocket ...) with shape numbers, a texture and a palette;
an image is another pose, light and view of it. Things are signed distance fields traced along
parallel rays; the mask is the share of a pixel's 2x2 rays that hit. A class stands in its own
place (its habitat) with a given probability, else in the place of another class of its split.
"""

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from lib.core.errors import StudyError
from lib.data.drawn.surroundings import HABITATS, Array, Place, draw_place, hsv, mix, view

BODY, TRIM, DARK, CREAM, WARM = range(5)  # tones; BODY carries the texture
Parts = dict[int, Array]  # tone -> signed distance (N,)


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A random stream of its own for every name: nothing depends on the order of the work."""
    return np.random.default_rng([seed, zlib.crc32(repr(names).encode())])


# ---- distance fields: coordinates (N,), y up, things about two units tall ----


def _ball(x, y, z, a, b, c):
    """Ellipsoid with half axes a, b, c (first-order distance, I. Quilez)."""
    near = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + 1e-6
    return near * (near - 1) / (np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) + 1e-6)


def _norm(x, y):
    return np.sqrt(x * x + y * y)  # several times faster than np.hypot


def _ring(x, y, z, radius, thick):
    """Torus around the z axis."""
    return _norm(_norm(x, y) - radius, z) - thick


def _rod(x, y, z, start, end, r0, r1):
    """Round rod in the plane z = 0 from `start` to `end` (2,); its radius goes from r0 to r1."""
    (bx, by), px, py = np.subtract(end, start).tolist(), x - start[0], y - start[1]
    t = np.clip((px * bx + py * by) / (bx * bx + by * by), 0, 1)
    return np.sqrt((px - t * bx) ** 2 + (py - t * by) ** 2 + z * z) - r0 - (r1 - r0) * t


@lru_cache(maxsize=256)
def _curve(outline: tuple[tuple[float, float], ...]) -> tuple[Array, Array, float]:
    at, radius = np.array(outline).T
    fine = np.linspace(at[0], at[-1], 400)
    curve = PchipInterpolator(at, radius)(fine)
    return fine, curve, float(np.abs(np.diff(curve)).max() / (fine[1] - fine[0]))


def _lathe(x, y, z, *outline):
    """Body of revolution; outline = (height, radius) from bottom to top, joined smoothly."""
    fine, curve, steep = _curve(outline)
    around = _norm(x, z) - np.interp(y, fine, curve).astype(np.float32)
    ends = np.abs(y - (fine[0] + fine[-1]) / 2) - (fine[-1] - fine[0]) / 2
    return np.maximum(around / np.sqrt(1 + min(steep, 2.5) ** 2), ends.astype(np.float32)) - 0.015


def _blend(a, b, width):
    """Union of two fields with a rounded seam (polynomial smooth minimum, I. Quilez)."""
    h = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    return b + (a - b) * h - width * h * (1 - h)


# ---- families: coordinates and three shape numbers in [0,1] -> parts ----


def _mug(x, y, z, a, b, c):
    r, top = 0.55 + 0.2 * a, 0.6 + 0.35 * b
    wide = r * (0.85 + 0.4 * c)
    hole = _lathe(x, y, z, (-top + 0.12, r - 0.1), (top + 0.1, wide - 0.09))
    wall = _lathe(x, y, z, (-top, r * 0.9), (-0.8 * top, r), (top, wide))
    handle = _ring((x - r - 0.1) * 1.1, y / (0.8 + 0.4 * b), z, 0.36, 0.09) * 0.8
    return {BODY: np.maximum(wall, -hole), TRIM: np.maximum(handle, -hole)}


def _vase(x, y, z, a, b, c):
    neck, lip, at = 0.14 + 0.18 * b, 0.28 + 0.25 * c, -0.35 + 0.5 * c
    wall = _lathe(x, y, z, (-1, 0.34), (-0.9, 0.36), (at, 0.45 + 0.25 * a), (0.62, neck), (1, lip))
    hole = _lathe(x, y, z, (0.2, 0.05), (0.62, neck - 0.06), (1.1, lip + 0.02))
    foot = _ring(x, z, y + 0.98, 0.34, 0.05)
    return {BODY: np.maximum(wall, -hole), DARK: np.maximum(hole, y - 0.6), TRIM: foot}


def _teapot(x, y, z, a, b, c):
    wide, tall = 0.62 + 0.15 * a, 0.5 + 0.25 * b
    body = _ball(x, y, z, wide, tall, wide)
    spout = _rod(x, y, z, (wide * 0.7, -0.2), (wide + 0.42, 0.3 + 0.3 * c), 0.17, 0.075)
    handle = _ring(x + wide + 0.03, y - 0.02, z, 0.27 + 0.1 * b, 0.07)
    lid = _ball(x, y - tall * 0.88, z, wide * 0.5, 0.13, wide * 0.5)
    knob = _ball(x, y - tall - 0.16, z, 0.11, 0.11, 0.11)
    foot = _lathe(x, y, z, (-tall - 0.04, wide * 0.6), (-tall + 0.1, wide * 0.5))
    return {BODY: _blend(body, spout, 0.12), TRIM: np.minimum.reduce([handle, knob, lid, foot])}


def _lamp(x, y, z, a, b, c):
    low, high, y0, r = 0.55 + 0.25 * a, 0.2 + 0.35 * b, 0.05 + 0.15 * c, 0.12 + 0.26 * c
    hole = _lathe(x, y, z, (y0 - 0.2, low), (0.7, high - 0.02))
    shade = np.maximum(_lathe(x, y, z, (y0, low), (0.95, high)), -hole)
    plate = _lathe(x, y, z, (-1, 0.4), (-0.93, 0.38), (-0.85, 0.1))
    stem = _lathe(x, y, z, (-0.9, 0.1), (-0.45, r), (-0.05, 0.07), (y0 + 0.1, 0.06))
    bulb = _ball(x, y - y0 - 0.18, z, 0.16, 0.2, 0.16)
    return {BODY: shade, TRIM: np.minimum(plate, stem), CREAM: bulb}


def _duck(x, y, z, a, b, c):
    side, head, hy = np.abs(z), 0.36 + 0.1 * a, y - 0.42 - 0.18 * b
    body = _ball(x + 0.1, y + 0.35, z, 0.8, 0.48 + 0.1 * c, 0.56)
    tail = _rod(x, y, z, (-0.6, -0.2), (-0.98, 0.15 + 0.15 * c), 0.24, 0.04)
    body = _blend(_blend(body, tail, 0.15), _ball(x - 0.42, hy, z, head, head, head), 0.14)
    wing = _ball(x + 0.2, y + 0.22, side - 0.5, 0.42, 0.24, 0.14)
    bill = _ball(x - 0.45 - head, hy + 0.08, z, 0.24, 0.075, 0.19)
    eye = _ball(x - 0.42 - 0.72 * head, hy - 0.12, side - 0.55 * head, 0.085, 0.1, 0.085)
    return {BODY: body, TRIM: wing, WARM: bill, DARK: eye}


def _fish(x, y, z, a, b, c):
    tall, side, p, q = 0.42 + 0.25 * a, np.abs(z), x + 0.92, np.abs(y) - 0.24
    tail = _ball(p * 0.8 + q * 0.6, q * 0.8 - p * 0.6, z, 0.19, 0.36 + 0.12 * b, 0.06)
    body = _blend(_ball(x - 0.1, y, z, 0.82, tall, 0.3), tail, 0.1)
    fin = _ball(x + 0.1 + 0.35 * (y - tall), y - tall + 0.03, z, 0.36, 0.2 + 0.2 * c, 0.06)
    flipper = _ball(x - 0.1 + 0.5 * y, y + 0.16, side - 0.3, 0.22, 0.11, 0.06)
    white = _ball(x - 0.58, y - 0.12, side - 0.2, 0.13, 0.13, 0.08)
    pupil = _ball(x - 0.61, y - 0.12, side - 0.26, 0.07, 0.07, 0.06)
    return {BODY: body, TRIM: np.minimum(fin, flipper), CREAM: white, DARK: pupil}


def _mushroom(x, y, z, a, b, c):
    wide, tall, r = 0.68 + 0.25 * a, 0.45 + 0.45 * b, 0.2 + 0.14 * c
    cap = np.maximum(_ball(x, y, z, wide, tall, wide), 0.02 - y) - 0.04
    gills = np.maximum(_ball(x, y, z, wide * 0.95, 0.16, wide * 0.95), y)
    stem = _lathe(x, y, z, (-1, r + 0.1), (-0.75, r + 0.08), (-0.3, r), (0.1, r - 0.03))
    skirt = _ball(x, y + 0.32, z, r + 0.15, 0.07, r + 0.15)
    return {BODY: cap, CREAM: np.minimum(stem, skirt), TRIM: gills}


def _rocket(x, y, z, a, b, c):
    r, turn = 0.32 + 0.14 * a, 2 * np.pi / (3 + int(c * 2.99))
    low, mid = ((-0.75, r * 0.6), (-0.3, r * 0.95)), ((0.1, r), (0.55, r * 0.68))
    hull = _lathe(x, y, z, *low, *mid, (1.05, 0.02))
    angle = (np.arctan2(z, x) + turn / 2) % turn - turn / 2  # one fin, repeated around the axis
    u, w = _norm(x, z) * np.cos(angle), _norm(x, z) * np.sin(angle)
    fin = _ball(u - r * 0.9, y + 0.62 + 0.8 * (u - r), w, 0.34 + 0.1 * b, 0.3 + 0.12 * b, 0.07)
    nose = hull + np.maximum(0.58 - y, 0) - 0.006  # the hull's tip again, a hair thicker
    nozzle = _lathe(x, y, z, (-0.95, r * 0.55), (-0.7, r * 0.35))
    glass = _ball(x, y - 0.2, z - r, 0.15, 0.15, 0.06)
    rim = _ring(x, y - 0.2, z - r + 0.02, 0.17, 0.05)
    tips = {TRIM: np.minimum(fin, nose), DARK: np.minimum(nozzle, glass)}
    return {BODY: hull, CREAM: rim} | tips


FAMILIES: dict[str, Callable[..., Parts]] = {
    build.__name__[1:]: build
    for build in (_mug, _vase, _teapot, _lamp, _duck, _fish, _mushroom, _rocket)
}
SIDEWAYS = ("duck", "fish")  # their texture is projected along z, not wrapped around y


def _edge(t: Array) -> Array:
    return np.clip(0.5 + 5 * t, 0, 1)


def _dots(u: Array, v: Array) -> Array:
    u, v = u * 5 / np.pi, v * 8 / np.pi
    return _edge(1.5 - 4.5 * _norm(u % 1 - 0.5, (v + 0.5 * (u // 1)) % 1 - 0.5))


# (u around, one turn is 2*pi; v up) -> weight of the accent colour in [0,1]
TEXTURES: dict[str, Callable[[Array, Array], Array]] = {
    "plain": lambda u, v: 0 * u,
    "bands": lambda u, v: _edge(np.sin(9 * v)),
    "dots": _dots,
    "swirl": lambda u, v: _edge(np.sin(5 * u + 4 * v)),
    "checks": lambda u, v: _edge(4 * np.sin(5 * u) * np.sin(7 * v)),
    "glaze": lambda u, v: _edge(0.6 * v + 0.06 * np.sin(5 * u) + 0.04 * np.sin(11 * u)),
}
# hue, saturation, value of the body and of the accent
PALETTES: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
    ((0.00, 0.80, 0.85), (0.12, 0.15, 0.98)),
    ((0.60, 0.75, 0.75), (0.14, 0.70, 0.98)),
    ((0.13, 0.80, 0.98), (0.03, 0.80, 0.80)),
    ((0.47, 0.65, 0.65), (0.08, 0.10, 0.98)),
    ((0.10, 0.08, 0.97), (0.62, 0.80, 0.60)),
    ((0.90, 0.50, 0.95), (0.78, 0.60, 0.45)),
    ((0.07, 0.85, 0.95), (0.50, 0.50, 0.35)),
    ((0.75, 0.50, 0.60), (0.15, 0.60, 0.98)),
    ((0.30, 0.60, 0.60), (0.17, 0.30, 0.98)),
    ((0.62, 0.50, 0.25), (0.05, 0.70, 0.98)),
)
FIXED = ((0.6, 0.3, 0.08), (0.11, 0.14, 0.96), (0.07, 0.9, 0.98))  # DARK, CREAM, WARM
MOST = 20 * len(FAMILIES)  # with more, texture and palette of a family would come back together


class Toy(NamedTuple):
    """One class: a family with three shape numbers, a texture and a palette."""

    name: str
    family: str
    shape: tuple[float, float, float]
    texture: str
    palette: int

    def parts(self, p: Array) -> Parts:
        """Distances by tone at points (3,N)."""
        return FAMILIES[self.family](*p, *self.shape)

    def distance(self, p: Array) -> Array:
        """Signed distance (N,) to the whole thing at points (3,N)."""
        return np.minimum.reduce(list(self.parts(p).values()))


def _toy(seed: int, family: str, variant: int) -> Toy:
    """Variants 2i and 2i+1 share a palette, so that colour alone does not tell classes apart."""
    rng, textures = stream(seed, "family", family), list(TEXTURES)
    shape = (rng.random(3) + variant * np.array([0.618, 0.445, 0.755])) % 1  # evenly spread
    texture = textures[(int(rng.integers(60)) + variant) % len(textures)]
    palette = (int(rng.integers(60)) + 3 * (variant // 2)) % len(PALETTES)
    return Toy(f"{family}_{variant}", family, tuple(shape.tolist()), texture, palette)


def draw_toys(seed: int, count: int) -> list[Toy]:
    """The first `count` classes: all families in shuffled order, then again as next variants."""
    if not 1 <= count <= MOST:
        raise StudyError(f"{count} classes were asked for; the renderer has 1 to {MOST}")
    rows = range(-(-count // len(FAMILIES)))
    turns = [(f, r) for r in rows for f in stream(seed, "toys", r).permutation([*FAMILIES])]
    return [_toy(seed, str(family), variant) for family, variant in turns[:count]]


def draw_habitats(seed: int, count: int) -> list[Place]:
    """The place of every class; kinds are shuffled like families, but independently of them."""
    rows = range(-(-count // len(HABITATS)))
    kinds = [k for r in rows for k in stream(seed, "kinds", r).permutation([*HABITATS])]
    return [draw_place(k, stream(seed, "habitat", i)) for i, k in enumerate(kinds[:count])]


# ---- from a toy to pixels ----


def _turn(yaw: float, pitch: float, roll: float) -> Array:
    """Rotation (3,3) from the thing's axes to the camera's."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(t), np.sin(t)) for t in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_z @ about_x @ about_y).astype(np.float32)


def trace(toy: Toy, turn: Array, x: Array, y: Array, steps: int = 48) -> tuple[Array, Array]:
    """Follow parallel rays through screen points x, y (N,); returns hit (N,) and points (3,N)."""
    start = turn.T @ np.stack([x, y, np.full_like(x, 1.7)])
    depth, last, alive = np.zeros_like(x), np.zeros_like(x), np.arange(len(x))
    for _ in range(steps):
        gap = toy.distance(start[:, alive] - turn[2][:, None] * depth[alive])
        depth[alive] += 0.85 * gap
        last[alive] = gap
        alive = alive[(gap > 0.004) & (depth[alive] < 3.4)]
        if not len(alive):
            break
    return (last < 0.012) & (depth < 3.4), start - turn[2][:, None] * depth


def _colours(toy: Toy, p: Array, rng: np.random.Generator) -> Array:
    """Unlit colours (N,3) of points (3,N), with a small jitter for every image."""
    shift = rng.normal(0, (0.008, 0.04, 0.04))
    base, accent = (hsv(*(np.array(c) + shift)) for c in PALETTES[toy.palette])
    u = 1.3 * p[0] if toy.family in SIDEWAYS else np.arctan2(p[2], p[0])
    body = mix(base, accent, TEXTURES[toy.texture](u, p[1]))
    parts = toy.parts(p)
    tone = np.array(list(parts))[np.argmin(list(parts.values()), axis=0)]
    table = np.stack([base, accent, *(hsv(*c) for c in FIXED)])
    return np.where((tone == BODY)[:, None], body, table[tone])


def _shade(toy: Toy, turn: Array, p: Array, rng: np.random.Generator) -> Array:
    """Lit colours (N,3) of surface points (3,N): seeded light, sky, gloss, soft occlusion."""
    tips = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    normal = sum(t[:, None] * toy.distance(p + 0.008 * t[:, None]) for t in tips)
    normal /= np.linalg.norm(normal, axis=0) + 1e-9
    free = np.clip(toy.distance(p + 0.16 * normal) / 0.16, 0, 1) * 0.6 + 0.4
    light = np.array([rng.uniform(-0.9, 0.9), rng.uniform(0.5, 1.0), rng.uniform(0.5, 0.9)])
    sun, eye = turn.T @ (light / np.linalg.norm(light)), turn[2]
    half = (sun + eye) / np.linalg.norm(sun + eye)
    sky, diffuse = 0.5 + 0.5 * turn[1] @ normal, np.clip(0.15 + 0.85 * sun @ normal, 0, 1)
    gloss = 0.55 * np.clip(half @ normal, 0, 1) ** 50
    rim = 0.18 * (1 - np.clip(eye @ normal, 0, 1)) ** 3
    colour = _colours(toy, p, rng) * (0.75 * diffuse + (0.18 + 0.27 * sky) * free)[:, None]
    return np.clip(colour + ((gloss + rim) * free)[:, None], 0, 1)


def _frame(toy: Toy, turn: Array, rng: np.random.Generator, height: int, width: int):
    """Zoom and centre from a coarse silhouette (which is returned too): 20-40 % of the area."""
    grid = np.linspace(-1.6, 1.6, 48, dtype=np.float32)
    x, y = (g.ravel() for g in np.meshgrid(grid, grid))
    hit, _ = trace(toy, turn, x, y, steps=24)
    x, y, area = x[hit], y[hit], hit.sum() * (grid[1] - grid[0]) ** 2
    wide, tall = np.ptp(x) + 0.07, np.ptp(y) + 0.07
    room = 0.95 * min(min(height, width) / wide, height / tall)
    zoom = min(np.sqrt(rng.uniform(0.2, 0.4) * height * width / area), room * rng.uniform(0.9, 1))
    aside = (width / zoom - wide) * rng.uniform(-0.2, 0.2)
    above = (height / zoom - tall) * rng.uniform(0, 0.42)
    at = (x.max() + x.min()) / 2 + aside, (y.max() + y.min()) / 2 + above
    return float(zoom), (float(at[0]), float(at[1])), hit.reshape(48, 48)


def _near(silhouette: Array, x: Array, y: Array) -> Array:
    """Which screen points lie within a cell of the coarse silhouette."""
    wide = np.pad(silhouette, 2)
    wide = np.any([np.roll(wide, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    row, column = (np.clip(np.rint((t + 1.6) / 3.2 * 47) + 2, 0, 51).astype(int) for t in (y, x))
    return wide[row, column]


def draw_toy(toy: Toy, rng: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    """One toy on nothing: colours (H,W,3) in [0,1] and its coverage (H,W) in {0, 1/4 ... 1}."""
    turn = _turn(rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.45), rng.normal(0, 0.1))
    zoom, at, silhouette = _frame(toy, turn, rng, height, width)
    y, x = np.mgrid[: 2 * height, : 2 * width].astype(np.float32) + 0.5
    x, y = (x / 2 - width / 2) / zoom + at[0], (height / 2 - y / 2) / zoom + at[1]
    near = _near(silhouette, x, y)
    hit, points = trace(toy, turn, x[near], y[near])
    near[near] = hit
    colours = np.zeros((*near.shape, 3), np.float32)
    colours[near] = _shade(toy, turn, points[:, hit], rng)
    cover = near.reshape(height, 2, width, 2).mean((1, 3), dtype=np.float32)
    colours = colours.reshape(height, 2, width, 2, 3).mean((1, 3))
    return colours / np.maximum(cover, 0.25)[..., None], cover


def _shadow(cover: Array) -> Array:
    """Soft dark patch (H,W) in [0,1] on the ground where the thing stands."""
    rows, columns = np.nonzero(cover > 0.5)
    tall, foot = np.ptp(rows), columns[rows >= rows.max() - 0.12 * np.ptp(rows)]
    y, x = np.mgrid[: cover.shape[0], : cover.shape[1]]
    reach = 0.25 * np.ptp(columns) + 0.5 * np.ptp(foot) + 4
    away = np.hypot((x - foot.mean()) / reach, (y - rows.max() + 0.04 * tall) / (0.3 * reach))
    return 0.6 * np.clip(1.25 - away, 0, 1) ** 0.8


def size_of(rng: np.random.Generator, side: int) -> tuple[int, int]:
    """Height and width: three in four pictures are landscape 4:3, the others portrait 3:4."""
    long = round(side * 4 / 3)
    return (side, long) if rng.random() < 0.75 else (long, side)


def picture(toy: Toy, place: Place, rng: np.random.Generator, side: int) -> tuple[Array, Array]:
    """One photograph: RGB (H,W,3) and its exact soft mask (H,W), uint8; short side = `side`."""
    height, width = size_of(rng, side)
    colours, cover = draw_toy(toy, rng, height, width)
    scene = view(place, rng, height, width) * (1 - _shadow(cover))[..., None]
    mask = np.round(cover * 255).astype(np.uint8)
    whole = mix(scene, colours, mask / np.float32(255)) + rng.normal(0, 0.01, scene.shape)
    return np.round(np.clip(whole, 0, 1) * 255).astype(np.uint8), mask
