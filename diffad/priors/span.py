"""The Gaussian of all training images: as many directions as images, and a ridge for the rest.

With the centred training images as rows of ``X / sqrt(n)`` the covariance is ``X'X + r I``; by the
matrix inversion lemma every solve is one of n x n.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

#: Variance outside the training images' span, in squared standard deviations of an image.
RIDGE = 1e-2


class SpanPrior:
    """Multivariate normal over d pixels, of covariance ``X'X + ridge I`` with n training rows.

    Parameters
    ----------
    mean : Tensor of shape (d,)
    rows : Tensor of shape (n, d)
        Centred training rows over the root of their number.
    ridge : float

    Examples
    --------
    >>> prior = SpanPrior.fit(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    >>> [[round(v, 2) for v in row] for row in prior.residual(torch.tensor([[2.0, 2.0], [1.0, -1.0]])).tolist()]
    [[0.01, 0.01], [1.0, -1.0]]
    """

    def __init__(self, mean: Tensor, rows: Tensor, ridge: float) -> None:
        self.mean, self.rows, self.ridge = mean, rows, ridge
        gram = rows @ rows.mT
        gram.diagonal().add_(ridge)
        self._factor = torch.linalg.cholesky(gram)

    @classmethod
    def fit(cls, x: Tensor, ridge: float = RIDGE) -> Self:
        """Fit to complete rows (n, d)."""
        mean = x.mean(0)
        return cls(mean, (x - mean) / math.sqrt(len(x)), ridge)

    def residual(self, x: Tensor) -> Tensor:
        """Return ``ridge P (x - mean)`` for rows (n, d): what the training images cannot explain."""
        z = x - self.mean
        return z - torch.cholesky_solve(self.rows @ z.mT, self._factor).mT @ self.rows

    def fill(self, x: Tensor) -> Tensor:
        """Replace NaN in rows (n, d) by the conditional mean given the other pixels."""
        result = x.clone()
        for i in x.isnan().any(1).nonzero()[:, 0]:
            seen = ~x[i].isnan()
            visible = self.rows[:, seen]
            gram = visible @ visible.mT
            gram.diagonal().add_(self.ridge)
            weight = torch.linalg.solve(gram, visible @ (x[i, seen] - self.mean[seen]))
            result[i, ~seen] = self.mean[~seen] + weight @ self.rows[:, ~seen]
        return result
