"""Evidence that a row is not normal: distances to normal rows and densities, cross-fitted.

No single evidence is best on all tables: neighbours win where classes are ragged, mixtures where
columns are correlated, squashed values where tails are heavy.  Each becomes the probability that a
normal row looks as strange; the root of the sum of squares lets any of them speak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from diffad.priors.covariance import ledoit_wolf
from diffad.priors.gaussian import NUGGET, fill_missing
from diffad.tails import LogTail

Matrix = NDArray[np.float64]
#: Rows (n, d) -> evidence (n,), larger = stranger.
Evidence = Callable[[Matrix], Matrix]

#: Training rows beyond which the distances and densities see a random sample.
MOST_ROWS = 10_000
#: Random folds for cross-fitting.
FOLDS = 5
#: Numbers of mixture components tried, and rows each must have.
COMPONENTS, ROWS_PER_COMPONENT = (1, 2, 3, 5, 8, 12), 20
#: Principal components of a mixture.
MOST_DIMENSIONS = 30
#: Distance below which two rows are the same one, up to rounding.
SAME = 1e-6
#: Robust deviations beyond which values are squashed.
KNEE = 3.0

#: Kinds of evidence; "mixture" and "squashed_mixture" are densities, the others distances.
KINDS = ("nearest", "neighbours", "manhattan", "decorrelated", "mixture", "squashed", "squashed_mixture")


@dataclass(frozen=True)
class Distance:
    """Mean distance to the nearest other rows, the small-noise limit of the kernel prior's denoiser.

    A row that equals a training row is taken for it, and one such match is left out: rows fitted
    on are judged by the others.
    """

    index: NearestNeighbors

    @classmethod
    def fit(cls, rows: Matrix, n_neighbors: int = 1, metric: str = "euclidean") -> Distance:
        """Index complete rows (n, d)."""
        return cls(NearestNeighbors(n_neighbors=min(n_neighbors + 1, len(rows)), metric=metric).fit(rows))

    def __call__(self, rows: Matrix) -> Matrix:
        """Return evidence (n,)."""
        found = self.index.kneighbors(rows)[0]
        if found.shape[1] == 1:
            return found[:, 0]
        itself = found[:, 0] <= SAME
        return np.where(itself, found[:, 1:].mean(1), found[:, :-1].mean(1))


@dataclass(frozen=True)
class Decorrelated:
    """Nearest distance after half of the correlation is taken out: eigenvalues to the power 1/4."""

    mean: Matrix
    turn: Matrix
    nearest: Distance

    @classmethod
    def fit(cls, rows: Matrix) -> Decorrelated:
        """Learn from complete rows (n, d)."""
        mean, covariance = _moments(rows)
        values, vectors = np.linalg.eigh(covariance)
        turn = vectors * np.maximum(values, 1e-4 * max(values.max(), 1e-12)) ** -0.25
        return cls(mean, turn, Distance.fit((rows - mean) @ turn))

    def __call__(self, rows: Matrix) -> Matrix:
        """Return evidence (n,)."""
        return self.nearest((rows - self.mean) @ self.turn)


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
    for n in COMPONENTS:
        if n > 1 and len(rows) < n * ROWS_PER_COMPONENT:
            break
        bic = GaussianMixture(n, reg_covar=1e-3, random_state=0).fit(scores).bic(scores)
        if len(found) > 2 and bic > found[-1][0] > min(found)[0]:
            break
        found.append((float(bic), n))
    return min(found)[1]


@dataclass(frozen=True)
class Squash:
    """Robust standardisation that compresses what lies beyond `KNEE` deviations."""

    centre: Matrix
    scale: Matrix

    @classmethod
    def fit(cls, rows: Matrix) -> Squash:
        """Learn from complete rows."""
        centre = np.median(rows, 0)
        spread = 1.4826 * np.median(np.abs(rows - centre), 0)
        spread = np.maximum(spread, np.diff(np.quantile(rows, [0.05, 0.95], axis=0), axis=0)[0] / 3.29)
        fallback = np.where(rows.std(0) > 0, rows.std(0), 1.0)
        return cls(centre, np.where(spread > 0, spread, fallback))

    def __call__(self, rows: Matrix) -> Matrix:
        """Transform rows (n, d)."""
        z = (rows - self.centre) / self.scale
        return np.sign(z) * (np.minimum(np.abs(z), KNEE) + np.log1p(np.maximum(np.abs(z) - KNEE, 0)))


def _moments(rows: Matrix) -> tuple[Matrix, Matrix]:
    x = torch.from_numpy(rows)
    mean, covariance, _ = ledoit_wolf(x, ~x.isnan())
    return mean.numpy(), covariance.numpy()


@dataclass(frozen=True)
class RowModels:
    """All evidence of normal rows, uncalibrated."""

    evidence: dict[str, Evidence]

    @classmethod
    def fit(cls, rows: Matrix, kinds: tuple[str, ...], components: Mapping[str, int]) -> RowModels:
        """Fit to complete rows (n, d)."""
        squash = Squash.fit(rows)
        makers: dict[str, Callable[[], Evidence]] = {
            "nearest": lambda: Distance.fit(rows),
            "neighbours": lambda: Distance.fit(rows, 5),
            "manhattan": lambda: Distance.fit(rows, 1, "manhattan"),
            "decorrelated": lambda: Decorrelated.fit(rows),
            "mixture": lambda: Mixture.fit(rows, components["mixture"]),
            "squashed": lambda: partial(_composed, squash, Distance.fit(squash(rows))),
            "squashed_mixture": lambda: partial(
                _composed, squash, Mixture.fit(squash(rows), components["squashed_mixture"])
            ),
        }
        return cls({kind: makers[kind]() for kind in kinds})

    def __call__(self, rows: Matrix) -> dict[str, Matrix]:
        """Return evidence (n,) of complete rows, by kind."""
        return {kind: evidence(rows) for kind, evidence in self.evidence.items()}


def _composed(squash: Squash, evidence: Evidence, rows: Matrix) -> Matrix:
    return evidence(squash(rows))


@dataclass(frozen=True)
class Filler:
    """Conditional means of a Gaussian for missing entries: what is missing is no evidence."""

    mean: torch.Tensor
    precision: torch.Tensor

    @classmethod
    def fit(cls, rows: Matrix) -> Filler:
        """Learn from rows (n, d), NaN = missing."""
        x = torch.from_numpy(rows)
        mean, covariance, _ = ledoit_wolf(x, ~x.isnan())
        covariance.diagonal().add_(NUGGET)
        return cls(mean, torch.linalg.inv(covariance))

    def __call__(self, rows: Matrix) -> Matrix:
        """Fill rows (n, d)."""
        return np.asarray(fill_missing(torch.from_numpy(rows), self.mean, self.precision).numpy())

    def residual(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Return each entry's difference to its mean given the others (n, d), and its deviation (d,)."""
        pull = (torch.from_numpy(self(rows)) - self.mean) @ self.precision
        variance = 1 / self.precision.diagonal()
        return np.asarray((pull * variance).numpy()), np.asarray(variance.sqrt().numpy())


@dataclass(frozen=True)
class RowScorer:
    """Evidence of rows, calibrated and combined."""

    models: RowModels
    tails: dict[str, LogTail]
    filler: Filler

    def evidence(self, rows: Matrix) -> dict[str, Matrix]:
        """Return -log p of each row (n,), by kind."""
        return self.calibrated(self.models(self.filler(rows)))

    def calibrated(self, raw: Mapping[str, Matrix]) -> dict[str, Matrix]:
        """Turn evidence into -log p."""
        return {kind: self.tails[kind](values[:, None])[:, 0].astype(np.float64) for kind, values in raw.items()}


def score(evidence: Mapping[str, Matrix]) -> Matrix:
    """Combine -log p of all kinds: the root of the mean square."""
    return np.sqrt(np.mean([e**2 for e in evidence.values()], 0))


def fit_rows(rows: Matrix, kinds: tuple[str, ...], seed: int) -> tuple[RowScorer, Matrix]:
    """Fit evidence to normal rows and calibrate it by cross-fitting on random folds.

    Parameters
    ----------
    rows : array (n, d)
        Encoded rows, NaN = missing.
    kinds : tuple of str
    seed : int
        Of the folds, and of the sample where there are more than `MOST_ROWS` rows.

    Returns
    -------
    RowScorer
    scores : array (n,)
        Of the rows fitted on, each by models that had not seen it.
    """
    rng = np.random.default_rng(seed)
    if len(rows) > MOST_ROWS:
        rows = rows[np.sort(rng.choice(len(rows), MOST_ROWS, replace=False))]
    filler = Filler.fit(rows)
    filled = filler(rows)
    components = {}
    if "mixture" in kinds:
        components["mixture"] = best_components(filled)
    if "squashed_mixture" in kinds:
        components["squashed_mixture"] = best_components(Squash.fit(filled)(filled))
    n_folds = min(FOLDS, len(rows))
    fold = rng.permutation(len(rows)) % max(1, n_folds)
    raw = {kind: np.empty(len(rows)) for kind in kinds}
    for f in range(n_folds):
        inside = fold == f
        train = filled[~inside] if n_folds > 1 else filled
        few = {k: min(n, max(1, len(train) // ROWS_PER_COMPONENT)) for k, n in components.items()}
        for kind, values in RowModels.fit(train, kinds, few)(filled[inside]).items():
            raw[kind][inside] = values
    tails = {kind: LogTail.fit(values[:, None]) for kind, values in raw.items()}
    scorer = RowScorer(RowModels.fit(filled, kinds, components), tails, filler)
    return scorer, score(scorer.calibrated(raw))
