"""What the nearest normal rows say about a row: how far they are, and whether it lies on their sheet.

Distances are the small-noise limit of the kernel prior's denoiser (Livernoche et al. 2024); to the same
neighbours among ranks they hear nothing of units and tails; the Mahalanobis distance to the neighbours under
their own covariance sees a row beside a sheet that distances alone take for near (local PCA; Kambhatla
and Leen 1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from diffad.rows.column_scale import ColumnScale

Matrix = NDArray[np.float64]

#: Distance below which two rows are the same one, up to rounding, in lengths of theirs of 1 or more.
SAME = 1e-6
#: Neighbours of a distance, and of a covariance.
N_NEIGHBOURS, N_LOCAL = 5, 20
#: Nearest rows among which the smallest sums of differences are looked for.
CANDIDATES = 20
#: Part of the covariance of all rows in a local one, and least variance.
GLOBAL, FLOOR = 0.05, 1e-3
#: Training rows of a group, of which the nearest is looked at first.
GROUP = 8
#: Rows judged at a time.
CHUNK = 256


@dataclass(frozen=True)
class Neighbours:
    """The nearest other rows.

    A row that equals a training row is taken for it, and one such match is left out: rows fitted
    on are judged by the others.

    Attributes
    ----------
    rows : Tensor of shape (whole groups, d)
        Training rows, filled up with zeros.
    squares : Tensor of shape (whole groups,)
        Their squared lengths; infinite where there is no row.
    n_found : int
        Rows looked for, one that may be the row itself among them.
    """

    rows: Tensor
    squares: Tensor
    n_found: int

    @classmethod
    def fit(cls, rows: Matrix, n_neighbors: int = CANDIDATES) -> Neighbours:
        """Keep complete rows (n, d)."""
        known, left_open = torch.from_numpy(rows), -len(rows) % GROUP
        squares = pad(known.square().sum(1), (0, left_open), value=torch.inf)
        return cls(pad(known, (0, 0, 0, left_open)), squares, min(n_neighbors + 1, len(rows)))

    def __call__(self, rows: Matrix) -> tuple[Matrix, NDArray[np.int64]]:
        """Return Euclidean distances and row numbers (n, up to `n_neighbors`), the nearest first."""
        found = [self._find(chunk) for chunk in torch.from_numpy(rows).split(CHUNK)]
        distance, place = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        if distance.shape[1] == 1:
            return distance, place
        itself = distance[:, :1] <= SAME * np.maximum(1.0, np.linalg.norm(rows, axis=1, keepdims=True))
        return np.where(itself, distance[:, 1:], distance[:, :-1]), np.where(itself, place[:, 1:], place[:, :-1])

    def _find(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances and numbers (n, n_found) of the nearest training rows."""
        # Less the square of the row itself, which changes no order.  Rounded: a product rounds otherwise with the number
        # of rows, and among rows that are equally near the choice must not.
        squares = torch.addmm(self.squares, rows, self.rows.T, alpha=-2).float()
        n_groups = squares.shape[1] // GROUP
        place = torch.arange(squares.shape[1]).expand(len(rows), -1)
        if self.n_found < n_groups:
            # The k smallest lie in the k groups whose own smallest are the smallest.
            group = squares.view(-1, GROUP, n_groups).amin(1).topk(self.n_found, largest=False, sorted=False).indices
            place = (group[:, None] + n_groups * torch.arange(GROUP)[:, None]).flatten(1)
            squares = squares.gather(1, place)
        place = place.gather(1, squares.topk(self.n_found, largest=False).indices)
        # Differences of squares would tell copies of a row apart.
        exact, order = (self.rows[place] - rows[:, None]).square_().sum(2).sort(stable=True)
        return exact.sqrt(), place.gather(1, order)


def least_differences(train: Tensor, rows: Matrix, place: NDArray[np.int64]) -> Matrix:
    """Return the least sums of differences (n, up to `N_NEIGHBOURS`) of rows (n, d) to some of `train`, the least first.

    All Euclidean distances are one matrix product; all sums of differences are not, so they are looked for at `place`
    (n, k), among the nearest.
    """
    chunks = zip(torch.from_numpy(rows).split(CHUNK), torch.from_numpy(place).split(CHUNK), strict=True)
    parts = [(train[near] - chunk[:, None]).abs_().sum(2) for chunk, near in chunks]
    least = min(N_NEIGHBOURS, place.shape[1])
    return np.asarray(torch.cat(parts).topk(least, largest=False).values.numpy())


@dataclass(frozen=True)
class Ranks:
    """Sums of differences to the neighbours among normal scores of the columns.

    Beyond the extremes of the training rows scores go on in standard deviations.  Columns of two
    values are left as they are.

    Attributes
    ----------
    scales : dict of int to ColumnScale
    rows : Tensor of shape (n, d)
        Training rows on these scales.
    """

    scales: dict[int, ColumnScale]
    rows: Tensor

    @classmethod
    def fit(cls, rows: Matrix) -> Ranks:
        """Learn from complete, standardised rows (n, d)."""
        columns = [k for k in range(rows.shape[1]) if len(np.unique(rows[:, k])) > 2]
        scales = {k: ColumnScale.fit(rows[:, k], linear=False) for k in columns}
        return cls(scales, torch.from_numpy(cls._scores(scales, rows)))

    def __call__(self, rows: Matrix, place: NDArray[np.int64]) -> Matrix:
        """Return the mean distances (n,) of rows (n, d) whose neighbours are the training rows at `place` (n, k)."""
        return np.asarray(least_differences(self.rows, self._scores(self.scales, rows), place).mean(1))

    @staticmethod
    def _scores(scales: dict[int, ColumnScale], rows: Matrix) -> Matrix:
        result = rows.copy()
        for k, scale in scales.items():
            beyond = rows[:, k] - rows[:, k].clip(scale.values[0], scale.values[-1])
            result[:, k] = scale.forward(rows[:, k]) + beyond
        return result


@dataclass(frozen=True)
class Sheet:
    """Log Mahalanobis distance of a row to its neighbours, under their covariance and a little of everyone's.

    Attributes
    ----------
    rows : Tensor of shape (n, d)
        Training rows, whitened by everyone's part.
    white : Tensor of shape (d, d)
        Whitens rows: everyone's part becomes the identity.
    """

    rows: Tensor
    white: Tensor

    @classmethod
    def fit(cls, rows: Matrix) -> Sheet:
        """Learn from complete rows (n, d)."""
        centred = rows - rows.mean(0)
        everyone = GLOBAL * centred.T @ centred / len(rows) + FLOOR * np.eye(rows.shape[1])
        white = torch.from_numpy(np.linalg.inv(np.linalg.cholesky(everyone)).T)
        return cls(torch.from_numpy(rows) @ white, white)

    def __call__(self, rows: Matrix, place: NDArray[np.int64]) -> Matrix:
        """Return evidence (n,) of rows (n, d) whose neighbours are the training rows at `place` (n, k)."""
        chunks = (torch.from_numpy(rows) @ self.white).split(CHUNK)
        near = torch.from_numpy(place[:, :N_LOCAL]).split(CHUNK)
        return np.asarray(torch.cat([self._judge(*part) for part in zip(chunks, near, strict=True)]).numpy())

    def _judge(self, rows: Tensor, place: Tensor) -> Tensor:
        near = self.rows[place]
        centre = near.mean(1)
        spread, off = near - centre[:, None], rows - centre
        # Woodbury: k x k systems of the neighbours instead of d x d ones of their covariance.
        gram = spread @ spread.mT + near.shape[1] * torch.eye(near.shape[1], dtype=near.dtype)
        along = spread @ off[:, :, None]
        distance = off.square().sum(1) - (along * torch.linalg.solve(gram, along)).sum((1, 2))
        return (distance.clamp(min=0) + SAME).log()
