"""Evidence of a diffusion model: what it leaves over of each channel, judged as a recording of its own.

The residuals of normal rows are a recording, too, whitened by the model; windows of it are judged
by the same closed forms, cross-fitted on the same blocks (:mod:`diffad.evidence.cross_fitting`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from diffad.base.gate import admitted
from diffad.evidence.combination import WEIGHTS, combine
from diffad.evidence.cross_fitting import fit_scorer
from diffad.evidence.residual import left_over
from diffad.evidence.scoring import Scorer
from diffad.evidence.window_model import LINEAR
from diffad.faults import FAULTS, inject
from diffad.model import MaskedDiffusion
from diffad.series.scaling import Scaling, squash

Array = NDArray[np.float32]

#: Shares of the linear evidence that the gate tries, beside 0.
SHARES = (0.2, 0.35, 0.5)
#: Average precision that a share must win.
WORTH = 0.005


@dataclass(frozen=True)
class ModelEvidence:
    """Model, its units, and the closed forms of its residuals."""

    model: MaskedDiffusion
    scaling: Scaling
    scorer: Scorer

    @classmethod
    def fit(
        cls,
        model: MaskedDiffusion,
        scaling: Scaling,
        series: list[NDArray[np.float64]],
        centred: bool,
        remembered: Sequence[NDArray[np.float64]] = (),
    ) -> tuple[ModelEvidence, Array]:
        """Fit to normal series (n, channels) in their own units, NaN = missing, and to earlier ones.

        Returns
        -------
        ModelEvidence
        normal : array (n, channels)
            Evidence of the rows of `series`, by closed forms that had not seen them; the model itself may have, so that
            new rows look a little stranger to it.
        """
        residuals, earlier = ([_residual(model, scaling, rows) for rows in part] for part in (series, remembered))
        fitted = fit_scorer(residuals, LINEAR, WEIGHTS, centred, model.device, earlier)
        return cls(model, scaling, fitted.scorer), _joined(fitted.normal)

    def __call__(self, rows: NDArray[np.float64]) -> Array:
        """Return evidence (n, modelled channels) of rows (n, channels) in their own units."""
        return _joined(self.scorer.evidence(_residual(self.model, self.scaling, rows)))


def _residual(model: MaskedDiffusion, scaling: Scaling, rows: NDArray[np.float64]) -> Array:
    with torch.no_grad():
        residual = left_over(model, scaling.forward(rows).astype(np.float32))
    return squash(residual.astype(np.float64)).astype(np.float32)


def _joined(evidence: Mapping[str, Array]) -> Array:
    total = sum(WEIGHTS[kind] for kind in LINEAR)
    return np.asarray(sum(WEIGHTS[kind] * values for kind, values in evidence.items()) / total, dtype=np.float32)


def with_model(weights: Mapping[str, float], share: float) -> dict[str, float]:
    """Return weights in which the model's residuals have a share of what the linear kinds had.

    Examples
    --------
    >>> with_model({"energy": 0.4, "quiet": 0.75}, 0.5)
    {'energy': 0.2, 'quiet': 0.75, 'model': 0.2}
    """
    linear = sum(weights.get(kind, 0.0) for kind in LINEAR)
    kept = {kind: value * (1 - share) if kind in LINEAR else value for kind, value in weights.items()}
    return {**kept, "model": share * (linear or 1.0)}


def _n_events(rows: NDArray[np.float64]) -> int:
    return max(1, min(20, len(rows) // 100))


def admitted_share(
    evidence: Callable[[NDArray[np.float64]], dict[str, Array]],
    weights: Mapping[str, float],
    normal: Sequence[NDArray[np.float64]],
    channels: int,
) -> float:
    """Return the share of the model's residuals that best ranks faults put into normal rows; 0 if none helps.

    Parameters
    ----------
    evidence : callable
        Maps rows (n, n_features) to evidence by kind, "model" among them.
    weights : mapping of kind to float
        Of the other kinds.
    normal : sequence of array (n, n_features)
        Stretches that the model was not trained on.
    channels : int
        Channels that are modelled.
    """
    precision: dict[float, list[float]] = {share: [] for share in (0.0, *SHARES)}
    for i, kind in enumerate(FAULTS):
        faulty = [
            inject(rows, kind, _n_events(rows), random_state=i + len(FAULTS) * j) for j, rows in enumerate(normal)
        ]
        y = np.concatenate([part.y for part in faulty])
        if not y.any():
            continue
        found = [evidence(np.asarray(part.X)) for part in faulty]
        for share, values in precision.items():
            new = with_model(weights, share)
            score = np.concatenate([combine(part, new, channels).sum(1) for part in found])
            values.append(average_precision_score(y, score))
    return admitted(list(precision), [float(np.mean(values)) for values in precision.values()], WORTH)
