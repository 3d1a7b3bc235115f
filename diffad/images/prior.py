"""The Gaussian of images: what all training images span, and a stationary field for the rest.

Covariance of an image of the training size: ``a X'X / n + T``, with the centred training images as
rows of X and T the stationary covariance of what *other* images leave over of each (cross-fitted:
in-sample nothing would be left over); a is such that pixels vary as they do.  Images of another size
share no position with the training images; they have the stationary covariance of the images themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from diffad.augmentation import Augmentation, enlarged
from diffad.images.folds import fold_of
from diffad.priors.field import StationaryField, autocovariance
from diffad.priors.linear import LinearGaussian

#: Entries of an image up to which its covariance is dense; larger images are tiled.
DENSE_LIMIT = 4096
#: Entries of a tile of images of another size.
TILE_ENTRIES = 1600
#: Ridges tried for what training images explain of each other, in variances of a pixel.
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Part of the variance that no pixel tells of another: keeps every solve well posed.
NUGGET = 1e-5
FOLDS = 4


@dataclass(frozen=True)
class ImagePrior:
    """A Gaussian of standardised images.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the training images.
    mean : Tensor of shape (height * width * channels,)
    rows : Tensor of shape (n, height * width * channels)
        Centred training images over the root of their number, as far as others explain them; none for a stationary prior.
    rest : StationaryField
        What rows leave over.
    field : StationaryField
        The images themselves, wherever they lie.
    device : torch.device
    """

    shape: tuple[int, int, int]
    mean: Tensor
    rows: Tensor
    rest: StationaryField
    field: StationaryField
    device: torch.device

    @classmethod
    def fit(
        cls, images: Tensor, kind: str | None, device: torch.device, augmentation: Augmentation | None = None
    ) -> Self:
        """Fit to standardised images (n, height, width, channels); NaN = missing, except for ``"gaussian"``.

        Parameters
        ----------
        images : Tensor
        kind : {"gaussian", "field", None}
            None: independent pixels of variance 1.
        device : torch.device
        augmentation : Augmentation or None
            Copies that span as well.
        """
        _, height, width, channels = images.shape
        shape = (height, width, channels)
        if kind is None:
            lags = torch.zeros(channels, channels, 2 * height, 2 * width, dtype=torch.float64)
            lags[:, :, 0, 0] = torch.eye(channels)
            field = StationaryField.without_level(lags)
        else:
            field = StationaryField.of(images)
        nothing = torch.zeros(0, images[0].numel(), dtype=torch.float64)
        prior = cls(shape, torch.zeros(nothing.shape[1], dtype=torch.float64), nothing, field, field, device)
        if kind != "gaussian" or len(prior.mean) > DENSE_LIMIT or len(images) < 2:
            return prior
        flat = enlarged(images, augmentation).double().flatten(1)
        mean = flat.mean(0)
        rest = StationaryField.without_level(_left_over(images, augmentation))
        rows = (flat - mean) / len(flat) ** 0.5
        # What other images leave over is part of X'X / n, too, and must not count twice.
        left = float(rest.variance.mean() / rows.square().sum(0).mean().clamp(min=1e-12))
        return replace(prior, mean=mean, rows=max(0.0, 1 - left) ** 0.5 * rows, rest=rest)

    def whole_fits(self, height: int, width: int) -> bool:
        """Return whether images of this size are conditioned as a whole, because pixels know their place."""
        return len(self.rows) > 0 and (height, width) == self.shape[:2]

    @cached_property
    def whole(self) -> LinearGaussian:
        """The Gaussian of an image of the training size."""
        covariance = self.rest.covariance(*self.shape[:2]) + self.rows.T @ self.rows
        return self._gaussian(covariance, self.mean)

    def tile(self, height: int, width: int) -> LinearGaussian:
        """Return the Gaussian of a tile of any size, wherever it lies."""
        covariance = self.field.covariance(height, width)
        return self._gaussian(covariance, torch.zeros(len(covariance), dtype=torch.float64))

    def spread(self, height: int, width: int) -> Tensor:
        """Return the standard deviation (height, width, channels) of pixels of which nothing is known."""
        whole = self.whole_fits(height, width)
        field = self.rest if whole else self.field
        variance = (field.variance + self._nugget).expand(height, width, -1)
        return (variance + self.rows.square().sum(0).view(self.shape) if whole else variance).sqrt()

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw n deviations from the mean, (n, height, width, channels), float64, on the CPU."""
        whole = self.whole_fits(height, width)
        drawn = (self.rest if whole else self.field).sample(n, height, width, generator)
        if whole:
            weight = torch.randn(n, len(self.rows), generator=generator, dtype=torch.float64)
            drawn = drawn + (weight @ self.rows).view(drawn.shape)
        # The nugget is part of the covariance that everything else is computed with.
        return drawn + self._nugget**0.5 * torch.randn(drawn.shape, generator=generator, dtype=torch.float64)

    @property
    def _nugget(self) -> float:
        variance = float(self.field.variance.mean())
        return NUGGET * (variance or 1.0)

    def _gaussian(self, covariance: Tensor, mean: Tensor) -> LinearGaussian:
        covariance.diagonal().add_(self._nugget)
        return LinearGaussian(mean.to(self.device), covariance.to(self.device))

    def __getstate__(self) -> dict[str, Any]:
        # The factorisations are large and quick to make again.
        return {k: v for k, v in vars(self).items() if k != "whole"}


def _left_over(images: Tensor, augmentation: Augmentation | None) -> Tensor:
    """Return the autocovariance of what images of other folds, and their copies, leave over of images.

    With a rest of independent pixels of variance r beside the span, the rest of an image z has the
    posterior mean ``r P z`` and covariance ``r I - r^2 P``; both make up its second moment (one step
    of expectation-maximisation). r is the one that predicts other images best.
    """
    fold = torch.from_numpy(fold_of(len(images), FOLDS))
    folds = []
    for f in fold.unique():
        others = enlarged(images[fold != f], augmentation).double().flatten(1)
        mean = others.mean(0)
        folds.append((images[fold == f].double().flatten(1) - mean, (others - mean) / len(others) ** 0.5))
    ridge = max(RIDGES, key=lambda r: sum(_explained(z, rows, r)[0] for z, rows in folds))
    moment = torch.zeros(())
    for z, rows in folds:
        _, left, span = _explained(z, rows, ridge)
        shape = images.shape[1:]
        own = autocovariance(left.unflatten(1, shape)) + ridge * len(span) * autocovariance(span.unflatten(1, shape))
        moment = moment + len(z) / len(images) * own
    return moment


def _explained(z: Tensor, rows: Tensor, ridge: float) -> tuple[float, Tensor, Tensor]:
    """Return the log density of z (n, d) under ``rows' rows + ridge I``, ``ridge P z`` and whitened rows."""
    gram = rows @ rows.T
    gram.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(gram)
    span = torch.linalg.solve_triangular(factor, rows, upper=False)
    left = z - (z @ span.T) @ span
    # Matrix inversion and determinant lemmas.
    log_det = 2 * factor.diagonal().log().sum() + (z.shape[1] - len(rows)) * math.log(ridge)
    return -float(((z * left).sum() / ridge + len(z) * log_det) / 2), left, span
