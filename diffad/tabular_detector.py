"""`TabularDetector`: strange rows of mixed tables, with the columns to blame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from diffad import tracking
from diffad.atomic import all_or_nothing
from diffad.defaults import pinned_defaults
from diffad.detection import Detector, Explanation
from diffad.encoding import Columns
from diffad.row_evidence import KINDS, fit_rows, score
from diffad.tabular_input import TableInput
from diffad.thresholds import NormalScores, Threshold

Scores = NDArray[np.float64]

#: Training rows beyond which evidence is learnt from a random sample, and rows encoded at a time: memory does not
#: grow with the table.
MOST_ROWS, CHUNK = 3_000, 8_192
#: Rounds of leaving out the strangest rows where `contamination` says that there are some.
TRIMMING = 2
#: Half a 90 % band, in standard deviations.
BAND = 1.645


class TabularDetector(Detector, TableInput):
    """Find strange rows in tables of numbers and categories, and say which columns made them so.

    1. Numbers are standardised, categories (and columns of two values) become indicators; NaN is filled by its conditional
       mean under a Gaussian, so that what is missing is no evidence.
    2. Distances to the nearest normal rows (to one and to five, Euclidean and Manhattan, and among
       ranks), the sheet on which the neighbours lie and a Gaussian mixture (components by BIC) are
       kinds of evidence.
    3. Each becomes the probability that a normal row looks as strange, by cross-fitting on random
       folds; a power mean of them is the score.
    4. The same cross-fitted scores set the threshold and give conformal p-values.

    Parameters
    ----------
    threshold : FalseAlarmRate or None, default=None
        When to alarm; None is ``FalseAlarmRate(0.01)``, or the share `contamination` of the
        training rows.
    contamination : float, default=0.0
        Share of the training rows that may be anomalies: the strangest are left out of the fit, and the mean
        distance to more neighbours than there are anomalies, ``"crowd"``, joins the evidence with half of the say.
        Anomalies that resemble each other and many normal rows stay, and hide their like.
    categorical_features : sequence of column names or numbers, or mask of all columns, default=None
        None takes the columns of text, category and bool.
    kinds : sequence of str or None, default=None
        Kinds of evidence to use; None is all of ``("nearest", "neighbours", "nearest_manhattan",
        "neighbours_manhattan", "mixture", "ranks", "sheet")``. Fewer are faster.
    random_state : int, RandomState instance or None, default=0
        Seed of the folds, and of the sample of 3,000 rows where there are more.

    Attributes
    ----------
    offset_ : float
        Threshold on `score_samples`.
    normal_ : NormalScores
        Cross-fitted scores of the training rows.
    columns_ : Columns
        How columns became numbers.
    scorer_ : RowScorer
        Evidence of all kinds, and its tails.
    n_features_in_ : int

    References
    ----------
    Livernoche et al. (2024), "On diffusion modeling for anomaly detection" (the neighbour distance
    as the limit of a diffusion model); Bates et al. (2023), conformal p-values.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from diffad import TabularDetector
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal(500)
    >>> X = pd.DataFrame({"a": x, "b": x + 0.1 * rng.standard_normal(500), "c": rng.choice(["u", "v"], 500)})
    >>> detector = TabularDetector().fit(X)
    >>> strange = pd.DataFrame({"a": [1.0, 0.0], "b": [-1.0, 0.0], "c": ["u", "v"]})
    >>> detector.predict(strange).tolist()
    [-1, 1]
    """

    def __init__(
        self,
        threshold: Threshold | None = None,
        contamination: float = 0.0,
        categorical_features: Sequence[str | int] | None = None,
        kinds: Sequence[str] | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.threshold = threshold
        self.contamination = contamination
        self.categorical_features = categorical_features
        self.kinds = kinds
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what is normal.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_features)
            NaN is missing.
        y : ignored

        Returns
        -------
        self
        """
        self._check_decision()
        self._refuse_clock()
        self._chosen(KINDS)
        table = self._table(X, reset=True)
        self.period_ = None
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with tracking.run_of(self, X), pinned_defaults():
            self.columns_ = Columns.fit(table, self.categorical_features)
            kept = np.arange(len(table))
            for _ in range(TRIMMING if self.contamination else 0):
                sample, cross_fitted = self._fit_scorer(table, kept, seed)
                strange = self._scores(table)
                strange[sample] = cross_fitted  # no row may vouch for itself
                kept = np.flatnonzero(strange <= np.quantile(strange, 1 - self.contamination))
                # Anomalies must not set the units of the columns either; whatever only they had stays an empty column.
                if table.iloc[kept].notna().any().all():
                    self.columns_ = Columns.fit(table.iloc[kept], self.categorical_features)
            _, normal = self._fit_scorer(table, kept, seed)
            training = self._scores(table) if self.contamination and self.threshold is None else None
            self._decide(NormalScores.of_blocks([normal]), training)
        return self

    def evidence(self, X: Any) -> pd.DataFrame:
        """Return every kind of evidence per row, minus the log probability, as named columns."""
        check_is_fitted(self)
        table = self._table(X, reset=False)
        with pinned_defaults():
            return pd.DataFrame(self._evidence(table), index=table.index)

    def explain(self, X: Any) -> Explanation:
        """Say which columns made each row strange, and what they should have shown.

        The share of a column is its part in the squared distances given all other columns; for
        categories `expected` is the most likely one and there is no band.
        """
        check_is_fitted(self)
        table = self._table(X, reset=False)
        rows = self.columns_.encode(table)
        with pinned_defaults():
            residual, blame, deviation = self.scorer_.filler.residual(rows)
            strange = score(self.scorer_.evidence(rows))
            centre = self.scorer_.filler(rows) - residual
        owner, n_columns = self.columns_.owner, len(self.columns_.names)
        total = blame.sum(1, keepdims=True)
        part = np.where(total > 0, blame / np.maximum(total, 1e-300), 1 / n_columns)
        share = part * strange[:, None]
        expected: dict[str, Any] = {}
        lower, upper = (pd.DataFrame(np.nan, table.index, self.columns_.names) for _ in range(2))
        for k, name in enumerate(self.columns_.names):
            entries = np.flatnonzero(owner == k)
            if k in self.columns_.categories:
                labels = np.array([*self.columns_.categories[k], None], dtype=object)
                expected[name] = labels[centre[:, entries].argmax(1)]
                continue
            scale, offset = self.columns_.scale[k], self.columns_.centre[k]
            middle, half = centre[:, entries[0]] * scale + offset, BAND * deviation[entries[0]] * scale
            expected[name], lower[name], upper[name] = middle, middle - half, middle + half
        shares = pd.DataFrame(share, table.index, self.columns_.names)
        return Explanation(shares, pd.DataFrame(expected, index=table.index), lower, upper)

    def _fit_scorer(self, table: pd.DataFrame, kept: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], Scores]:
        """Fit the evidence to the kept rows, a random sample of many; return which, and their cross-fitted scores."""
        if len(kept) > MOST_ROWS:
            kept = np.sort(np.random.default_rng(seed).choice(kept, MOST_ROWS, replace=False))
        rows, owner = self.columns_.encode(table.iloc[kept]), self.columns_.owner
        self.scorer_, normal = fit_rows(rows, owner, self._chosen(KINDS), seed, self.contamination)
        return kept, normal

    def _evidence(self, table: pd.DataFrame) -> dict[str, Scores]:
        """Return evidence by kind; only a part of the rows is encoded at a time."""
        chunks = [table.iloc[i : i + CHUNK] for i in range(0, len(table), CHUNK)]
        parts = [self.scorer_.evidence(self.columns_.encode(chunk)) for chunk in chunks]
        return {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}

    def _scores(self, table: pd.DataFrame) -> Scores:
        return score(self._evidence(table))

    def _strangeness(self, X: Any) -> Scores:
        check_is_fitted(self)
        with pinned_defaults():
            return self._scores(self._table(X, reset=False))
