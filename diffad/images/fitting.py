"""From standardised images to a prior with calibrated bands: what `ImageImputer` stands on.

Held-out images are hidden, averaged and made noisy in the ways users do, predicted by a prior that has
not seen them, and the errors' quantiles become bands (:mod:`diffad.calibration`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_opening
from torch import Tensor

from diffad.augmentation import Augmentation
from diffad.calibration import Bands
from diffad.images import tiles
from diffad.images.diffusion import ImageDiffusion
from diffad.images.folds import fold_of
from diffad.images.prior import FOLDS, ImagePrior
from diffad.images.tiles import Observed, sample

#: Hidden pixels have bands by what the seen ones leave of their spread, up to each of these shares,
LEFT = (0.25, 0.5, 0.75, 0.95, np.inf)
#: and by whether they are scattered or lie in a hole: a square of so many hidden pixels a side.
HOLE = 3
#: Factors of averages that have bands of their own; others go by the nearest.
FACTORS = (2, 4, 8)
#: Kinds of bands: scattered pixels, those in holes, averages, noise.
AVERAGES = 2 * len(LEFT)
NOISE = AVERAGES + len(FACTORS)
KINDS = NOISE + 1
#: Most held-out images of a fold that calibrate, and how many share a mask.
HELD_OUT, PER_MASK = 64, 32
#: Of the calibration: shares of missing pixels and sides of boxes (in sides of an image), from and to, and noise
#: levels.
SHARES, BOXES, LEVELS = (0.05, 0.95), ((0.1, 0.3), (0.3, 0.6), (0.6, 0.9)), (0.3, 0.6, 1.2)


def fit_prior(
    images: Tensor, kind: str | None, device: torch.device, augmentation: Augmentation | None = None
) -> ImagePrior:
    """Fit a prior to standardised images (n, height, width, channels), NaN = missing, and to copies of them."""
    return ImagePrior.fit(complete_images(images, device), kind, device, augmentation)


def complete_images(images: Tensor, device: torch.device) -> Tensor:
    """Fill missing pixels by a draw from the stationary prior: the spread of the images stays what it is."""
    missing = images.isnan().flatten(1).any(1).nonzero()[:, 0].tolist()
    if not missing:
        return images
    field, result = ImagePrior.fit(images, "field", device), images.clone()
    for i in missing:
        result[i] = sample(field, Observed(images[i : i + 1]), 1, torch.Generator().manual_seed(i))[0].to(images)
    return result


def kinds_of(prior: ImagePrior, observed: Observed, scale: Tensor) -> NDArray[np.int64]:
    """Return the kind, up to `KINDS`, of every pixel of the images behind, given its posterior deviation (n, h, w, c)."""
    if observed.factor > 1:
        nearest = int(np.abs(np.log(np.array(FACTORS) / observed.factor)).argmin())
        return np.full(scale.shape, AVERAGES + nearest)
    if observed.noise is not None:
        return np.full(scale.shape, NOISE)
    left = np.searchsorted(LEFT[:-1], (scale / prior.spread(*observed.shape[:2])).numpy())
    in_hole = binary_opening(np.isnan(observed.values.numpy()), np.ones((1, HOLE, HOLE, 1)))
    return left + len(LEFT) * in_hole


def calibrate(
    model: ImageDiffusion, images: Tensor, kind: str | None, seed: int, augmentation: Augmentation | None = None
) -> Bands:
    """Learn bands from images that a prior fitted to the others predicts, with the model's network on top.

    Fewer than 8 images leave Gaussian bands.
    """
    channels = images.shape[3]
    if len(images) < 8:
        return Bands.gaussian(KINDS, channels)
    # Images differ more than pixels do: every fold has its turn, and bands widen where folds disagree.  A network
    # has seen all but the first (:mod:`diffad.images.learning`).
    turns = range(FOLDS) if model.network is None else [0]
    fold = torch.from_numpy(fold_of(len(images), FOLDS))
    parts = []
    for f in turns:
        others = fit_prior(images[fold != f], kind, model.prior.device, augmentation)
        parts.append(_errors(model, others, _spread_out(images[fold == f]), seed + f))
    z, label, channel = (np.concatenate(column) for column in zip(*parts, strict=True))
    group = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    return Bands.fit(z, label, channel, (KINDS, channels), group)


def _spread_out(images: Tensor) -> Tensor:
    """Return at most `HELD_OUT` images from all over: neighbours in a folder are alike."""
    n = len(images)
    return images[torch.linspace(0, n - 1, min(n, HELD_OUT)).round().long()]


def _errors(
    model: ImageDiffusion, others: ImagePrior, images: Tensor, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return errors on images of a prior fitted to others, and the kind and channel of each.

    They are in units of the spread that the model itself claims: with more images it claims less.
    """
    held = ImageDiffusion(others, model.network, model.gate)
    found = []
    for truth, observed in tasks(images, seed):
        centre, _ = held.mean(observed)
        _, scale = tiles.mean(model.prior, observed, with_scale=True)
        assert scale is not None
        where = ((scale > 0) & ~truth.isnan()).numpy()
        z = ((truth - centre) / scale.clamp(min=1e-9)).numpy()[where]
        channel = np.broadcast_to(np.arange(where.shape[-1]), where.shape)[where]
        found.append((z, kinds_of(model.prior, observed, scale)[where], channel))
    z, label, channel = (np.concatenate(column) for column in zip(*found, strict=True))
    return z, label, channel


def tasks(images: Tensor, seed: int) -> Iterator[tuple[Tensor, Observed]]:
    """Yield images and how they are observed, in all the ways that are calibrated."""
    rng = np.random.default_rng(seed)
    _, height, width, channels = images.shape
    for part in images.split(PER_MASK):
        masks = [points_mask(rng, height, width, rng.uniform(*SHARES))]
        masks += [box_mask(rng, height, width, rng.uniform(*side)) for side in BOXES]
        for mask in masks:
            yield part, Observed(torch.where(torch.from_numpy(mask)[..., None], torch.nan, part))
    yield images, Observed(torch.full_like(images, torch.nan))
    for factor in FACTORS:
        if height % factor == 0 and width % factor == 0:
            yield images, Observed(Observed(images, factor).of(images), factor)
    for level in LEVELS:
        noise = torch.from_numpy(rng.standard_normal(images.shape)).to(images)
        yield images, Observed(images + level * noise, 1, torch.full((channels,), level))


def points_mask(rng: np.random.Generator, height: int, width: int, share: float) -> NDArray[np.bool_]:
    """Hide a share of the pixels at random, True = hidden."""
    return rng.random((height, width)) < share


def box_mask(rng: np.random.Generator, height: int, width: int, share: float) -> NDArray[np.bool_]:
    """Hide a box whose sides are a share of the image's, True = hidden."""
    mask = np.zeros((height, width), bool)
    rows, columns = max(1, int(share * height)), max(1, int(share * width))
    y, x = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    mask[y : y + rows, x : x + columns] = True
    return mask
