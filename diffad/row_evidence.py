"""Evidence that a row is not normal: distances to normal rows and their density, cross-fitted.

No single evidence is best on all tables: neighbours win where classes are ragged, in the sum of
differences where columns are many, mixtures where columns are correlated.  Each becomes the
probability that a normal row looks as strange, and a power mean lets any of them speak.  Diversity
carries over to other tables better than a lucky pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from diffad.priors.covariance import ledoit_wolf
from diffad.priors.gaussian import NUGGET, fill_missing
from diffad.row_neighbours import N_NEIGHBOURS, Neighbours, Ranks, Sheet
from diffad.tails import LogTail

Matrix = NDArray[np.float64]

#: Fewest rows that can judge one another.
LEAST_ROWS = 3
#: Random folds for cross-fitting.
FOLDS = 5
#: Numbers of mixture components tried; rows each must have in every fold, at least and for each dimension: a covariance
#: of fewer finds everything new strange.
COMPONENTS, ROWS_PER_COMPONENT, ROWS_PER_DIMENSION = (1, 2, 3, 5, 8, 12), 20, 2
#: Principal components of a mixture.
MOST_DIMENSIONS = 30
#: Kinds of evidence: distance to the nearest and to the five nearest rows, the same as sums of
#: differences, the density of a mixture, the distance among ranks and to the sheet of the neighbours.
KINDS = ("nearest", "neighbours", "nearest_manhattan", "neighbours_manhattan", "mixture", "ranks", "sheet")
#: Where faults may be among the training rows: the mean distance to so many neighbours that the faults are too few
#: to vouch for one another.
CROWD = "crowd"
#: Size of the crowd, in numbers of possible faults.
CROWD_SIZE = 1.5
#: Exponent of the mean over kinds.
POWER = 4


@dataclass(frozen=True)
class Mixture:
    """Minus the log density of a Gaussian mixture, plus what its principal components leave out."""

    pca: PCA
    model: GaussianMixture

    @classmethod
    def fit(cls, rows: Matrix, n_components: int) -> Mixture:
        """Learn from complete rows (n, d)."""
        pca = PCA(min(MOST_DIMENSIONS, *rows.shape), random_state=0).fit(rows)
        model = GaussianMixture(n_components, reg_covar=1e-3, random_state=0)
        return cls(pca, model.fit(pca.transform(rows)))

    def __call__(self, rows: Matrix) -> Matrix:
        """Return evidence (n,)."""
        scores = self.pca.transform(rows)
        left_out = ((rows - self.pca.inverse_transform(scores)) ** 2).sum(1)
        return np.asarray(left_out - self.model.score_samples(scores))


def best_components(rows: Matrix) -> int:
    """Return the number of mixture components with the smallest BIC (Schwarz 1978)."""
    scores = PCA(min(MOST_DIMENSIONS, *rows.shape), random_state=0).fit_transform(rows)
    found: list[tuple[float, int]] = []
    each = max(ROWS_PER_COMPONENT, ROWS_PER_DIMENSION * scores.shape[1])
    for n in COMPONENTS:
        if n > 1 and len(rows) * (FOLDS - 1) < n * each * FOLDS:
            break
        bic = GaussianMixture(n, reg_covar=1e-3, random_state=0).fit(scores).bic(scores)
        if len(found) > 2 and bic > found[-1][0] > min(found)[0]:
            break
        found.append((float(bic), n))
    return min(found)[1]


@dataclass(frozen=True)
class RowModels:
    """All evidence of normal rows, uncalibrated."""

    neighbours: Neighbours | None
    mixture: Mixture | None
    ranks: Ranks | None
    sheet: Sheet | None
    crowd: Neighbours | None
    kinds: tuple[str, ...]

    @classmethod
    def fit(cls, rows: Matrix, kinds: tuple[str, ...], n_components: int, contamination: float = 0.0) -> RowModels:
        """Fit to complete rows (n, d), of which a share `contamination` may be faults."""
        crowd = max(N_NEIGHBOURS, int(np.ceil(CROWD_SIZE * contamination * len(rows))))
        return cls(
            Neighbours.fit(rows) if set(kinds) - {"mixture", "ranks"} else None,
            Mixture.fit(rows, n_components) if "mixture" in kinds else None,
            Ranks.fit(rows) if "ranks" in kinds else None,
            Sheet.fit(rows) if "sheet" in kinds else None,
            Neighbours.fit(rows, crowd) if contamination else None,
            kinds,
        )

    def __call__(self, rows: Matrix) -> dict[str, Matrix]:
        """Return evidence (n,) of complete rows, by kind."""
        found: dict[str, Matrix] = {}
        if self.neighbours is not None:
            distances, place = self.neighbours(rows)
            near = {"": distances[:, :N_NEIGHBOURS]}
            if {"nearest_manhattan", "neighbours_manhattan"} & set(self.kinds):
                near["_manhattan"] = self.neighbours.differences(rows, place)
            for suffix, d in near.items():
                found |= {f"nearest{suffix}": d[:, 0], f"neighbours{suffix}": d.mean(1)}
            if self.sheet is not None:
                found["sheet"] = self.sheet(rows, place)
        if self.mixture is not None:
            found["mixture"] = self.mixture(rows)
        if self.ranks is not None:
            found["ranks"] = self.ranks(rows)
        result = {kind: found[kind] for kind in self.kinds}
        return result | ({CROWD: self.crowd(rows)[0].mean(1)} if self.crowd is not None else {})


@dataclass(frozen=True)
class GaussianFill:
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
        filled = np.asarray(fill_missing(torch.from_numpy(rows), self.mean, self.precision).numpy())
        for block in self.blocks:
            gap = np.isnan(rows[:, block[0]])
            if len(block) > 1 and gap.any():
                filled[np.ix_(gap, block)] = np.eye(len(block))[filled[np.ix_(gap, block)].argmax(1)] / np.sqrt(2)
        return filled

    def residual(self, rows: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Judge each column given the others.

        Returns
        -------
        residual : array (n, d)
            Difference of each entry to its mean given the other columns.
        blame : array (n, columns)
            Squared Mahalanobis distance of each column given the others.
        deviation : array (d,)
            Conditional standard deviation of each entry.
        """
        pull = (torch.from_numpy(self(rows)) - self.mean) @ self.precision
        residual, deviation = torch.empty_like(pull), torch.empty(pull.shape[1], dtype=pull.dtype)
        blame = []
        for block in self.blocks:
            covariance = torch.linalg.inv(self.precision[block[:, None], block])
            residual[:, block] = pull[:, block] @ covariance
            deviation[block] = covariance.diagonal().sqrt()
            blame.append((residual[:, block] * pull[:, block]).sum(1))
        return residual.numpy(), torch.stack(blame, 1).clamp(min=0).numpy(), deviation.numpy()


@dataclass(frozen=True)
class RowScorer:
    """Evidence of rows, calibrated and combined."""

    models: RowModels
    tails: dict[str, LogTail]
    filler: GaussianFill

    def evidence(self, rows: Matrix) -> dict[str, Matrix]:
        """Return -log p of each row (n,), by kind."""
        return self.calibrated(self.models(self.filler(rows)))

    def calibrated(self, raw: Mapping[str, Matrix]) -> dict[str, Matrix]:
        """Turn evidence into -log p."""
        return {kind: self.tails[kind](values[:, None])[:, 0].astype(np.float64) for kind, values in raw.items()}


def score(evidence: Mapping[str, Matrix]) -> Matrix:
    """Combine -log p of all kinds by a power mean, between the average and the largest.

    The crowd has as much to say as all others together.
    """
    mean = np.mean([e**POWER for kind, e in evidence.items() if kind != CROWD], 0)
    if CROWD in evidence:
        mean = (mean + evidence[CROWD] ** POWER) / 2
    return np.asarray(mean ** (1 / POWER))


def fit_rows(
    rows: Matrix, owner: NDArray[np.int64], kinds: tuple[str, ...], seed: int, contamination: float = 0.0
) -> tuple[RowScorer, Matrix]:
    """Fit evidence to normal rows and calibrate it by cross-fitting on random folds.

    Parameters
    ----------
    rows : array (n, d)
        Encoded rows, NaN = missing.
    owner : array (d,) of int
        Column behind each encoded entry.
    kinds : tuple of str
    seed : int
        Of the folds.
    contamination : float, default=0.0
        Share of the rows that may be faults: if there may be some, the `CROWD` is asked, too.

    Returns
    -------
    RowScorer
    scores : array (n,)
        Of the rows fitted on, each by models that had not seen it.
    """
    if len(rows) < LEAST_ROWS:
        raise ValueError(f"X holds {len(rows)} rows (n_samples={len(rows)}); at least {LEAST_ROWS} are needed to fit")
    rng = np.random.default_rng(seed)
    filler = GaussianFill.fit(rows, owner)
    filled = filler(rows)
    n_components = best_components(filled) if "mixture" in kinds else 1
    n_folds = min(FOLDS, len(rows))
    fold = rng.permutation(len(rows)) % max(1, n_folds)
    raw = {kind: np.empty(len(rows)) for kind in (*kinds, *([CROWD] if contamination else []))}
    for f in range(n_folds):
        inside = fold == f
        train = filled[~inside] if n_folds > 1 else filled
        for kind, values in RowModels.fit(train, kinds, n_components, contamination)(filled[inside]).items():
            raw[kind][inside] = values
    tails = {kind: LogTail.fit(values[:, None]) for kind, values in raw.items()}
    scorer = RowScorer(RowModels.fit(filled, kinds, n_components, contamination), tails, filler)
    return scorer, score(scorer.calibrated(raw))
