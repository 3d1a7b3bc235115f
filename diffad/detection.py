"""What every detector does with its scores, whatever the shape of the data.

Subclasses give `_strangeness(X)`, larger = stranger, and set `normal_` in `fit`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from diffad.base.arguments import is_number
from diffad.base.atomic import all_or_nothing
from diffad.base.holds_parameters import HoldsParameters
from diffad.base.telling import tell
from diffad.drift import drifted
from diffad.thresholds import AlarmsPerDay, FalseAlarmRate, NormalScores, Threshold

Scores = NDArray[np.float64]

#: Most that drift within the training data may raise a threshold.
MOST_DRIFT = 1.5


@dataclass(frozen=True)
class Explanation:
    """Why rows scored what they did; every table is (n_rows, n_features).

    Attributes
    ----------
    share : DataFrame
        Part of the row's score that each channel or column is to blame for; rows add up to
        ``-score_samples``.
    expected : DataFrame
        What it should have shown, given everything else that is visible, in its units.
    lower, upper : DataFrame
        90 % band around it.
    """

    share: pd.DataFrame
    expected: pd.DataFrame
    lower: pd.DataFrame
    upper: pd.DataFrame


class DriftWarning(UserWarning):
    """New data look unlike the normal data the threshold was calibrated on."""


class Detector(OutlierMixin, HoldsParameters):
    """Base of the detectors: scores in, decisions out."""

    stands_for: ClassVar = {"threshold": lambda _: FalseAlarmRate()}
    #: Normal rows or images below which more alarm than was asked for.
    few: ClassVar[int]
    unit: ClassVar[str] = "rows"
    #: Whether rows have times, which alarms a day need.
    timed: ClassVar[bool] = False

    contamination: float
    threshold: Threshold | None
    normal_: NormalScores
    #: Seconds between rows, where they have times.
    period_: float | None = None
    offset_: float

    def _strangeness(self, X: Any) -> Scores:
        raise NotImplementedError

    def _shown(self, X: Any) -> NDArray[np.bool_]:
        """Return which rows or images (n,) show anything at all: the others are no evidence of what is normal."""
        raise NotImplementedError

    def score_samples(self, X: Any) -> Scores:
        """Return one score per row, higher = more normal.

        Parameters
        ----------
        X : as in `fit`
            Rows or images to judge.

        Returns
        -------
        array of shape (n,)
        """
        return -self._strangeness(X)

    def decision_function(self, X: Any) -> Scores:
        """Return the score's distance to the threshold: negative is an alarm.

        Parameters
        ----------
        X : as in `fit`
            Rows or images to judge.

        Returns
        -------
        array of shape (n,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for rows that alarm, 1 for the others.

        Parameters
        ----------
        X : as in `fit`
            Rows or images to judge.

        Returns
        -------
        array of shape (n,), int64

        Warns
        -----
        DriftWarning
            Where most look stranger than the normal data that the threshold rests on.
        """
        return self._verdicts(self._strangeness(X))

    def p_values(self, X: Any) -> Scores:
        """Return conformal p-values: how often normal rows look as strange.

        Parameters
        ----------
        X : as in `fit`
            Rows or images to judge.

        Returns
        -------
        array of shape (n,)
            ``(1 + normal rows as strange) / (normal rows + 1)``, from 0 (excluded) to 1.
        """
        score = self._strangeness(X)  # tells first whether anything was fitted
        return self.normal_.p_values(score)

    @all_or_nothing
    def recalibrate(self, X: Any) -> Self:
        """Set the threshold and the p-values anew on normal data, without training.

        A detector that went by its `contamination` alone holds the default threshold, `FalseAlarmRate`, from then on.

        Parameters
        ----------
        X : as in `fit`
            Normal rows or images, others than those fitted on.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X shows nothing, or `threshold` was since set to what is no threshold here.

        Warns
        -----
        UserWarning
            Where X is so little that more may alarm than asked for.
        """
        check_is_fitted(self)
        self._check_decision()
        strange = self._strangeness(X)[self._shown(X)]
        self._warn_of_few(len(strange))
        self._decide(NormalScores.of_blocks([strange]))
        return self

    def _decide(
        self,
        normal: NormalScores,
        training: Scores | None = None,
        halves: tuple[list[Scores], Scores] | None = None,
    ) -> None:
        """Keep the normal scores and find the threshold.

        Where the scores of blocks of the first half of the data and those of the second half by its models are
        given, `halves`, the threshold rises by as much as that of the worst block would have had to, at most to
        `MOST_DRIFT` times: no block of steady data asks for more than another, and what comes is at least as far from
        what was fitted as one half is from the other.

        With `contamination` and no threshold of its own, a detector flags that share of its training data, as
        scikit-learn's do.
        """
        self.normal_ = normal
        threshold = self.threshold or FalseAlarmRate()
        if self.threshold is None and self.contamination and training is not None:
            self.offset_ = -float(np.quantile(training, 1 - self.contamination))
            return
        found = threshold.find(normal, self.period_)
        if halves is not None:
            blocks = [NormalScores.of_blocks([h]) for h in (*halves[0], halves[1])]
            # Warned of once, of all normal scores.
            asked = [threshold.find(block, self.period_, compared=True) for block in blocks]
            expected, seen = max(*asked[:-1], 1e-12), max(asked[-1], 1e-12)
            found *= float(np.clip(seen / expected, 1.0, MOST_DRIFT))
        self.offset_ = -found

    def _chosen(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the kinds of evidence to use, in their order; None is all that are known."""
        kinds: Any = getattr(self, "kinds", None)
        if kinds is None:
            return known
        if (
            isinstance(kinds, str)
            or not isinstance(kinds, Collection)
            or not len(kinds)
            or not all(isinstance(kind, str) and kind in known for kind in kinds)
        ):
            raise ValueError(f"kinds must be None or some of {list(known)}, got {kinds!r}")
        return tuple(kind for kind in known if kind in kinds)

    def _check_decision(self) -> None:
        if not is_number(self.contamination) or not 0 <= self.contamination < 0.5:
            raise ValueError(f"contamination must lie in [0, 0.5), got {self.contamination!r}")
        if self.threshold is not None and not isinstance(self.threshold, Threshold):
            raise ValueError(f"threshold must be FalseAlarmRate, AlarmsPerDay or None, got {self.threshold!r}")
        if isinstance(self.threshold, AlarmsPerDay) and not self.timed:
            raise ValueError(
                f"threshold={self.threshold!r} counts events in time, of which {type(self).__name__} knows nothing; give "
                "FalseAlarmRate(alarms a day / rows or images a day)"
            )

    def _warn_of_few(self, n: int) -> None:
        if not n:
            raise ValueError("X holds no observed value at all; normal data are needed")
        if n < self.few:
            tell(f"X holds {n} normal {self.unit}: with fewer than {self.few}, more may alarm than asked for")

    def _verdicts(self, strangeness: Scores) -> NDArray[np.int64]:
        """Return -1 for what alarms, 1 for the others, and warn where the threshold does not fit any more."""
        self._look_for_drift(strangeness)
        return np.where(-strangeness < self.offset_, -1, 1)

    def _look_for_drift(self, score: Scores) -> None:
        if drifted(self.normal_.p_values(score)):
            tell(
                "most rows look stranger than the normal data calibrated on: the promised alarm rate does not "
                "hold here; call recalibrate(X_normal) with recent normal rows",
                DriftWarning,
            )
