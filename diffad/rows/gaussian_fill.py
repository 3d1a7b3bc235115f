"""The Gaussian of rows: what it expects of missing entries, and of each column given the others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.base.caching import ForgetsCaches
from diffad.priors.covariance import ledoit_wolf
from diffad.priors.gaussian import NUGGET, fill_missing
from diffad.rows.encoding import indicators

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class GaussianFill(ForgetsCaches):
    """Conditional means of a Gaussian for missing entries: what is missing is no evidence.

    Attributes
    ----------
    mean : Tensor of shape (d,)
    precision : Tensor of shape (d, d)
    blocks : list of int arrays
        Encoded entries of each column; a categorical column has several, and is filled by its most
        likely category, since no row lies between categories.
    """

    mean: torch.Tensor
    precision: torch.Tensor
    blocks: list[NDArray[np.int64]]

    @classmethod
    def fit(cls, rows: Matrix, owner: NDArray[np.int64]) -> GaussianFill:
        """Learn from rows (n, d), NaN = missing, and the column behind each entry."""
        x = torch.from_numpy(rows)
        mean, covariance, _ = ledoit_wolf(x, ~x.isnan())
        covariance.diagonal().add_(NUGGET)
        blocks = [np.flatnonzero(owner == k) for k in np.unique(owner)]
        return cls(mean, torch.linalg.inv(covariance), blocks)

    def __call__(self, rows: Matrix) -> Matrix:
        """Fill rows (n, d)."""
        return self._with_whole_categories(self._means(rows), rows)

    def draw(self, rows: Matrix, rng: np.random.Generator) -> Matrix:
        """Fill rows (n, d) by draws from what is likely given what they show.

        A whole draw of every row, less what its visible part foretells of the rest: the noise that the conditional mean
        of a Gaussian lacks (Hoffman and Ribak 1991, "Constrained realizations of Gaussian fields").
        """
        noise = torch.from_numpy(rng.standard_normal(rows.shape))
        root = torch.linalg.cholesky(self.precision)
        whole = (self.mean + torch.linalg.solve_triangular(root.T, noise.T, upper=True).T).numpy()
        off = whole - self._means(np.where(np.isnan(rows), np.nan, whole))
        return self._with_whole_categories(self._means(rows) + off, rows)

    def _means(self, rows: Matrix) -> Matrix:
        return np.asarray(fill_missing(torch.from_numpy(rows), self.mean, self.precision).numpy())

    def _with_whole_categories(self, filled: Matrix, rows: Matrix) -> Matrix:
        for block in self.blocks:
            gap = np.isnan(rows[:, block[0]])
            if len(block) > 1 and gap.any():
                filled[np.ix_(gap, block)] = indicators(filled[np.ix_(gap, block)].argmax(1), len(block))
        return filled

    @cached_property
    def _conditional(self) -> list[torch.Tensor]:
        """Covariance of each column's entries given the other columns."""
        return [torch.linalg.inv(self.precision[block[:, None], block]) for block in self.blocks]

    def residual(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Judge each column given the others.

        Returns
        -------
        residual : array (n, d)
            Difference of each entry to its mean given the other columns.
        blame : array (n, columns)
            Squared Mahalanobis distance of each column given the others; 0 where it is missing.
        """
        pull = (torch.from_numpy(self(rows)) - self.mean) @ self.precision
        residual = torch.empty_like(pull)
        blame = []
        for block, covariance in zip(self.blocks, self._conditional, strict=True):
            residual[:, block] = pull[:, block] @ covariance
            # A missing category is filled by the likeliest one, which is off the mean between categories.
            missing = torch.from_numpy(np.isnan(rows[:, block[0]]))
            blame.append(torch.where(missing, 0.0, (residual[:, block] * pull[:, block]).sum(1)))
        return residual.numpy(), torch.stack(blame, 1).clamp(min=0).numpy()
