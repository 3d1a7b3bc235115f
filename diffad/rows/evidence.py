"""Evidence that a row is not normal: distances to normal rows and their density, cross-fitted.

No single evidence is best on all tables: neighbours win where classes are ragged, in the sum of
differences where columns are many, mixtures where columns are correlated.  Each becomes the
probability that a normal row looks as strange, and a power mean lets any of them speak.  Diversity
carries over to other tables better than a lucky pair.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from diffad.base.caching import ForgetsCaches
from diffad.base.gate import admitted
from diffad.base.telling import tell
from diffad.rows.calibration import RowTails
from diffad.rows.faults import ROW_FAULTS
from diffad.rows.gaussian_fill import GaussianFill
from diffad.rows.neighbours import N_NEIGHBOURS, Neighbours, Ranks, Sheet, least_differences
from diffad.rows.residual import RowResidual, together

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
#: Share of complete rows below which these have tails of their own.
FEW_WHOLE = 0.25
#: Share of the entries that the band around what is expected of them holds.
BAND_SHARE = 0.9
#: What a diffusion model leaves over (:mod:`diffad.rows.residual`), if one is trained.
NETWORK = "network"
#: Networks, each trained without a part of the rows, and fewest rows that they learn from.
NETWORKS, LEAST_LEARNT = 3, 60
#: In numbers of other kinds, what the networks may count for, and the area under the ROC curve that it must win.
WEIGHTS, WORTH = (1.0, 3.0), 0.005
#: Trains one network on rows (n, d), given its number.
Learn = Callable[[Matrix, int], RowResidual]
Model = TypeVar("Model")


@dataclass(frozen=True)
class Mixture(ForgetsCaches):
    """Minus the log density of a Gaussian mixture, plus what its principal components leave out."""

    pca: PCA
    model: GaussianMixture

    @classmethod
    def fit(cls, rows: Matrix, n_components: int) -> Mixture:
        """Learn from complete rows (n, d)."""
        pca = PCA(min(MOST_DIMENSIONS, *rows.shape), random_state=0).fit(rows)
        return cls(pca, _mixture(pca.transform(rows), n_components))

    def __call__(self, rows: Matrix) -> Matrix:
        """Return evidence (n,)."""
        # Not by scikit-learn: after each product the threads of NumPy's algebra stand in the way of torch's for a while.
        mean, components, means, roots, log_weights = self._parts
        centred = torch.from_numpy(rows) - mean
        scores = centred @ components.T
        left_out = centred.square().sum(1) - scores.square().sum(1)
        off = (scores - means[:, None]) @ roots
        log_density = (log_weights - 0.5 * off.square().sum(2)).logsumexp(0)
        return np.asarray((left_out - log_density).numpy())

    @cached_property
    def _parts(self) -> tuple[torch.Tensor, ...]:
        """Mean and components; means, roots of the precisions and log weights (n_components, 1) of the mixture."""
        roots = self.model.precisions_cholesky_
        log_det = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
        log_weights = np.log(self.model.weights_) + log_det - 0.5 * roots.shape[1] * np.log(2 * np.pi)
        parts = (self.pca.mean_, self.pca.components_, self.model.means_, roots, log_weights[:, None])
        return tuple(torch.from_numpy(np.asarray(part)) for part in parts)


def _mixture(scores: Matrix, n_components: int) -> GaussianMixture:
    with warnings.catch_warnings():
        # Rows that are equal make fewer groups than asked for: nothing that a reader could do about it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(n_components, reg_covar=1e-3, random_state=0).fit(scores)


def best_components(rows: Matrix) -> int:
    """Return the number of mixture components with the smallest BIC (Schwarz 1978)."""
    scores = PCA(min(MOST_DIMENSIONS, *rows.shape), random_state=0).fit_transform(rows)
    found: list[tuple[float, int]] = []
    each = max(ROWS_PER_COMPONENT, ROWS_PER_DIMENSION * scores.shape[1])
    for n in COMPONENTS:
        if n > 1 and len(rows) * (FOLDS - 1) < n * each * FOLDS:
            break
        bic = _mixture(scores, n).bic(scores)
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
            Neighbours.fit(rows) if set(kinds) - {"mixture"} else None,
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
                near["_manhattan"] = least_differences(self.neighbours.rows, rows, place)
            for suffix, d in near.items():
                found |= {f"nearest{suffix}": d[:, 0], f"neighbours{suffix}": d.mean(1)}
            if self.sheet is not None:
                found["sheet"] = self.sheet(rows, place)
            if self.ranks is not None:
                found["ranks"] = self.ranks(rows, place)
        if self.mixture is not None:
            found["mixture"] = self.mixture(rows)
        result = {kind: found[kind] for kind in self.kinds}
        return result | ({CROWD: self.crowd(rows)[0].mean(1)} if self.crowd is not None else {})


@dataclass(frozen=True)
class RowScorer:
    """Evidence of rows, calibrated and combined.

    Attributes
    ----------
    models : RowModels
    tails : RowTails
    filler : GaussianFill
    band : array (d,)
        What nine of ten visible entries, of rows that `filler` had not seen, were off at most.
    networks : tuple of RowResidual
        Empty where none were trained, or faults said that they do not help.
    network_weight : float
        What the networks count for, in numbers of other kinds.
    """

    models: RowModels
    tails: RowTails
    filler: GaussianFill
    band: Matrix
    networks: tuple[RowResidual, ...] = ()
    network_weight: float = 0.0

    def evidence(self, rows: Matrix) -> dict[str, Matrix]:
        """Return -log p of each row (n,), by kind."""
        filled = self.filler(rows)
        found = self.models(filled) | ({NETWORK: together(self.networks, filled)} if self.networks else {})
        return self.tails(found, ~np.isnan(rows))

    def score(self, evidence: Mapping[str, Matrix]) -> Matrix:
        """Combine the evidence (n,) of all kinds."""
        return score(evidence, self.network_weight)


def score(evidence: Mapping[str, Matrix], network_weight: float = 0.0) -> Matrix:
    """Combine -log p of all kinds by a power mean, between the average and the largest.

    Networks count as much as `network_weight` other kinds.  The crowd has as much to say as all others together.
    """
    powers = [e**POWER for kind, e in evidence.items() if kind not in (CROWD, NETWORK)]
    mean = np.mean(powers, 0)
    if NETWORK in evidence:
        mean = (len(powers) * mean + network_weight * evidence[NETWORK] ** POWER) / (len(powers) + network_weight)
    if CROWD in evidence:
        mean = (mean + evidence[CROWD] ** POWER) / 2
    return np.asarray(mean ** (1 / POWER))


def fit_rows(
    rows: Matrix,
    owner: NDArray[np.int64],
    kinds: tuple[str, ...],
    seed: int,
    contamination: float = 0.0,
    learn: Learn | None = None,
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
    learn : callable, optional
        Trains networks, which join in as far as faults put into rows they have not seen say that they help.

    Returns
    -------
    RowScorer
    scores : array (n,)
        Of the rows fitted on, each by models that had not seen it.
    """
    if len(rows) < LEAST_ROWS:
        raise ValueError(f"X holds {len(rows)} rows (n_samples={len(rows)}); at least {LEAST_ROWS} are needed to fit")
    if learn is not None and len(rows) < LEAST_LEARNT:
        tell(f"X holds {len(rows)} rows; no network learns from fewer than {LEAST_LEARNT}: closed forms alone judge")
        learn = None
    rng = np.random.default_rng(seed)
    filler = GaussianFill.fit(rows, owner)
    filled = filler(rows)
    n_components = best_components(filled) if "mixture" in kinds else 1
    fold = rng.permutation(len(rows)) % min(FOLDS, len(rows))
    fillers = [GaussianFill.fit(rows[fold != f], owner) for f in range(fold.max() + 1)]
    unseen = _unseen(GaussianFill.__call__, fillers, rows, fold)
    faulty = [fault(unseen, owner, rng) for fault in ROW_FAULTS.values()] if learn else []
    versions = [unseen, *faulty]
    if (~np.isnan(rows)).all(1).mean() < FEW_WHOLE:
        versions.append(_unseen(lambda filler, part: filler.draw(part, rng), fillers, rows, fold))

    def fit_closed(train: Matrix, _: int = 0) -> RowModels:
        return RowModels.fit(train, kinds, n_components, contamination)

    trains = [filler(rows[fold != f]) for f, filler in enumerate(fillers)]
    _, found = _cross_judged(fit_closed, RowModels.__call__, trains, fold, versions)
    networks: list[RowResidual] = []
    if learn:
        parts = rng.permutation(len(rows)) % NETWORKS
        trains = [filled[parts != part] for part in range(NETWORKS)]
        networks, moves = _cross_judged(learn, lambda network, rows: {NETWORK: network(rows)}, trains, parts, versions)
        if not all(np.isfinite(move[NETWORK]).all() for move in moves):
            tell("training of a network diverged: closed forms alone judge; give a smaller training.learning_rate")
            networks = []
        else:
            found = [closed | move for closed, move in zip(found, moves, strict=True)]
    seen, n_faults = ~np.isnan(rows), len(faulty)
    tails = RowTails.fit(found[0], seen, found[1 + n_faults] if len(found) > 1 + n_faults else {})
    normal, *strange = [tails(raw, seen) for raw in found[: 1 + n_faults]]
    weight = best_network_weight(normal, strange) if networks else 0.0
    if not weight:
        networks, normal = [], {kind: values for kind, values in normal.items() if kind != NETWORK}
    residual = _unseen(lambda filler, part: filler.residual(part)[0], fillers, rows, fold)
    band = np.nanquantile(np.abs(np.where(seen, residual, np.nan)), BAND_SHARE, axis=0)
    scorer = RowScorer(fit_closed(filled), tails, filler, band, tuple(networks), weight)
    return scorer, scorer.score(normal)


def _unseen(
    say: Callable[[GaussianFill, Matrix], Matrix],
    fillers: Sequence[GaussianFill],
    rows: Matrix,
    fold: NDArray[np.int64],
) -> Matrix:
    """Return what Gaussians that have not seen their fold of rows (n, d) say of it.

    One that had seen them would fill them so well that new rows look strange.
    """
    found = np.empty(rows.shape)
    for f, filler in enumerate(fillers):
        found[fold == f] = say(filler, rows[fold == f])
    return found


def best_network_weight(normal: Mapping[str, Matrix], faulty: Sequence[Mapping[str, Matrix]]) -> float:
    """Return the weight of the networks that best tells faulty from normal rows; 0 if none helps.

    Parameters
    ----------
    normal : mapping of kind to array (n,)
        Evidence of normal rows that was cross-fitted.
    faulty : sequence of mapping of kind to array (n,)
        The same of rows with faults of several kinds, which count alike.
    """
    label = np.repeat([0, 1], len(normal[NETWORK]))
    weights = (0.0, *WEIGHTS)
    area = [
        float(np.mean([roc_auc_score(label, np.r_[score(normal, weight), score(f, weight)]) for f in faulty]))
        for weight in weights
    ]
    return admitted(weights, area, WORTH)


def _cross_judged(
    fit: Callable[[Matrix, int], Model],
    judge: Callable[[Model, Matrix], Mapping[str, Matrix]],
    trains: Sequence[Matrix],
    fold: NDArray[np.int64],
    versions: Sequence[Matrix],
) -> tuple[list[Model], list[dict[str, Matrix]]]:
    """Fit to the rows (n, d) without each fold, `trains`; judge this fold of every version of them by that model."""
    folds = [fold == f for f in range(len(trains))]
    models = [fit(train, f) for f, train in enumerate(trains)]
    order = np.argsort(np.concatenate([np.flatnonzero(inside) for inside in folds]))
    judged = []
    for rows in versions:
        parts = [judge(model, rows[inside]) for model, inside in zip(models, folds, strict=True)]
        judged.append({kind: np.concatenate([part[kind] for part in parts])[order] for kind in parts[0]})
    return models, judged
