"""What the nearest normal rows say about a row: how far they are, and whether it lies on their sheet.

Distances are the small-noise limit of the kernel prior's denoiser (Livernoche et al. 2024); the
same among ranks hears nothing of units and tails; the Mahalanobis distance to the neighbours under
their own covariance sees a row beside a sheet that distances alone take for near (local PCA; Kambhatla
and Leen 1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from diffad.rows.column_scale import ColumnScale

Matrix = NDArray[np.float64]

#: Distance below which two rows are the same one, up to rounding, in lengths of theirs of 1 or more.
SAME = 1e-6
#: Neighbours of a distance, and of a covariance.
N_NEIGHBOURS, N_LOCAL = 5, 20
#: Nearest rows among which the smallest sums of differences are looked for.
CANDIDATES = 40
#: Part of the covariance of all rows in a local one, and least variance.
GLOBAL, FLOOR = 0.05, 1e-3
#: Columns up to which trees find neighbours.
FEW_COLUMNS = 4
#: Rows judged at a time.
CHUNK = 512


@dataclass(frozen=True)
class Neighbours:
    """The nearest other rows.

    A row that equals a training row is taken for it, and one such match is left out: rows fitted
    on are judged by the others.
    """

    rows: Matrix  # (n, d) training rows
    index: NearestNeighbors

    @classmethod
    def fit(cls, rows: Matrix, n_neighbors: int = CANDIDATES) -> Neighbours:
        """Index complete rows (n, d)."""
        # Beyond a few columns trees are slower than matrix products for this many neighbours.
        algorithm = "brute" if rows.shape[1] > FEW_COLUMNS else "auto"
        index = NearestNeighbors(n_neighbors=min(n_neighbors + 1, len(rows)), algorithm=algorithm)
        return cls(rows, index.fit(rows))

    def __call__(self, rows: Matrix) -> tuple[Matrix, NDArray[np.int64]]:
        """Return Euclidean distances and row numbers (n, up to `n_neighbors`), the nearest first."""
        distance, place = self.index.kneighbors(rows)
        if distance.shape[1] == 1:
            return distance, place
        # Distances of far rows are differences of large squares, and as much less exact.
        itself = distance[:, :1] <= SAME * np.maximum(1.0, np.linalg.norm(rows, axis=1, keepdims=True))
        return np.where(itself, distance[:, 1:], distance[:, :-1]), np.where(itself, place[:, 1:], place[:, :-1])

    def differences(self, rows: Matrix, place: NDArray[np.int64]) -> Matrix:
        """Return the least sums of differences (n, up to `N_NEIGHBOURS`) among the rows at `place`, the least first.

        All Euclidean distances are one matrix product; all sums of differences are not.
        """
        chunks = range(0, len(rows), CHUNK)
        parts = [np.abs(self.rows[place[i : i + CHUNK]] - rows[i : i + CHUNK, None]).sum(2) for i in chunks]
        return np.asarray(np.sort(np.concatenate(parts), 1)[:, :N_NEIGHBOURS])


@dataclass(frozen=True)
class Ranks:
    """Distances to neighbours among normal scores of the columns, in sums of differences.

    Beyond the extremes of the training rows scores go on in standard deviations.  Columns of two
    values are left as they are.
    """

    scales: dict[int, ColumnScale]
    neighbours: Neighbours

    @classmethod
    def fit(cls, rows: Matrix) -> Ranks:
        """Learn from complete, standardised rows (n, d)."""
        columns = [k for k in range(rows.shape[1]) if len(np.unique(rows[:, k])) > 2]
        scales = {k: ColumnScale.fit(rows[:, k], linear=False) for k in columns}
        return cls(scales, Neighbours.fit(cls._scores(scales, rows)))

    def __call__(self, rows: Matrix) -> Matrix:
        """Return the mean distances (n,)."""
        scores = self._scores(self.scales, rows)
        return np.asarray(self.neighbours.differences(scores, self.neighbours(scores)[1]).mean(1))

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
    rows : array (n, d)
        Training rows, whitened by everyone's part.
    white : array (d, d)
        Whitens rows: everyone's part becomes the identity.
    """

    rows: Matrix
    white: Matrix

    @classmethod
    def fit(cls, rows: Matrix) -> Sheet:
        """Learn from complete rows (n, d)."""
        centred = rows - rows.mean(0)
        everyone = GLOBAL * centred.T @ centred / len(rows) + FLOOR * np.eye(rows.shape[1])
        white = np.linalg.inv(np.linalg.cholesky(everyone)).T
        return cls(rows @ white, white)

    def __call__(self, rows: Matrix, place: NDArray[np.int64]) -> Matrix:
        """Return evidence (n,) of rows (n, d) whose neighbours are the training rows at `place` (n, k)."""
        place, rows = place[:, :N_LOCAL], rows @ self.white
        parts = [self._judge(rows[i : i + CHUNK], place[i : i + CHUNK]) for i in range(0, len(rows), CHUNK)]
        return np.concatenate(parts)

    def _judge(self, rows: Matrix, place: NDArray[np.int64]) -> Matrix:
        near = self.rows[place]
        centre = near.mean(1)
        spread, off = near - centre[:, None], rows - centre
        # Woodbury: k x k systems of the neighbours instead of d x d ones of their covariance.
        gram = spread @ spread.transpose(0, 2, 1) + near.shape[1] * np.eye(near.shape[1])
        along = spread @ off[:, :, None]
        distance = (off**2).sum(1) - (along * np.linalg.solve(gram, along)).sum((1, 2))
        return np.asarray(np.log(distance.clip(min=0) + SAME))
