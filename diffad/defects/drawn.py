"""Defects to test and to train with: what damages look like, drawn into good images, with masks.

The kinds are few and general on purpose: whatever is chosen or learnt on them has to carry over to
damages nobody drew.  Texture swaps follow CutPaste (Li et al. 2021), irregular regions of random
fields DRAEM (Zavrtanik et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label
from scipy.special import expit

Images = NDArray[np.floating]
Mask = NDArray[np.float32]

#: Smallest part of full coverage that counts as defective.
COVERED = 0.3


def _grid(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return y.astype(float), x.astype(float)


def _line(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """A thin bent line."""
    side = min(shape)
    length, width = side * np.exp(rng.uniform(np.log(0.15), np.log(0.9))), rng.uniform(0.4, 1.3)
    turn, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.8) / length
    t = np.linspace(-0.5, 0.5, 2 * int(length) + 3) * length
    angle = turn + bend * t
    y = np.cumsum(np.sin(angle)) * (t[1] - t[0])
    x = np.cumsum(np.cos(angle)) * (t[1] - t[0])
    middle = len(t) // 2
    y, x = y - y[middle] + rng.uniform(0, shape[0]), x - x[middle] + rng.uniform(0, shape[1])
    drawn = np.zeros(shape)
    inside = (y >= 0) & (y <= shape[0] - 1) & (x >= 0) & (x <= shape[1] - 1)
    drawn[np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)] = 1
    soft = gaussian_filter(drawn, width)
    return (soft / max(soft.max(), 1e-9)).astype(np.float32)


def _spot(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """A small ellipse with a soft edge."""
    y, x = _grid(shape)
    radius = max(1.0, min(shape) * np.exp(rng.uniform(np.log(0.015), np.log(0.12))))
    turn, ratio = rng.uniform(0, np.pi), np.exp(rng.uniform(-0.7, 0.7))
    dy, dx = y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    distance = np.sqrt((u / ratio) ** 2 + (v * ratio) ** 2)
    return np.asarray(expit((radius - distance) / 0.35), np.float32)


def _region(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """An irregular region, small or large."""
    side = min(shape)
    width = side * np.exp(rng.uniform(np.log(0.02), np.log(0.2)))
    field = gaussian_filter(rng.standard_normal(shape), width, mode="reflect")
    parts, n = label(field > np.quantile(field, rng.uniform(0.75, 0.95)))
    if not n:  # a single pixel is not above itself
        return np.zeros(shape, np.float32)
    chosen = parts == rng.integers(1, n + 1)
    soft = gaussian_filter(chosen.astype(float), rng.uniform(0.4, 1.2))
    return (soft / max(soft.max(), 1e-9)).astype(np.float32)


def _wide(shape: tuple[int, int], rng: np.random.Generator) -> Mask:
    """A wide smooth hill, or one side of the image."""
    y, x = _grid(shape)
    side = min(shape)
    dy, dx = y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1])
    width = side * rng.uniform(0.1, 0.4)
    if rng.random() < 0.5:
        return np.exp(-(dy**2 + dx**2) / (2 * width**2)).astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    return (1 / (1 + np.exp((dy * np.sin(turn) + dx * np.cos(turn)) / (0.3 * width)))).astype(np.float32)


def _offset(rng: np.random.Generator, spread: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Return a brightness step per channel: mostly the same in all, sometimes a colour."""
    size = np.exp(rng.uniform(np.log(low), np.log(high))) * rng.choice([-1, 1])
    colour = np.ones(len(spread)) if rng.random() < 0.5 else rng.standard_normal(len(spread))
    return (size * spread * colour / max(np.abs(colour).max(), 1e-9)).astype(np.float32)


Paint = Callable[[Images, Images, Mask, NDArray[np.float32], np.random.Generator], Images]


def _add(low: float, high: float) -> Paint:
    def paint(
        image: Images, other: Images, mask: Mask, spread: NDArray[np.float32], rng: np.random.Generator
    ) -> Images:
        return image + mask[..., None] * _offset(rng, spread, low, high)

    return paint


def _swap(image: Images, other: Images, mask: Mask, spread: NDArray[np.float32], rng: np.random.Generator) -> Images:
    """Another image's texture, in a level and contrast of its own."""
    shifted = np.roll(other, rng.integers(0, min(other.shape[:2]), 2), (0, 1))
    inside = mask > COVERED
    level = np.nanmean(image[inside], 0) if inside.any() else np.nanmean(image, (0, 1))
    own = np.nanmean(shifted[inside], 0) if inside.any() else np.nanmean(shifted, (0, 1))
    gain = np.exp(rng.normal(0, 0.5))
    new = level + gain * (shifted - own) + _offset(rng, spread, 0.3, 2.0)
    return np.asarray(image + mask[..., None] * (new - image))


def _texture(image: Images, other: Images, mask: Mask, spread: NDArray[np.float32], rng: np.random.Generator) -> Images:
    """The image's own texture flattened, or too strong, with a little offset."""
    width = rng.uniform(1, 3)
    smooth = gaussian_filter(np.where(np.isnan(image), np.nanmean(image), image), (width, width, 0))
    gain = rng.choice([rng.uniform(0, 0.4), rng.uniform(2, 4)])
    return np.asarray(image + mask[..., None] * ((gain - 1) * (image - smooth) + _offset(rng, spread, 0.2, 1.0)))


#: Kind of defect: where it is, and what it does there.
KINDS: dict[str, tuple[Callable[[tuple[int, int], np.random.Generator], Mask], Paint]] = {
    "scratch": (_line, _add(0.5, 3.0)),
    "hole": (_spot, _add(0.5, 4.0)),
    "stain": (_region, _add(0.3, 3.0)),
    "shading": (_wide, _add(0.5, 2.0)),
    "swap": (_region, _swap),
    "texture": (_region, _texture),
}


def draw_defects(
    images: Images, rng: np.random.Generator, kinds: Sequence[str] = tuple(KINDS), pool: Images | None = None
) -> tuple[Images, NDArray[np.bool_], NDArray[np.str_]]:
    """Put one random defect into each image.

    Parameters
    ----------
    images : array (n, height, width, channels)
        Good images; NaN stays NaN.
    rng : Generator
    kinds : sequence of str
        Of `KINDS`, equally often.
    pool : array (m, height, width, channels), optional
        Good images to take foreign texture from; None takes `images`.

    Returns
    -------
    images : array (n, height, width, channels)
    mask : array of bool (n, height, width)
    kind : array of str (n,)

    Examples
    --------
    >>> good = np.random.default_rng(0).random((4, 32, 32, 1)).astype("float32")
    >>> bad, mask, kind = draw_defects(good, np.random.default_rng(1), ["hole"])
    >>> bool(np.abs(bad - good)[~mask].mean() < np.abs(bad - good)[mask].mean()), kind.tolist()
    (True, ['hole', 'hole', 'hole', 'hole'])
    """
    pool = images if pool is None else pool
    bad, covered = np.empty_like(images), np.zeros(images.shape[:3], bool)
    chosen = rng.choice(list(kinds), len(images))
    for i, image in enumerate(images):
        where, paint = KINDS[str(chosen[i])]
        mask = where(image.shape[:2], rng)
        # Single precision does not hold the squares of 1e20.
        spread = np.nanstd(image.astype(np.float64), (0, 1))
        spread = spread + 1e-6 * (spread.max() or 1.0)
        bad[i] = paint(image, pool[rng.integers(len(pool))], mask, spread, rng)
        covered[i] = mask > COVERED
    return bad, covered, chosen
