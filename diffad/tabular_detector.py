"""`TabularDetector`: strange rows of mixed tables, with the columns to blame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from diffad import tracking
from diffad.base.atomic import all_or_nothing
from diffad.base.defaults import pinned_defaults
from diffad.base.devices import device_of
from diffad.detection import Detector, Explanation
from diffad.rows.encoding import Columns
from diffad.rows.evidence import KINDS, NETWORKS, Learn, fit_rows
from diffad.rows.input import TableInput
from diffad.rows.residual import RowResidual
from diffad.thresholds import TRIMMING, NormalScores, Threshold
from diffad.training import Progress, Training, check_training

Scores = NDArray[np.float64]

#: Training rows beyond which evidence is learnt from a random sample, and rows encoded at a time: memory does not
#: grow with the table.
MOST_ROWS, CHUNK = 3_000, 8_192


class TabularDetector(Detector, TableInput):
    """Find strange rows in tables of numbers and categories, and say which columns made them so.

    1. Numbers are standardised, categories (and columns of two values) become indicators; NaN is filled by its conditional
       mean under a Gaussian, so that what is missing is no evidence.
    2. Distances to the nearest normal rows (to one and to five, Euclidean and Manhattan, and among
       ranks), the sheet on which the neighbours lie and a Gaussian mixture (components by BIC) are
       kinds of evidence.
    3. Each becomes the probability that a normal row looks as strange, by cross-fitting on random
       folds; a power mean of them is the score.
    4. Given `training`, diffusion models learn how to take noise away from normal rows, each without a part of them; how
       far they move a row joins the evidence, as far as faults put into rows they have not seen say that it helps.
    5. The same cross-fitted scores set the threshold and give conformal p-values.

    Parameters
    ----------
    threshold : FalseAlarmRate or None, default=None
        When to alarm; None is ``FalseAlarmRate(0.01)``, or the share `contamination` of the
        training rows.
    contamination : float, default=0.0
        Share of the training rows that may be anomalies: the strangest are left out of the fit, and the mean
        distance to more neighbours than there are anomalies, ``"crowd"``, joins the evidence with half of the say.
        Anomalies that resemble each other and many normal rows stay, and hide their like. Say no more than there are:
        left out normal rows alarm, more than a `threshold` promises (of 400 rows without any, 6 % at a rate of 1 %
        where 0.05 was said).
    categorical_features : sequence of column names or numbers, or mask of all columns, default=None
        None takes the columns of text, category and bool.
    kinds : sequence of str or None, default=None
        Kinds of evidence to use; None is all of ``("nearest", "neighbours", "nearest_manhattan",
        "neighbours_manhattan", "mixture", "ranks", "sheet")``. Fewer are faster.
    training : Training or None, default=None
        How to train three networks on two thirds of the rows (3,000 at most) each; None is the closed forms alone.
        ``Training(max_steps=500)`` takes some ten seconds on one core, more steps hardly find more; scoring then takes
        about twice as long. They find entries that are a little off or belong to another row, where columns depend on
        each other; of new kinds of rows they find hardly more, or less. ``training.mixing`` and
        ``training.patience`` mean nothing here, ``training.checkpoint`` is refused.
    device : str, default="auto"
        Of the networks: ``"cpu"``, ``"cuda"``; ``"auto"`` takes CUDA where it is.
    random_state : int, RandomState instance or None, default=0
        Seed of the folds, of the networks, and of the sample of 3,000 rows where there are more.

    Attributes
    ----------
    offset_ : float
        Threshold on `score_samples`.
    normal_ : NormalScores
        Cross-fitted scores of the training rows.
    columns_ : Columns
        How columns became numbers.
    scorer_ : RowScorer
        Evidence of all kinds, its tails, and the networks; ``scorer_.network_weight`` is what these count for, in numbers of
        other kinds: 0 where they were refused.
    history_ : list of dict
        Network, step, seconds and training loss; empty without `training`.
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

    stands_for: ClassVar = Detector.stands_for | {"training": lambda _: Training()}
    # With 20 rows two to four times as many alarm as asked for, with 40 half as many more.
    few: ClassVar = 40

    def __init__(
        self,
        threshold: Threshold | None = None,
        contamination: float = 0.0,
        categorical_features: Sequence[str | int] | None = None,
        kinds: Sequence[str] | None = None,
        training: Training | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.threshold = threshold
        self.contamination = contamination
        self.categorical_features = categorical_features
        self.kinds = kinds
        self.training = training
        self.device = device
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
        self._chosen(KINDS)
        self._check_training()
        table = self._table(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.history_: list[dict[str, float]] = []
        with tracking.run_of(self, X) as on_progress, pinned_defaults():
            self.columns_ = Columns.fit(table, self.categorical_features)
            shown = table.notna().any(axis=1).to_numpy()
            self._warn_of_few(int(shown.sum()))
            kept = np.flatnonzero(shown)
            for _ in range(TRIMMING if self.contamination else 0):
                sample, cross_fitted = self._fit_scorer(table, kept, seed)
                strange = self._scores(table)
                strange[sample] = cross_fitted  # no row may vouch for itself
                kept = np.flatnonzero(shown & (strange <= np.quantile(strange[shown], 1 - self.contamination)))
                # Anomalies must not set the units of the columns either; whatever only they had stays an empty column.
                if table.iloc[kept].notna().any().all():
                    self.columns_ = Columns.fit(table.iloc[kept], self.categorical_features)
            _, normal = self._fit_scorer(table, kept, seed, self._learner(seed, on_progress))
            training = self._scores(table)[shown] if self.contamination and self.threshold is None else None
            self._decide(NormalScores.of_blocks([normal]), training)
        return self

    def evidence(self, X: Any) -> pd.DataFrame:
        """Return every kind of evidence per row, minus the log probability, as named columns.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.

        Returns
        -------
        DataFrame of shape (n_rows, kinds)
        """
        check_is_fitted(self)
        table = self._table(X, reset=False)
        with pinned_defaults():
            return pd.DataFrame(self._evidence(table), index=table.index)

    def explain(self, X: Any) -> Explanation:
        """Say which columns made each row strange, and what they should have shown.

        The share of a column is its part in the squared distances given all other columns. Bands hold nine of ten
        visible values of rows like those fitted on; around a missing one they are too narrow. For
        categories `expected` is the most likely one and there is no band.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.

        Returns
        -------
        Explanation
            Tables of X's index and columns, in X's units.
        """
        check_is_fitted(self)
        table = self._table(X, reset=False)
        names = table.columns if isinstance(X, pd.DataFrame) else pd.Index(self.columns_.names)
        with pinned_defaults():
            parts = [self._explained(table.iloc[i : i + CHUNK]) for i in range(0, len(table), CHUNK)]
        centre, blame, strange = (np.concatenate(part) for part in zip(*parts, strict=True))
        owner = self.columns_.owner
        # A row that nothing is to blame for: what it shows, all alike.
        shown = ~table.isna().to_numpy() | table.isna().all(axis=1).to_numpy()[:, None]
        blame = np.where(blame.any(1, keepdims=True), blame, shown)
        part = blame / blame.sum(1, keepdims=True)
        share = part * strange[:, None]
        expected: dict[str, Any] = {}
        lower, upper = (pd.DataFrame(np.nan, table.index, names) for _ in range(2))
        for k, name in enumerate(names):
            entries = np.flatnonzero(owner == k)
            if k in self.columns_.categories:
                labels = np.array([*self.columns_.categories[k], None], dtype=object)
                expected[name] = labels[centre[:, entries].argmax(1)]
                continue
            scale, offset = self.columns_.scale[k], self.columns_.centre[k]
            middle, half = centre[:, entries[0]] * scale + offset, self.scorer_.band[entries[0]] * scale
            expected[name], lower[name], upper[name] = middle, middle - half, middle + half
        shares = pd.DataFrame(share, table.index, names)
        return Explanation(shares, pd.DataFrame(expected, index=table.index).set_axis(names, axis=1), lower, upper)

    def _explained(self, table: pd.DataFrame) -> tuple[Scores, Scores, Scores]:
        """Return what entries should have been (n, d), the blame of columns (n, columns) and the scores (n,) of rows."""
        rows = self.columns_.encode(table)
        residual, blame = self.scorer_.filler.residual(rows)
        return self.scorer_.filler(rows) - residual, blame, self.scorer_.score(self.scorer_.evidence(rows))

    def _shown(self, X: Any) -> NDArray[np.bool_]:
        return np.asarray(self._table(X, reset=False).notna().any(axis=1))

    def _check_training(self) -> None:
        check_training(self.training)
        device_of(self.device)
        if self.training is not None and self.training.checkpoint is not None:
            raise ValueError(
                f"training.checkpoint={self.training.checkpoint!r} is one file, but {NETWORKS} networks are trained; "
                "give a Training without one"
            )

    def _learner(self, seed: int, on_progress: Progress | None) -> Learn | None:
        """Return what trains a network, and notes how it went; None where none is asked for."""
        training, device = check_training(self.training), device_of(self.device)
        if training is None:
            return None

        def learn(rows: Scores, number: int) -> RowResidual:
            def tell_step(step: int, losses: dict[str, float]) -> None:
                if on_progress is not None:
                    on_progress(number * training.max_steps + step, losses)

            found, history = RowResidual.fit(rows, training, seed + number, device, tell_step)
            self.history_ += [{"network": float(number), **entry} for entry in history]
            return found

        return learn

    def _fit_scorer(
        self, table: pd.DataFrame, kept: NDArray[np.int64], seed: int, learn: Learn | None = None
    ) -> tuple[NDArray[np.int64], Scores]:
        """Fit the evidence to the kept rows, a random sample of many; return which, and their cross-fitted scores."""
        if len(kept) > MOST_ROWS:
            kept = np.sort(np.random.default_rng(seed).choice(kept, MOST_ROWS, replace=False))
        rows, owner = self.columns_.encode(table.iloc[kept]), self.columns_.owner
        self.scorer_, normal = fit_rows(rows, owner, self._chosen(KINDS), seed, self.contamination, learn)
        return kept, normal

    def _evidence(self, table: pd.DataFrame) -> dict[str, Scores]:
        """Return evidence by kind; only a part of the rows is encoded at a time."""
        chunks = [table.iloc[i : i + CHUNK] for i in range(0, len(table), CHUNK)]
        parts = [self.scorer_.evidence(self.columns_.encode(chunk)) for chunk in chunks]
        return {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}

    def _scores(self, table: pd.DataFrame) -> Scores:
        return self.scorer_.score(self._evidence(table))

    def _strangeness(self, X: Any) -> Scores:
        check_is_fitted(self)
        with pinned_defaults():
            return self._scores(self._table(X, reset=False))
