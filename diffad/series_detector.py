"""`SeriesDetector`: alarms on sensor recordings, with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from diffad import tracking
from diffad.base.atomic import all_or_nothing
from diffad.base.defaults import pinned_defaults
from diffad.base.devices import device_of
from diffad.base.telling import tell
from diffad.detection import Detector, Explanation
from diffad.evidence.cross_fitting import FOLDS
from diffad.evidence.events import event_table
from diffad.evidence.fault_labels import faulty_rows
from diffad.evidence.fitting import Memory, Recipe, fit_detector
from diffad.evidence.series_scorer import SeriesScorer
from diffad.evidence.window_model import AMONG_CHANNELS, KINDS, WHOLE
from diffad.series.constant_channels import ConstantChannels
from diffad.series.counters import warn_of_counters
from diffad.series.input import SeriesInput
from diffad.series.recordings import Recording
from diffad.series.standstill import warn_of_carried_forward
from diffad.series.time_grid import months_apart
from diffad.series_imputer import SeriesImputer
from diffad.stream import Stream
from diffad.thresholds import NormalScores, Threshold

Scores = NDArray[np.float64]


class SeriesDetector(Detector, SeriesInput):
    """Find anomalies in multivariate series, and say which channel is to blame.

    1. Windows of several lengths around each row (or before it) are standardised.
    2. Each channel is judged *given everything else in the window* by a Gaussian in closed form:
       its energy, matched filters for spikes, levels and steps; too quiet is a fault, too; so is a
       shape or a combination of readings never met in training, and a sensor that loses many of its readings.
    3. Each evidence becomes the probability that normal data look as strange, by cross-fitting on
       contiguous blocks; one fixed rule combines them.
    4. The same cross-fitted scores set the threshold and give p-values. Scores of the second half by
       models of the first raise the threshold where the recording drifts.

    A window that reaches into a fault is as strange as the fault. Of a single channel, windows around each row, rows
    that are strange by themselves are therefore hidden, and those around them looked at a second time.

    Windows are judged by what they show; a few gaps are no fault. A channel that loses most of its readings (from about
    three in five on), or all of them, while others speak, is one (kind ``"missing"``) where training lost fewer: it
    alarms for as long as some come through, so that a dead sensor is told once and does not hide the others. These are
    then judged by what is left: a fault of a channel that was tied to the dead one alone shows as if there had never
    been another. Of a single channel missing rows are no fault, however many.

    Parameters
    ----------
    context : {"both", "past"}, default="both"
        Windows around each row (offline), or ending with it: then a row's score uses nothing that
        comes later.
    threshold : FalseAlarmRate, AlarmsPerDay or None, default=None
        When to alarm; None is ``FalseAlarmRate(0.01)``, or the share `contamination` of the
        training rows.
    contamination : float, default=0.0
        Share of the training rows that may be faults: the strangest are left out of the fit. Say no more than there
        are: rare normal rows go with them. A few faults that stay cost little but a higher threshold. Without a
        `threshold`, this share of the training rows alarms, as in scikit-learn; of new normal rows a multiple may (1 %
        of 1,500 rows: 4 % of the next), which a `threshold` avoids.
    kinds : sequence of str or None, default=None
        Kinds of evidence to use; None is all of ``("energy", "local", "filter", "step",
        "decoupled", "window", "quiet", "missing", "shape", "nearest")``.
    regularize : bool, default=False
        Put irregular timestamps on a regular grid, as of `SeriesImputer`; False refuses. Scores then belong to the
        grid.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``; ``"auto"`` takes CUDA where it is.
    model : SeriesImputer or None, default=None
        An imputer of the same channels whose residuals join the evidence as ``"model"``, as far as faults put into
        held-out normal rows say that they help (``weights_["model"]``); fitted ones are reused (but not by `clone`, and
        so not by a grid search), others are fitted. Only for ``context="both"``. Costs the imputer's training, and
        scores some thousand rows a second.

    Attributes
    ----------
    offset_ : float
        Threshold on `score_samples`.
    normal_ : NormalScores
        Cross-fitted scores of the training rows.
    weights_ : dict of str to float
        Weight of each kind of evidence.
    model_ : SeriesImputer
        The fitted `model`; it fills gaps. Only where one was given.
    memory_ : Memory
        Up to 20,000 of the normal rows fitted on, in their own units, for `adapt`; stored with the detector.
    scaling_ : Scaling
        Centre and scale per channel.
    scorer_ : SeriesScorer
        Evidence of all kinds, its tails and weights; expected values and their bands; channels that never moved.
    period_ : float or None
        Seconds between rows; None without timestamps.
    months_ : int
        Months between rows whose timestamps are months, quarters or years; 0 of others.
    n_features_in_ : int
        Number of channels.

    References
    ----------
    Ledoit and Wolf (2004), shrunk covariance; Kay (1998), matched filters; Yeh et al. (2016),
    matrix profile; Bates et al. (2023), "Testing for outliers with conformal p-values".

    Examples
    --------
    >>> import numpy as np
    >>> from diffad import SeriesDetector
    >>> rng = np.random.default_rng(0)
    >>> t = np.arange(1200)[:, None]
    >>> X = np.sin(t / 8 + np.array([0.0, 1.0, 2.0])) + 0.1 * rng.standard_normal((1200, 3))
    >>> detector = SeriesDetector().fit(X[:800])
    >>> new = X[800:].copy()
    >>> new[200:210, 1] += 1
    >>> int(detector.score_samples(new).argmin()) in range(195, 215)
    True
    >>> detector.events(new).loc[0, "channels"]
    ['1']
    """

    # With 100 rows two to four times as many alarm as asked for, with 200 twice as many, with 400 half as many more.
    few: ClassVar = 200
    timed: ClassVar = True

    def __init__(
        self,
        context: str = "both",
        threshold: Threshold | None = None,
        contamination: float = 0.0,
        kinds: Sequence[str] | None = None,
        regularize: bool = False,
        device: str = "auto",
        model: SeriesImputer | None = None,
    ) -> None:
        self.context = context
        self.threshold = threshold
        self.contamination = contamination
        self.kinds = kinds
        self.regularize = regularize
        self.device = device
        self.model = model

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Learn what is normal from a recording that may have gaps, and a few faults.

        Parameters
        ----------
        X : DataFrame or array of shape (n_timestamps, n_features) or (n_series, n_timestamps, n_features)
            Rows in time order; NaN is missing.
        y : array-like of shape (n_timestamps,), optional
            Labels of rows known to be faults: 1 among 0, or -1 among 1. They are left out of what
            is normal, and the kinds of evidence are weighted so that they stand out.
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.

        Returns
        -------
        self
        """
        self._check_parameters()
        recording, self.period_ = self._read(X, groups, reset=True)
        self.months_ = months_apart(recording.index[max(recording.rows, key=len)])
        faulty = faulty_rows(y, recording)
        normal = recording.blanked(faulty)
        self.scaling_ = self._fit_scaling(normal)
        self._check_channels()
        self.__dict__.pop("model_", None)
        if self.model is not None:
            self.model_ = self._imputer(normal.template if self.regularize or y is not None else X, groups)
        known = [~np.isnan(raw).all(1) & ~fault for raw, fault in zip(recording.series, faulty, strict=True)]
        self._warn_of_few(sum(int(k.sum()) for k in known))
        warn_of_carried_forward(normal)
        warn_of_counters(normal.series, self.channel_names_)
        self._fitted_as = self._learnt_as()
        with tracking.run_of(self, X), pinned_defaults(), torch.no_grad():
            self._learn(recording.series, faulty, ConstantChannels.of(self.scaling_))
        return self

    def fit_predict(self, X: Any, y: Any = None, groups: Any = None) -> NDArray[np.int64]:
        """Fit to X, and to labels as `fit` takes them, and return -1 for its rows that alarm, 1 for the others.

        Parameters
        ----------
        X, y, groups
            As in `fit`.

        Returns
        -------
        array of shape (n_timestamps,), int64
        """
        return self.fit(X, y, groups=groups).predict(X, groups=groups)

    def score_samples(self, X: Any, groups: Any = None) -> Scores:
        """Return one score per row, higher = more normal.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`; fewer rows than a window are scored by what they show.
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.

        Returns
        -------
        array of shape (n_timestamps,)
        """
        return -self._strangeness(X, groups)

    def decision_function(self, X: Any, groups: Any = None) -> Scores:
        """Return the score's distance to the threshold: negative is an alarm.

        Parameters
        ----------
        X, groups
            As in `score_samples`.

        Returns
        -------
        array of shape (n_timestamps,)
        """
        return self.score_samples(X, groups) - self.offset_

    def p_values(self, X: Any, groups: Any = None) -> Scores:
        """Return conformal p-values: how often normal rows look as strange.

        Parameters
        ----------
        X, groups
            As in `score_samples`.

        Returns
        -------
        array of shape (n_timestamps,)
            ``(1 + normal rows as strange) / (normal rows + 1)``, from 0 (excluded) to 1.
        """
        score = self._strangeness(X, groups)
        return self.normal_.p_values(score)

    @all_or_nothing
    def recalibrate(self, X: Any, groups: Any = None) -> Self:
        """Set the threshold and the p-values anew on normal data, without training.

        Channels that never moved in `fit` and do so here are no longer watched, with a warning. A detector that went
        by its `contamination` alone holds the default threshold, `FalseAlarmRate`, from then on.

        Parameters
        ----------
        X : DataFrame or array
            Normal rows after those fitted on; as in `fit`.
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X shows nothing, or `threshold` was since set to what is no threshold.

        Warns
        -----
        UserWarning
            Below 200 rows: more may alarm than asked for.
        """
        recording = self._open(X, groups)
        self._check_decision()
        known = [np.flatnonzero(~np.isnan(raw).all(1)) for raw in recording.series]
        # A channel that never moved before has no part in the scores of normal rows: whatever it does is normal now.
        modelled = self.scaling_.modelled
        shares = zip(self._shares(recording), known, strict=True)
        normal = np.concatenate([share[rows][:, modelled].sum(1) for share, rows in shares])
        self._warn_of_few(len(normal))
        self._accept_moves(recording)
        self._decide(NormalScores.of_rows(normal, known))
        return self

    @all_or_nothing
    def adapt(self, X: Any, groups: Any = None) -> Self:
        """Learn from new, mostly normal rows as well, without the old recording at hand.

        A detector remembers up to 20,000 rows it was fitted on; evidence is fitted to them and to the new ones, so that
        what has changed is learnt and what was normal stays so. Threshold, p-values and bands come from the new rows
        alone, scored by models that had not seen them. Units stay, and so does the model's network. Channels that never
        moved in `fit` and do so here are no longer watched, with a warning. Costs a fit; `recalibrate` is faster and
        needs fewer rows, but learns nothing.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`, at least 4 times as many rows as the longest window.
        groups : array-like of shape (n_timestamps,), optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X has too few rows, or a channel of which nothing is known; the detector is then as before.
        """
        recording = self._open(X, groups)
        self._check_parameters()
        if self._learnt_as() != self._fitted_as:
            raise ValueError(
                f"context, kinds or model were set to others after fit ({self._fitted_as}); call fit again"
            )
        self._check_adaptable(recording)
        self._accept_moves(recording)
        with tracking.run_of(self, X), pinned_defaults(), torch.no_grad():
            nothing_faulty = [np.zeros(len(r), bool) for r in recording.rows]
            self._learn(recording.series, nothing_faulty, self.scorer_.constant, self.memory_)
        return self

    def predict(self, X: Any, groups: Any = None) -> NDArray[np.int64]:
        """Return -1 for rows that alarm, 1 for the others.

        Parameters
        ----------
        X, groups
            As in `score_samples`.

        Returns
        -------
        array of shape (n_timestamps,), int64

        Warns
        -----
        DriftWarning
            Where most rows look stranger than the normal data that the threshold rests on.
        """
        return self._verdicts(self._strangeness(X, groups))

    def evidence(self, X: Any, groups: Any = None) -> pd.DataFrame:
        """Return every kind of evidence per row and channel, as named columns.

        Parameters
        ----------
        X, groups
            As in `score_samples`.

        Returns
        -------
        DataFrame of shape (n_timestamps, kinds x channels)
            Columns ``"kind:channel"`` (``"window"`` and ``"nearest"`` have no channel): minus the log probability
            that a normal row looks as strange, of several window lengths by the mean of its root.
        """
        recording = self._open(X, groups)
        names = [n for n, m in zip(self.channel_names_, self.scaling_.modelled, strict=True) if m]
        columns: dict[str, Scores] = {}
        parts = [self.scorer_.evidence(raw) for raw in recording.series]
        for kind in parts[0]:
            values = recording.flat([p[kind] for p in parts])
            labels = [kind] if kind in WHOLE else [f"{kind}:{n}" for n in names]
            columns |= dict(zip(labels, values.T**2, strict=True))
        return pd.DataFrame(columns, index=recording.index)

    def events(self, X: Any, groups: Any = None) -> pd.DataFrame:
        """Return the alarms of X, merged.

        Parameters
        ----------
        X, groups
            As in `score_samples`.

        Returns
        -------
        DataFrame
            ``start``, ``end`` (first and last row that alarms, as labels of the index), ``peak``
            (the strangest row), ``severity`` (its score over the threshold), ``p_value`` (of the
            peak) and ``channels`` (to blame, the first most). Of several series, ``series`` comes first: the number of
            an event's series, as they come in X.
        """
        recording = self._open(X, groups)
        shares = self._shares(recording)
        score = recording.flat(shares).sum(1)
        self._look_for_drift(score)
        return event_table(recording, shares, -self.offset_, self.normal_, self.channel_names_)

    def explain(self, X: Any, groups: Any = None) -> Explanation:
        """Say which channels made each row strange, and what they should have shown.

        Bands are wider where more than half of a row is missing, and where a channel nearby is silent for more than
        eight rows.

        Parameters
        ----------
        X, groups
            As in `score_samples`.

        Returns
        -------
        Explanation
            Tables of X's index and columns, in X's units.
        """
        recording = self._open(X, groups)
        index, names = (
            recording.index,
            recording.template.columns if isinstance(X, pd.DataFrame) else self.channel_names_,
        )
        expected = [self.scorer_.expected(raw) for raw in recording.series]
        tables = (self._shares(recording), *map(list, zip(*expected, strict=True)))
        return Explanation(*(pd.DataFrame(recording.flat(t), index=index, columns=names) for t in tables))

    def stream(self) -> Stream:
        """Return a scorer that takes one row at a time and agrees with `score_samples`.

        Returns
        -------
        Stream
            Before any row: it knows nothing of those fitted on or scored.

        Raises
        ------
        ValueError
            If the detector was not fitted with ``context="past"``.
        """
        check_is_fitted(self)
        learnt = self.scorer_.learnt
        if learnt.scorer.models.centred if learnt else self.context != "past":
            raise ValueError("stream needs windows that end with the scored row: fit with context='past'")
        return Stream(self)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def _check_parameters(self) -> None:
        if self.context not in ("both", "past"):
            raise ValueError(f"context must be 'both' or 'past', got {self.context!r}")
        self._chosen(KINDS)
        if self.model is not None and not isinstance(self.model, SeriesImputer):
            raise ValueError(f"model must be a SeriesImputer or None, got {self.model!r}")
        if self.model is not None and self.context == "past":
            raise ValueError("model looks at both sides of a row: it needs context='both', got context='past'")
        device_of(self.device)
        self._check_decision()

    def _check_channels(self) -> None:
        """Raise ValueError where what was chosen compares channels and only one varies."""
        alone = self.model is None and self.scaling_.modelled.sum() == 1
        if alone and set(self._chosen(KINDS)) <= set(AMONG_CHANNELS):
            raise ValueError(
                f"kinds={self.kinds!r} compare channels with each other, and in X only one varies; add others of "
                f"{[kind for kind in KINDS if kind not in AMONG_CHANNELS]}, or give more channels"
            )

    def _check_adaptable(self, recording: Recording) -> None:
        known = ~np.isnan(np.concatenate(recording.series))
        unknown = self.scaling_.modelled & ~known.any(0)
        if unknown.any():
            names = [n for n, u in zip(self.channel_names_, unknown, strict=True) if u]
            raise ValueError(
                f"channels {names} hold no value in X: adapt needs rows that show every channel; "
                "wait until they do, or fit without these channels"
            )
        longest = self.scorer_.longest
        rows, least = int(known.any(1).sum()), FOLDS * longest
        if rows < least:
            raise ValueError(
                f"X has {rows} rows with a value; adapt learns from {FOLDS} blocks of at least a window ({longest} "
                f"rows) each: give {least} or more, or call recalibrate(X_normal), which learns nothing"
            )

    def _imputer(self, X: Any, groups: Any) -> SeriesImputer:
        """Return the given imputer, fitted, and for the channels of X."""
        assert self.model is not None
        fitted = hasattr(self.model, "model_")
        # What the caller's imputer learns later is no business of this detector.
        imputer = copy(self.model) if fitted else clone(self.model).fit(X, groups=groups)
        imputer._open(X, groups)
        if not np.array_equal(imputer.scaling_.modelled, self.scaling_.modelled):
            raise ValueError("model was fitted on data in which other channels are constant; fit it on X")
        return imputer

    def _learn(
        self,
        raw: list[Scores],
        faulty: list[NDArray[np.bool_]],
        constant: ConstantChannels,
        memory: Memory | None = None,
    ) -> None:
        """Fit the evidence to the rows of each series and to what is remembered, and decide."""
        if not self.scaling_.modelled.any():
            self.scorer_ = SeriesScorer(self.scaling_, constant, None)
            self.weights_: Mapping[str, float] = {}
            self.memory_ = Memory([], {})
            self._decide(NormalScores.of_blocks([np.zeros(len(r)) for r in raw]))
            return
        fitted = fit_detector(raw, faulty, self._recipe(), memory)
        self.scorer_ = SeriesScorer(self.scaling_, constant, fitted.learnt)
        self.memory_ = fitted.memory
        # Of "model" only where one was given: its share is what faults admitted.
        speak = {*self._chosen(KINDS), "model"} - set(AMONG_CHANNELS if self.scaling_.modelled.sum() == 1 else ())
        self.weights_ = {kind: w for kind, w in fitted.learnt.scorer.weights.items() if kind in speak}
        share_of_training = bool(self.contamination) and self.threshold is None
        training = np.concatenate([self.scorer_.shares(r).sum(1) for r in raw]) if share_of_training else None
        self._decide(
            fitted.normal, training, None if fitted.ahead is None else (fitted.ahead.expected, fitted.ahead.seen)
        )

    def _learnt_as(self) -> str:
        return f"context={self.context!r}, kinds={self.kinds!r}, model={None if self.model is None else 'given'}"

    def _recipe(self) -> Recipe:
        return Recipe(
            self.scaling_,
            self._chosen(KINDS),
            self.context == "both",
            device_of(self.device),
            self.contamination,
            None if self.model is None else (self.model_.model_, self.model_.scaling_),
        )

    def _shares(self, recording: Recording) -> list[Scores]:
        """Return the share of each row and channel, one array per series."""
        result = [self.scorer_.shares(raw, -self.offset_) for raw in recording.series]
        self._warn_of_dead(recording)
        return result

    def _accept_moves(self, recording: Recording) -> None:
        """Stop watching channels that never moved before and do so in normal rows."""
        moves = np.any([self.scorer_.constant.moves(raw).any(0) for raw in recording.series], 0)
        if not moves.any():
            return
        self.scorer_ = self.scorer_.accepting(moves)
        names = [n for n, m in zip(self.channel_names_, moves, strict=True) if m]
        tell(
            f"channels {names} never moved in fit and do so here: they are no longer watched; fit anew to judge them",
        )

    def _warn_of_dead(self, recording: Recording) -> None:
        """Tell of channels without any value, and of those that show none any more."""
        known = self.scaling_.modelled
        dead = known & np.isnan(np.concatenate(recording.series)).all(0)
        longest = self.scorer_.longest
        ends = [np.isnan(raw[-longest:]).all(0) for raw in recording.series if len(raw) > longest]
        silent = known & ~dead & np.any([np.zeros_like(known), *ends], 0)
        for found, what in ((dead, "here"), (silent, f"in the last {longest} rows")):
            if found.any():
                names = [n for n, f in zip(self.channel_names_, found, strict=True) if f]
                tell(f"channels {names} hold no value {what}; the others are scored")

    def _strangeness(self, X: Any, groups: Any = None) -> Scores:
        check_is_fitted(self)
        recording = self._open(X, groups)
        return recording.flat(self._shares(recording)).sum(1)


__all__ = ["Explanation", "SeriesDetector"]
