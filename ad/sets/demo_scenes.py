"""What the demo's photographs are of: functions of warped coordinates, and their defects.

Every scene takes rng, flaw (two random streams: of what is normal, and of the defect), coordinates
y and x (H, W) in pixels from the centre, and a defect's name or None; it gives (H, W, 3) in [0, 1].
"""

import numpy as np
from numpy import ndarray
from numpy.random import Generator

# The tablet's mark, L and 7: strokes (y0, x0, y1, x1) in pixels from its centre.
MARK = ((-22, -56, 22, -56), (22, -56, 22, -30)), ((-22, 28, -22, 56), (-22, 56, 22, 38))


def ramp(start: float, end: float, value: ndarray) -> ndarray:
    """Smooth step from 0 at `start` to 1 at `end`, which may be the smaller of the two."""
    t = np.clip((value - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def noise(rng: Generator, y: ndarray, x: ndarray, height: float, width: float) -> ndarray:
    """Smooth noise in [-1, 1] at (y, x), with a grain of height x width pixels."""
    table = np.pad(rng.uniform(-1, 1, (64, 64)), (0, 2), mode="wrap")
    y, x = y / height % 64, x / width % 64
    row, column = y.astype(int), x.astype(int)
    ty, tx = ramp(0, 1, y - row), ramp(0, 1, x - column)
    upper = table[row, column] * (1 - tx) + table[row, column + 1] * tx
    lower = table[row + 1, column] * (1 - tx) + table[row + 1, column + 1] * tx
    return upper * (1 - ty) + lower * ty


def distance(y: ndarray, x: ndarray, y0: float, x0: float, y1: float, x1: float) -> ndarray:
    """Distance in pixels from every (y, x) to the line from (y0, x0) to (y1, x1)."""
    dy, dx = y1 - y0, x1 - x0
    t = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx + 1e-9), 0, 1)
    return np.hypot(y - y0 - t * dy, x - x0 - t * dx)


def rough_distance(rng: Generator, y: ndarray, x: ndarray, start: ndarray | list,
                   length: float = 0, heading: float = 0) -> ndarray:
    """The same to a crooked, frayed line from `start`; to the middle of a blob if length is 0."""
    end = start + length * np.array([np.sin(heading), np.cos(heading)])
    y, x = y + 5 * noise(rng, y, x, 14, 14), x + 5 * noise(rng, y, x, 14, 14)
    return distance(y, x, *start, *end) + 0.7 * noise(rng, y, x, 4, 4)


def blend(scene: ndarray, colour: ndarray | list, cover: ndarray) -> ndarray:
    """Lay `colour` over the scene (H, W, 3) where `cover` (H, W) is 1."""
    return scene + cover[..., None] * (colour - scene)


def carpet(rng: Generator, flaw: Generator, y: ndarray, x: ndarray, defect: str | None) -> ndarray:
    """Plain weave of a dark and a light yarn, 8 pixels a thread, every thread dyed differently."""
    v, u = ((c + 1.5 * noise(rng, y, x, 40, 40)) / 8 + rng.uniform(0, 64) for c in (y, x))
    row, column = np.floor(v).astype(int), np.floor(u).astype(int)
    dv, du = np.cos(np.pi * (v - row - 0.5)), np.cos(np.pi * (u - column - 0.5))
    warp_up = (row + column) % 2 == 0
    shade = np.where(warp_up, du**0.7 * (0.55 + 0.45 * dv), dv**0.7 * (0.55 + 0.45 * du))
    fibre = np.where(warp_up, noise(rng, y, x, 5, 1.2), noise(rng, y, x, 1.2, 5))
    dye = rng.normal(1, 0.02, (2, 128, 3)) * rng.normal(1, 0.07, (2, 128, 1))
    warp, weft = dye * [[[0.38, 0.42, 0.48]], [[0.64, 0.60, 0.54]]]
    yarn = np.where(warp_up[..., None], warp[column % 128], weft[row % 128])
    scene = yarn * (0.3 + 0.75 * shade + 0.16 * fibre)[..., None]
    if defect is None:
        return scene
    centre, pale, heading = flaw.uniform(-75, 75, 2), flaw.random() < 0.5, flaw.uniform(0, 6.3)
    if defect == "stain":  # like the other defects lighter than the carpet, or darker
        soaked = ramp(1.05, 0.7, rough_distance(flaw, y, x, centre) / flaw.uniform(13, 26))
        return blend(scene, scene * ([1.6, 1.5, 1.3] if pale else [0.65, 0.55, 0.5]), soaked)
    line = rough_distance(flaw, y, x, centre, flaw.uniform(40, 75), heading)
    if defect == "cut":  # the backing shows
        return blend(scene, [0.74, 0.71, 0.64] if pale else [0.06, 0.05, 0.05], ramp(3, 1.5, line))
    yarn = (1 - 0.06 * line**2)[..., None] * ([0.86, 0.8, 0.7] if pale else [0.15, 0.15, 0.22])
    return blend(scene * ramp(-3, 6, line)[..., None], yarn, ramp(2.8, 1.6, line))  # its shadow


def grid(rng: Generator, flaw: Generator, y: ndarray, x: ndarray, defect: str | None) -> ndarray:
    """Woven wire mesh seen along its diagonal, in front of a dark sheet."""
    centre, k, heading = flaw.uniform(-75, 75, 2), flaw.integers(2), flaw.uniform(0, 6.3)
    sheet = 0.17 + 0.03 * noise(rng, y, x, 30, 30) + 0.02 * noise(rng, y, x, 2, 2)
    v, u = (c + 1.2 * noise(rng, y, x, 50, 50) + rng.uniform(0, 512) for c in (y, x))
    far = distance(y, x, *centre, *centre)
    if defect == "bent":
        push = flaw.uniform(7, 10) * np.exp(-((far / flaw.uniform(13, 18)) ** 2))
        v, u = v + np.sin(heading) * push, u + np.cos(heading) * push
    along = np.stack([u - v, u + v]) / 2**0.5 / 24  # in wire spacings
    across = along[::-1] - np.floor(along[::-1]) - 0.5
    cover = ramp(0.18, 0.14, np.abs(across))
    if defect == "broken":
        same_wire = np.floor(along[1 - k]) == np.floor(along[1 - k].flat[far.argmin()])
        gap = np.abs(along[k] - along[k].flat[far.argmin()]) + 0.04 * noise(flaw, y, x, 3, 3)
        cover[k] *= 1 - same_wire * ramp(0.04, -0.04, gap - flaw.uniform(0.6, 0.9))
    light = 0.32 + 0.25 * ramp(0.18, 0, np.abs(across)) + 0.3 * np.exp(-((across + 0.05) * 25) ** 2)
    first_up, scene = np.floor(along).sum(0) % 2 == 0, sheet[..., None] * np.ones(3)
    for wire, on in ((0, ~first_up), (1, first_up), (0, first_up), (1, ~first_up)):  # lower first
        scene = blend(scene, light[wire][..., None] * [1, 0.98, 0.94], cover[wire] * on)
    if defect == "glue":
        drop = rough_distance(flaw, y, x, centre) / flaw.uniform(10, 18)
        tint = np.array([[0.66, 0.63, 0.52], [0.32, 0.20, 0.08]])[k]  # pale or dark, and it shines
        return blend(scene, tint + 0.4 * ramp(0.4, 0, drop)[..., None], 0.75 * ramp(1, 0.8, drop))
    return scene


def tablet(rng: Generator, flaw: Generator, y: ndarray, x: ndarray, defect: str | None) -> ndarray:
    """A caplet with a bevelled rim, a score line and a printed mark, on a dark belt."""
    belt = 0.22 + 0.03 * noise(rng, y, x, 2, 2) + 0.02 * noise(rng, y, x, 35, 35)
    belt *= ramp(34, 66, distance(y - 5, x - 4, 0, -40, 0, 40))  # the tablet's shadow
    rim = distance(y, x, 0, -40, 0, 40) - 54 + 0.6 * noise(rng, y, x, 25, 25)  # < 0 on the tablet
    glyphs, k, heading = list(np.array(MARK)), flaw.integers(2), flaw.uniform(0, 6.3)
    lost, toward = flaw.random() < 0.5, np.array([np.sin(heading), np.cos(heading)])
    edge = 54 * toward + [0, 40 * np.sign(toward[1])]  # a point of the outline
    if defect == "chip":
        rim = np.maximum(rim, flaw.uniform(11, 19) - rough_distance(flaw, y, x, edge))
    if defect == "print":  # a stroke is missing, or a whole sign is out of place
        glyphs[k] = glyphs[k][1:] if lost else glyphs[k] + flaw.uniform(7, 10) * np.tile(toward, 2)
    facing = -0.7 * (y + x - np.clip(x, -40, 40)) / (rim + 60)  # the lamp is at the upper left
    light = 0.8 + 0.14 * ramp(-16, 0, rim) * facing - 0.18 * ramp(-16, 0, rim) ** 3
    light += 0.06 * np.exp(-(((x - 3) / 1.5) ** 2)) - 0.25 * np.exp(-((x / 2) ** 2))
    coat = (light + 0.03 * noise(rng, y, x, 2.5, 2.5))[..., None] * [1, 0.95, 0.84]
    ink = np.min([distance(y, x, *stroke) for stroke in np.concatenate(glyphs)], 0)
    coat = blend(coat, [0.20, 0.26, 0.45], (0.85 + 0.1 * noise(rng, y, x, 4, 4)) * ramp(3, 2, ink))
    if defect == "crack":
        gape = rough_distance(flaw, y, x, edge, flaw.uniform(50, 85), np.arctan2(*-edge))
        coat = blend(coat, [0.25, 0.22, 0.18], 0.9 * ramp(2.4, 0.8, gape))
    return blend(belt[..., None] * [0.95, 1, 1.08], coat, ramp(0.9, -0.9, rim))


def bolt(rng: Generator, flaw: Generator, y: ndarray, x: ndarray, defect: str | None) -> ndarray:
    """A hexagon-head bolt, zinc-plated, on a plain tray; x runs along it, from head to point."""
    tray = 0.42 + 0.015 * noise(rng, y, x, 40, 40) + 0.008 * noise(rng, y, x, 2, 2)
    k, side = flaw.integers(2), flaw.choice([-1, 1])
    if defect == "bent":  # the front half leans to one side
        y = y + side * flaw.uniform(0.16, 0.28) * np.maximum(x - flaw.uniform(10, 25), 0)
    pitch = np.abs((x / 7 + 0.5) % 1 - 0.5) * 2  # a triangle wave, 7 pixels a turn
    turns = ramp(-12, -6, x)  # behind them the shank is plain
    if defect == "thread":  # stripped over two turns or more
        worn = np.abs(x - flaw.uniform(10, 55)) - flaw.uniform(7, 12)
        turns = turns * ramp(-2, 2, worn)
    half = 11 + turns * (3 * pitch - 1) - 9 * ramp(66, 80, x)  # it tapers to its point
    shank = np.maximum(np.abs(y) - half, np.abs(x - 20) - 60)
    head = np.maximum(np.abs(y) - 24 + 4 * ramp(-50, -66, x), np.abs(x + 53) - 13)
    if defect == "notch":  # out of the head, or out of the plain shank behind the thread
        at = np.array([[-48, 20], [-24, 8]])[k]
        hole = flaw.uniform(8, 11) - rough_distance(flaw, y, x, [side * at[1], at[0]])
        head, shank = np.maximum(head, hole), np.maximum(shank, hole)
    metal = 0.78 - 0.35 * (y / 14) ** 2 * (x > -40) + 0.6 * turns * (pitch - 0.7)
    facet = np.where(np.abs(y) < 11, 0.74, 0.52) + 0.08 * ramp(-62, -66, x)
    metal = np.where(x < -40, facet, metal) + 0.025 * noise(rng, y, x, 1.5, 6)
    inside = np.minimum(shank, head) + 0.4 * noise(rng, y, x, 20, 20)
    shadow = 1 - 0.3 * ramp(5, 0, inside)
    scene = (tray * shadow)[..., None] * [0.98, 1, 1.03]
    return blend(scene, metal[..., None] * [1, 0.99, 0.93], ramp(0.9, -0.9, inside))
