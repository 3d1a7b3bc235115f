"""Fitting the closed forms behind a `SeriesDetector`: recordings in, a frozen scorer and its normal scores out.

Rows that are faults, known or suspected, are left out; labels weight the evidence; an imputer's
residuals join in as far as injected faults admit.  Thresholds are found elsewhere
(:mod:`diffad.detection`); nothing here knows tables or estimators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.base.telling import tell
from diffad.evidence.combination import default_weights, reweight
from diffad.evidence.cross_fitting import Ahead, CrossFit, evenly_spread, fit_scorer, look_ahead, trusted
from diffad.evidence.of_model import ModelEvidence, admitted_share, with_model
from diffad.evidence.scoring import Scorer
from diffad.evidence.series_scorer import Learnt, evidence_of_rows, standardised
from diffad.model import MaskedDiffusion
from diffad.series.held_out import held_out, split
from diffad.series.scaling import Scaling
from diffad.thresholds import TRIMMING, NormalScores

Array = NDArray[np.float32]
Rows = NDArray[np.float64]

#: Fewest rows into which faults are put to judge a model.
GATE_ROWS = 400
#: Normal rows that a detector remembers, in contiguous blocks.
MOST_REMEMBERED, BLOCK = 20_000, 500


@dataclass(frozen=True)
class Recipe:
    """How to fit.

    Attributes
    ----------
    scaling : Scaling
        Units of the channels; at least one is modelled.
    kinds : tuple of str
        Evidence to use.
    centred : bool
        Windows around the scored row; False ends them with it.
    device : torch.device
    contamination : float
        Share of the rows that may be faults.
    model : (MaskedDiffusion, Scaling) or None
        Whose residuals are judged, too, and its units.
    """

    scaling: Scaling
    kinds: tuple[str, ...]
    centred: bool
    device: torch.device
    contamination: float
    model: tuple[MaskedDiffusion, Scaling] | None


@dataclass(frozen=True)
class Memory:
    """What later learning builds on.

    Attributes
    ----------
    series : list of array (n_timestamps, n_features)
        Normal rows in their own units; NaN where missing, or left out as faults.
    weights : mapping of kind to float
        Of the closed forms.
    """

    series: list[Rows]
    weights: Mapping[str, float]

    def thinned(self) -> Memory:
        """Keep at most `MOST_REMEMBERED` rows in evenly spread blocks, in which shapes stay whole."""
        if sum(len(rows) for rows in self.series) <= MOST_REMEMBERED:
            return self
        pieces = [rows[a : a + BLOCK] for rows in self.series for a in range(0, len(rows), BLOCK)]
        pick = evenly_spread([len(piece) for piece in pieces], MOST_REMEMBERED)
        return replace(self, series=[pieces[i].copy() for i in pick])


@dataclass(frozen=True)
class FittedDetector:
    """What scores and decisions rest on.

    Attributes
    ----------
    learnt : Learnt
    normal : NormalScores
        Of the rows fitted on, by models that had not seen them.
    ahead : Ahead or None
        How well the first half of the rows foretells the second.
    memory : Memory
    """

    learnt: Learnt
    normal: NormalScores
    ahead: Ahead | None
    memory: Memory


def fit_detector(
    raw: list[Rows], faulty: list[NDArray[np.bool_]], recipe: Recipe, memory: Memory | None = None
) -> FittedDetector:
    """Fit to mostly normal series, and to what is remembered of earlier ones.

    Parameters
    ----------
    raw : list of array (n_timestamps, n_features)
        In their own units, NaN = missing.
    faulty : list of array (n_timestamps,)
        Rows known to be faults.
    recipe : Recipe
    memory : Memory, optional
        Models learn from it as well; normal scores, the look ahead and the band are of `raw` alone, so that decisions fit
        the present.
    """
    memory = memory or Memory([], default_weights(int(recipe.scaling.modelled.sum())))
    earlier = [standardised(rows, recipe.scaling) for rows in memory.series]
    series = [standardised(rows, recipe.scaling) for rows in raw]
    normal_only = _without(series, faulty)
    kept = normal_only
    for _ in range(TRIMMING if recipe.contamination else 0):
        kept = _trimmed(normal_only, _cross_fit(kept, recipe, memory.weights, earlier).scorer, recipe.contamination)
    ahead = look_ahead(kept, recipe.kinds, memory.weights, recipe.centred, recipe.device, earlier)
    trust = ahead.trust if ahead else {}
    fitted = _cross_fit(kept, recipe, trusted(memory.weights, trust), earlier)
    if not fitted.scorer.models.lengths.all:
        tell(
            f"X is too short for the evidence {list(recipe.kinds)}: nothing will look strange; give more rows",
        )
    if any(f.any() for f in faulty):
        fitted = _reweighted(fitted, series, faulty)
    normal_rows = [np.where(np.isnan(k).all(1, keepdims=True), np.nan, r) for k, r in zip(kept, raw, strict=True)]
    # Later rows will tell anew whom to trust.
    weights = trusted(fitted.scorer.weights, {kind: 1 / factor for kind, factor in trust.items()})
    together = Memory([*memory.series, *normal_rows], weights).thinned()
    model_evidence = None
    if recipe.model is not None:
        fitted, model_evidence = _join_model(fitted, normal_rows, recipe, memory.series)
    normal = fitted.scorer.by_channel(fitted.normal, kept[0].shape[1]).sum(1)
    learnt = Learnt(fitted.scorer, model_evidence, _band(fitted.residual), float(normal.max()))
    scores = NormalScores.of_rows(normal, [numbers for _, numbers in fitted.rows])
    return FittedDetector(learnt, scores, ahead, together)


def _band(residual: Rows) -> Rows:
    """Return what nine of ten residuals of each channel stay below; 0 where there are none."""
    known = ~np.isnan(residual).all(0)
    band = np.zeros(residual.shape[1])
    band[known] = np.nanquantile(np.abs(residual[:, known]), 0.9, axis=0)
    return band


def _cross_fit(kept: list[Array], recipe: Recipe, weights: Mapping[str, float], earlier: list[Array]) -> CrossFit:
    return fit_scorer(kept, recipe.kinds, weights, recipe.centred, recipe.device, earlier)


def _without(series: list[Array], marked: list[NDArray[np.bool_]]) -> list[Array]:
    """Blank the marked rows."""
    return [np.where(m[:, None], np.nan, s).astype(np.float32) for s, m in zip(series, marked, strict=True)]


def _trimmed(series: list[Array], scorer: Scorer, share: float) -> list[Array]:
    """Blank the share of the rows that score strangest."""
    strange = [scorer.by_channel(scorer.evidence(s), s.shape[1]).sum(1) for s in series]
    limit = np.quantile(np.concatenate(strange), 1 - share)
    return _without(series, [e > limit for e in strange])


def _reweighted(fitted: CrossFit, series: list[Array], faulty: list[NDArray[np.bool_]]) -> CrossFit:
    """Weight the evidence by the labelled faults, against the cross-fitted normal rows."""
    found = [fitted.scorer.evidence(s) for s in series]
    marked = np.concatenate(faulty)
    both = {k: np.concatenate([v, np.concatenate([e[k] for e in found])[marked]]) for k, v in fitted.normal.items()}
    label = np.r_[np.zeros(len(next(iter(both.values()))) - marked.sum(), bool), np.ones(marked.sum(), bool)]
    weights = reweight(both, label, fitted.scorer.weights, series[0].shape[1])
    return replace(fitted, scorer=replace(fitted.scorer, weights=weights))


def _unseen(normal_rows: list[Rows], length: int) -> list[Rows]:
    """Return the stretches that are held out from the training of a network; the last rows where there are few."""
    pieces = split(normal_rows, held_out([len(rows) for rows in normal_rows], length), True)
    if sum(len(piece) for piece in pieces) < GATE_ROWS:
        return [max(normal_rows, key=len)[-GATE_ROWS:]]
    return pieces


def _join_model(
    fitted: CrossFit, normal_rows: list[Rows], recipe: Recipe, earlier: list[Rows]
) -> tuple[CrossFit, ModelEvidence]:
    """Add the model's residuals to the evidence, with the weight that injected faults admit."""
    assert recipe.model is not None
    evidence, normal = ModelEvidence.fit(*recipe.model, normal_rows, recipe.centred, earlier)
    pieces = _unseen(normal_rows, recipe.model[0].length)
    scorer = fitted.scorer

    def found(rows: Rows) -> dict[str, Array]:
        return evidence_of_rows(rows, recipe.scaling, scorer, evidence)

    share = admitted_share(found, scorer.weights, pieces, int(recipe.scaling.modelled.sum()))
    scorer = replace(scorer, weights=with_model(scorer.weights, share))
    return replace(fitted, scorer=scorer, normal={**fitted.normal, "model": normal}), evidence
