"""The Gaussian of all training images: as many directions as images, and a ridge for the rest.

With the centred training images as rows of ``X / sqrt(n)`` the covariance is ``X'X + r I``; by the
matrix inversion lemma every solve is one of n x n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

#: Variance outside the training images' span, in squared standard deviations of an image.
RIDGE = 1e-2
#: Least of it as a part of all variance: single precision has no more digits.
DIGITS = 1e-6


class SpanPrior:
    """Multivariate normal over d pixels, of covariance ``X'X + ridge I`` with n training rows.

    Parameters
    ----------
    mean : Tensor of shape (d,)
    rows : Tensor of shape (n, d)
        Centred training rows over the root of their number.
    ridge : float
        Raised tenfold as often as it is lost in single precision: many pixels and nearly equal images.

    Examples
    --------
    >>> prior = SpanPrior.fit(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    >>> [[round(v, 2) for v in row] for row in prior.residual(torch.tensor([[2.0, 2.0], [1.0, -1.0]])).tolist()]
    [[0.01, 0.01], [1.0, -1.0]]
    """

    def __init__(self, mean: Tensor, rows: Tensor, ridge: float) -> None:
        self.mean, self.rows = mean, rows
        self._gram, self._factor, self.ridge = _factorised(rows, ridge)

    @classmethod
    def fit(cls, x: Tensor, ridge: float | None = None) -> Self:
        """Fit to complete rows (n, d); without `ridge` with the least of use."""
        mean = x.mean(0)
        rows = (x - mean) / math.sqrt(len(x))
        return cls(mean, rows, max(RIDGE, DIGITS * float(rows.square().sum())) if ridge is None else ridge)

    def residual(self, x: Tensor) -> Tensor:
        """Return ``ridge P (x - mean)`` for rows (n, d): what the training images cannot explain."""
        if len(x) == 1:
            # A product of matrices rounds otherwise than one of a vector: an image must not look stranger by itself.
            return self.residual(x.expand(2, -1))[:1]
        z = x - self.mean
        return z - torch.cholesky_solve(self.rows @ z.mT, self._factor).mT @ self.rows

    @cached_property
    def singled_out(self) -> Tensor:
        """How much less each pixel's `residual` (d,) is than its difference from what all others let expect.

        That difference is ``(P (x - mean))_i / P_ii``, so it is ``ridge P_ii``: from 0, where a pixel explains itself
        away, to 1.
        """
        root = torch.linalg.solve_triangular(self._factor, self.rows, upper=False)
        return (1 - root.square().sum(0)).clamp(min=DIGITS)

    def distance(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return the root mean square over the `seen` (n, d) pixels of rows (n, d) from the nearest training row, (n,).

        0 where nothing is seen.
        """
        rows, known = (self.rows * math.sqrt(len(self.rows))).double(), seen.double()
        z = torch.where(seen, x - self.mean, 0.0).double()
        squared = (z**2).sum(1, keepdim=True) - 2 * z @ rows.mT + known @ (rows**2).mT
        return (squared.amin(1).clamp(min=0) / known.sum(1).clamp(min=1)).sqrt()

    def surprise(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Return the squared z scores of the `hidden` (d,) pixels of a row (d,) given all its others."""
        x, hidden = x.to(self.mean), hidden.to(self.mean.device)
        rows = self.rows[:, hidden]
        if rows.shape[1] < len(rows):
            precision = self._precision(rows)
            factor, failed = torch.linalg.cholesky_ex(precision)
            if failed:
                return rows.new_zeros(rows.shape[1])
            covariance = torch.cholesky_inverse(factor)
            left = covariance @ self.residual(x[None])[0, hidden]
            return left**2 / (self.ridge * covariance.diagonal())
        # In float32 what is left of a large Gram matrix may lose its ridge.
        factor, failed = torch.linalg.cholesky_ex(self._gram - rows @ rows.mT)
        if failed:
            return rows.new_zeros(rows.shape[1])
        z = x - self.mean
        weight = torch.cholesky_solve((self.rows @ torch.where(hidden, 0.0, z))[:, None], factor)[:, 0]
        root = torch.linalg.solve_triangular(factor, rows, upper=False)
        return (z[hidden] - weight @ rows) ** 2 / (self.ridge * (1 + (root**2).sum(0)))

    def given(self, seen: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a map of rows (d,) to rows with the pixels that are not `seen` (d,) filled; factorised once."""
        few = int((~seen).sum()) < len(self.rows)
        mean = (self._from_precision if few else self._from_covariance)(seen)

        def filled(x: Tensor) -> Tensor:
            result = x.clone()
            result[~seen] = mean(x)
            return result

        return filled

    def doubt(self, seen: Tensor) -> Tensor:
        """Return the conditional variance of each pixel (d,) given the `seen` (d,) ones, 0 for these."""
        visible, hidden = self.rows[:, seen], self.rows[:, ~seen]
        _, factor, ridge = _factorised(visible, self.ridge)
        root = torch.linalg.solve_triangular(factor, hidden, upper=False)
        result = torch.zeros_like(self.mean)
        result[~seen] = ridge * (1 + root.square().sum(0))
        return result

    def _from_covariance(self, seen: Tensor) -> Callable[[Tensor], Tensor]:
        """Regress on the seen pixels: a solve of as many unknowns as training rows."""
        visible, hidden = self.rows[:, seen], self.rows[:, ~seen]
        _, factor, _ = _factorised(visible, self.ridge)

        def mean(x: Tensor) -> Tensor:
            weight = torch.cholesky_solve((visible @ (x[seen] - self.mean[seen]))[:, None], factor)[:, 0]
            return self.mean[~seen] + weight @ hidden

        return mean

    def _from_precision(self, seen: Tensor) -> Callable[[Tensor], Tensor]:
        """Subtract ``P_uu^-1 P_us (x_s - mean_s)``: a solve of as many unknowns as unseen pixels."""
        factor = torch.linalg.cholesky(self._precision(self.rows[:, ~seen]))

        def mean(x: Tensor) -> Tensor:
            left = self.residual(torch.where(seen, x, self.mean)[None])[0, ~seen]
            return self.mean[~seen] - torch.cholesky_solve(left[:, None], factor)[:, 0]

        return mean

    def _precision(self, rows: Tensor) -> Tensor:
        """Return ``ridge P`` among some pixels, whose columns of the training rows are given."""
        root = torch.linalg.solve_triangular(self._factor, rows, upper=False)
        return torch.eye(root.shape[1], dtype=root.dtype, device=root.device) - root.mT @ root


def _factorised(rows: Tensor, ridge: float) -> tuple[Tensor, Tensor, float]:
    """Return ``rows rows' + ridge I``, its Cholesky factor, and the ridge that made it positive definite."""
    gram = rows @ rows.mT
    gram.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(gram)
    while failed and math.isfinite(ridge):
        gram.diagonal().add_(9 * ridge)
        ridge *= 10
        factor, failed = torch.linalg.cholesky_ex(gram)
    return gram, factor, ridge
