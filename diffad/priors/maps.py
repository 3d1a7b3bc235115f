"""The Gaussian of feature maps, one per position (PaDiM; Defard et al. 2021) as far as the data carry it.

A covariance per position needs more images than features; one for all positions does not know where
it is.  So each position's covariance is shrunk towards the shared one, by the weight features /
(features + images) that a conjugate prior worth as many observations as there are features has.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

#: Added to every variance, as a part of the mean one: PaDiM's regularisation.
RIDGE = 1e-2
#: Numbers in all covariances above which one is shared by all positions.
MOST = 50_000_000


class MapPrior:
    """Multivariate normal over features at each position.

    Parameters
    ----------
    mean : Tensor of shape (positions, features)
    factor : Tensor of shape (positions or 1, features, features)
        Cholesky factors of the covariances.

    Examples
    --------
    >>> maps = torch.randn(200, 3, 2, generator=torch.Generator().manual_seed(0))
    >>> bool(abs(MapPrior.fit(maps).distance(maps).mean() - 1) < 0.05)
    True
    """

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        self.mean, self.factor = mean, factor

    @classmethod
    def fit(cls, maps: Tensor) -> Self:
        """Fit to maps (n, positions, features)."""
        n, positions, features = maps.shape
        mean = maps.mean(0)
        z = (maps - mean).transpose(0, 1)  # (positions, n, features)
        flat = z.reshape(-1, features)
        covariance = (flat.mT @ flat / len(flat))[None]
        ridge = RIDGE * float(covariance[0].diagonal().mean())
        if positions * features**2 <= MOST:
            weight = features / (features + n)
            covariance = (1 - weight) * (z.mT @ z / n) + weight * covariance
        covariance.diagonal(dim1=1, dim2=2).add_(ridge or 1.0)
        return cls(mean, torch.linalg.cholesky(covariance))

    def distance(self, maps: Tensor) -> Tensor:
        """Return squared Mahalanobis distances over the number of features, (n, positions)."""
        z = (maps - self.mean).permute(1, 2, 0)
        if len(self.factor) == 1:
            flat = z.transpose(0, 1).reshape(z.shape[1], -1)
            white = torch.linalg.solve_triangular(self.factor[0], flat, upper=False)
            return (white**2).mean(0).reshape(z.shape[0], -1).mT
        return (torch.linalg.solve_triangular(self.factor, z, upper=False) ** 2).mean(1).mT
