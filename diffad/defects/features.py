"""Evidence that a place in an image is not normal, in the maps of a feature extractor.

The prior on the maps is `diffad.priors.maps`; scores are cross-fitted as those of the pixels are, so
that both can be combined as minus log probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from diffad.defects.evidence import FOLDS, SMOOTH, Images, blur, relative_to_texture, top
from diffad.images.folds import fold_of
from diffad.priors.maps import MapPrior

Features = Callable[[Tensor], Any]

#: Features kept, drawn once for all, where an extractor gives more (PaDiM does the same).
MOST_FEATURES = 100
#: Images that pass through the extractor at once; every batch is padded to it, for equal bits.
BATCH = 16


#: Mean distance of good images that is rounding: all have the same features.
NO_DISTANCE = 1e-6


@dataclass(frozen=True)
class FeatureModel:
    """An extractor, what its maps are for good images, and how large their map is.

    Attributes
    ----------
    features : callable
    prior : MapPrior
    grid : tuple of int
        Height and width of the maps.
    level : float
        Mean distance of good images.
    """

    features: Features
    prior: MapPrior
    grid: tuple[int, int]
    level: float

    def distance(self, images: Images) -> Images:
        """Return squared distances per feature, (n, height, width) of the images."""
        maps, _ = extract(self.features, images, self.prior.mean.device)
        return _spread_out(self.prior.distance(maps), self.grid, images.shape[1:3])

    def heat(self, images: Images) -> Images:
        """Return heat maps (n, height, width), about 1 on average over good images."""
        return self.distance(images) / self.level


def fit_features(
    features: Features, images: Images, seen: NDArray[np.bool_], device: torch.device
) -> tuple[FeatureModel, NDArray[np.float64]]:
    """Fit to complete good images and score each by a prior that has not seen it."""
    maps, grid = extract(features, images, device)
    fold, distance = fold_of(len(images), FOLDS), np.empty(images.shape[:3], np.float32)
    for f in np.unique(fold):
        inside = torch.from_numpy(fold == f).to(device)
        of_fold = MapPrior.fit(maps[~inside]).distance(maps[inside])
        distance[fold == f] = _spread_out(of_fold, grid, images.shape[1:3])
    # Shrunk covariances, and features that hardly vary, make it anything but 1.
    level = float(distance[seen].mean(dtype=np.float64)) if seen.any() else 1.0
    return FeatureModel(features, MapPrior.fit(maps), grid, level if level > NO_DISTANCE else 1.0), feature_scores(
        distance, seen
    )


def feature_scores(distance: Images, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of the hottest pixels of each map, relative to the image's texture."""
    return top(relative_to_texture(np.where(seen, distance, 0), seen), seen)


def extract(features: Features, images: Images, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
    """Return maps of complete images (n, height, width, channels) as (n, positions, features), and their grid."""
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
    if x.shape[1] == 1 and _wants_colour(features):
        x = x.expand(-1, 3, -1, -1)
    parts, grid = [], (0, 0)
    with _evaluating(features, device):
        for part in x.split(BATCH):
            padded = torch.cat([part, part[-1:].expand(BATCH - len(part), -1, -1, -1)])
            joined = _joined(features(padded), BATCH)
            grid = (joined.shape[2], joined.shape[3])
            if not bool(torch.isfinite(joined).all()):
                raise ValueError(
                    "features gave maps with NaN or infinity; check what it makes of images of mean 0, deviation 1"
                )
            # Drawn here: all features of all images would be most of the memory of a fit.
            parts.append(joined[: len(part), _drawn(joined.shape[1])].to(device).flatten(2).mT)
    return torch.cat(parts), grid


def _drawn(n: int) -> Tensor:
    """Return which of n features are kept, the same at every call."""
    if n <= MOST_FEATURES:
        return torch.arange(n)
    return torch.from_numpy(np.sort(np.random.default_rng(0).choice(n, MOST_FEATURES, replace=False)))


@contextmanager
def _evaluating(features: Features, device: torch.device) -> Iterator[None]:
    """Put a module on the device and into evaluation; each of its parts goes back to what it did before."""
    if not isinstance(features, nn.Module):
        yield
        return
    training = [module for module in features.modules() if module.training]
    features.to(device).eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _joined(result: Any, n: int) -> Tensor:
    """Return one map (n, features, height, width) of several: all at the size of the finest."""
    several = [*result.values()] if isinstance(result, Mapping) else result
    several = several if isinstance(several, list | tuple) and len(several) else [several]
    try:
        maps = [torch.as_tensor(m) for m in several]
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"features must turn images into maps (n, features, height, width), a list or a dict of them; it made a "
            f"{type(result).__name__}"
        ) from None
    for m in maps:
        if m.ndim != 4 or len(m) != n or not m.numel():
            raise ValueError(
                f"features must turn images (n, channels, height, width) into maps (n, features, height, width), or "
                f"a list of them; of {n} images it made the shape {tuple(m.shape)}"
            )
    size = max((m.shape[2:] for m in maps), key=lambda s: s[0] * s[1])
    return torch.cat([functional.interpolate(m.float(), size, mode="nearest") for m in maps], 1)


def _wants_colour(features: Features) -> bool:
    if not isinstance(features, nn.Module):
        return False
    first = next((m for m in features.modules() if isinstance(m, nn.Conv2d)), None)
    return first is not None and first.in_channels == 3


def _spread_out(distance: Tensor, grid: tuple[int, int], size: tuple[int, ...]) -> Images:
    maps = distance.reshape(-1, 1, *grid)
    fine = functional.interpolate(maps, (size[0], size[1]), mode="bilinear", align_corners=False)
    return blur(fine.permute(0, 2, 3, 1).cpu().numpy(), SMOOTH)[..., 0]
