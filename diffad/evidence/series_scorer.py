"""From raw rows of a series to each channel's share of their scores, in the units of the recording.

Whole series or the last row alone; what is fitted here does not change (:mod:`diffad.evidence.fitting` makes it).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.base.defaults import pinned_defaults
from diffad.evidence.of_model import ModelEvidence
from diffad.evidence.scoring import Scorer
from diffad.series.constant_channels import ConstantChannels
from diffad.series.scaling import Scaling, squash, unsquash

Array = NDArray[np.float32]
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Learnt:
    """What was learnt of the channels that move.

    Attributes
    ----------
    scorer : Scorer
    model : ModelEvidence or None
        Residuals of an imputer that join the evidence.
    band : array (n_modelled_channels,)
        Half the width of the 90 % band around expected values, in standardised units.
    highest : float
        Score of the strangest normal row.
    """

    scorer: Scorer
    model: ModelEvidence | None
    band: Rows
    highest: float


@dataclass(frozen=True)
class SeriesScorer:
    """Judges rows of one series at a time.

    Attributes
    ----------
    scaling : Scaling
        Units of the channels.
    constant : ConstantChannels
        Levels of the channels that never moved: moving at all is their alarm.
    learnt : Learnt or None
        None where no channel moved.
    """

    scaling: Scaling
    constant: ConstantChannels
    learnt: Learnt | None

    @property
    def longest(self) -> int:
        """Rows of the longest window."""
        return self.learnt.scorer.models.lengths.longest if self.learnt else 1

    @property
    def rows_after(self) -> int:
        """Rows after the judged one that windows see at most."""
        if self.learnt is None:
            return 0
        models = self.learnt.scorer.models
        return max((models.reach(length)[1] for length in models.lengths.all), default=0)

    def evidence(self, raw: Rows) -> dict[str, Array]:
        """Return evidence by kind of rows (n, n_features); see :meth:`diffad.evidence.scoring.Scorer.evidence`."""
        if self.learnt is None:
            return {}
        with pinned_defaults(), torch.no_grad():
            return evidence_of_rows(raw, self.scaling, self.learnt.scorer, self.learnt.model)

    def shares(self, raw: Rows, threshold: float = 0.0) -> Rows:
        """Return each channel's part (n, n_features) of the rows' scores.

        Parameters
        ----------
        raw : array (n, n_features)
            In time order, NaN = missing.
        threshold : float, default=0.0
            Channels that never moved before and do so now score more than this.
        """
        share = self._of_moves(raw, threshold)
        if self.learnt is not None:
            modelled = self.scaling.modelled
            share[:, modelled] = self.learnt.scorer.by_channel(self.evidence(raw), int(modelled.sum()))
        return share

    def shares_of_last(self, raw: Rows, threshold: float) -> Rows:
        """Return the shares (n_features,) of the last of a few rows, by windows that end with it."""
        share = self._of_moves(raw[-1:], threshold)[0]
        if self.learnt is not None:
            rows, scorer = standardised(raw, self.scaling), self.learnt.scorer
            with pinned_defaults(), torch.no_grad():
                found = scorer.evidence_of_last(rows)
            share[self.scaling.modelled] = scorer.by_channel(found, rows.shape[1])[0]
        return share

    def expected(self, raw: Rows) -> tuple[Rows, Rows, Rows]:
        """Return what rows (n, n_features) should have shown, and the lower and upper edge of a 90 % band around it."""
        rows = standardised(raw, self.scaling)
        centre = band = np.zeros(rows.shape)
        if self.learnt is not None:
            models = self.learnt.scorer.models
            with pinned_defaults(), torch.no_grad():
                centre, band = models.expected(rows), self.learnt.band * models.doubt(rows)
        knee = self.scaling.knee[self.scaling.modelled]
        expected, lower, upper = (
            self.scaling.inverse(unsquash(edge, knee)) for edge in (centre, centre - band, centre + band)
        )
        return expected, lower, upper

    def accepting(self, moves: NDArray[np.bool_]) -> SeriesScorer:
        """Return a scorer that no longer watches some channels (n_features,) that never moved before."""
        return replace(self, constant=self.constant.without(moves))

    def _of_moves(self, raw: Rows, threshold: float) -> Rows:
        highest = self.learnt.highest if self.learnt else 0.0
        return np.where(self.constant.moves(raw), 1 + 2 * max(highest, threshold), 0.0)


def evidence_of_rows(
    raw: Rows, scaling: Scaling, scorer: Scorer, model_evidence: ModelEvidence | None
) -> dict[str, Array]:
    """Return evidence by kind of the rows (n, n_features) of one series."""
    found = scorer.evidence(standardised(raw, scaling))
    # What the gate refused is not computed; before it has decided, everything is.
    if model_evidence is not None and scorer.weights.get("model", 1.0):
        found["model"] = model_evidence(raw)
    return found


def standardised(raw: Rows, scaling: Scaling) -> Array:
    """Return rows of the modelled channels in standard deviations, bursts compressed."""
    return squash(scaling.forward(raw), scaling.knee[scaling.modelled]).astype(np.float32)
