"""`SeriesImputer`: fill the gaps of sensor recordings, with bands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state

from diffad import tracking
from diffad.base.arguments import check_count, check_share
from diffad.base.atomic import all_or_nothing
from diffad.base.defaults import pinned_defaults
from diffad.base.devices import device_of
from diffad.base.holds_parameters import HoldsParameters
from diffad.base.telling import tell
from diffad.calibration import spread
from diffad.filling.fitting import fit_windows
from diffad.filling.prior_fitting import WILD, fit_marginals
from diffad.filling.sampling import Filling, Reduce
from diffad.model import Sampler, as_sampler
from diffad.priors import PRIORS
from diffad.series.held_out import LEAST_WINDOWS
from diffad.series.input import SeriesInput
from diffad.series.recordings import Recording
from diffad.training import Training, check_training

Array = NDArray[np.float32]

#: Windows that a recording must hold: of fewer, a covariance is chance.
WINDOWS_HELD = 4


class SeriesImputer(OneToOneFeatureMixin, TransformerMixin, SeriesInput, HoldsParameters):
    """Fill gaps in multivariate series with a masked conditional diffusion model.

    1. Windows of the recording are standardised; a Gaussian prior of whole windows gives the
       exact conditional distribution of any missing entries given the visible ones.
    2. A diffusion network learns what is not Gaussian, in units of the prior's conditional spread.
    3. Held-out windows decide per kind of gap and noise level how much of the network is admitted;
       if it does not help there, the model is the prior.
    4. Bands are calibrated on the same held-out windows.
    5. A recording of any length is covered by overlapping windows that share one noise field, so
       that samples blend without seams.
    6. Gaps longer than half a window are also gone through from both sides, each window taking for
       given what the one before it filled (:mod:`diffad.filling.long_gaps`): levels, trends and phases live on.
    7. Where a channel has left the levels it was fitted on, windows know only how levels move together, as in kriging
       with an unknown mean: what is filled goes by what is visible, not drawn back (:mod:`diffad.filling.levels`).

    Parameters
    ----------
    window : int, default=48
        Time steps the model sees at once, but at most a quarter of the rows (at least 2), and no more than the longest series has.
        Longer windows see more context and cost more.
    prior : {"auto", "gaussian", "lowrank", None}, default="auto"
        Closed-form model below the network. ``"gaussian"`` is dense up to 1,536 entries per
        window (time steps x channels) and low rank plus diagonal (``"lowrank"``) beyond.
        ``"auto"`` is the same, but of normal scores of the channels where held-out data say that this
        is better (bursts, saturation), with its covariance shrunk towards a stationary one (many
        channels, few rows), around a mean cycle whose phase each window tells, where the recording has
        a period of at most two windows, and with its spread scaled by what surprised it nearby (quiet
        and restless stretches), each where held-out data say that it helps. None is textbook diffusion (CSDI).
        Blocks of rows are held out from recordings of at least eight windows, whole series where at least
        eight of them, and of their windows, are shorter. Else the covariance is shrunk as far as its own noise
        says, at most by 90 %, bands are as wide as a spread that few windows told takes, and there is no network.
    training : Training, "auto" or None, default="auto"
        How to train the network; ``"auto"`` is ``Training()``, minutes; None is the prior alone, fitted in seconds.
        A warning says where a training that was given could not take place.
    sampler : Sampler or str, default="angle"
        How to sample; a string names the solver.
    n_samples : int, default=100
        Samples behind `quantile` and `interval`.
    regularize : bool, default=False
        Put irregular timestamps on a regular grid (rows appear where none was; those that are regular but for the
        missing ones keep their times, others move to the nearest point); False refuses.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``; ``"auto"`` takes CUDA where it is.
    random_state : int, RandomState instance or None, default=0
        Seed of training and sampling; equal seeds repeat a run to the bit on one device. Gaps in the rows fitted on are
        completed by draws that depend on the rows: changing one value of them is like another seed.

    Attributes
    ----------
    model_ : MaskedDiffusion
        Prior, network and gate.
    history_ : list of dict
        Step, seconds, training and held-out loss.
    network_gain_ : float
        Part of the held-out velocity error that the admitted network removes; 0 is the prior alone.
    scaling_ : Scaling
        Centre, scale and bounds per channel. Constant channels are filled with their constant;
        channels never observed in `fit` stay missing, with a warning.
    bands_ : Bands
        Calibration of `quantile` and `interval`.
    levels_ : LevelRange
        Least and largest level of each channel in the windows fitted on, standardised.
    period_ : float or None
        Seconds between rows; None without timestamps.
    fitted_on_frame_ : bool
        Whether X was a table, whose columns have names.
    seed_ : int
        Of everything random that comes after `fit`.
    n_features_in_ : int
        Number of channels.

    References
    ----------
    Tashiro et al. (2021), "CSDI"; Karras et al. (2022), "Elucidating the design space of
    diffusion-based generative models"; Lee et al. (2022), "PriorGrad".

    Examples
    --------
    >>> import numpy as np
    >>> from diffad import SeriesImputer, Training
    >>> t = np.arange(400)[:, None]
    >>> X = np.sin(t / 8 + np.array([0.0, 1.0, 2.0]))
    >>> gap = X.copy()
    >>> gap[200:210, 1] = np.nan
    >>> imputer = SeriesImputer(training=None).fit(X)
    >>> bool(np.abs(imputer.transform(gap) - X).max() < 0.1)
    True
    >>> imputer.sample(gap, n_samples=3).shape
    (3, 400, 3)
    """

    stands_for: ClassVar = {"training": lambda _: Training(), "sampler": as_sampler}

    def __init__(
        self,
        window: int = 48,
        prior: str | None = "auto",
        training: Training | str | None = "auto",
        sampler: Sampler | str = "angle",
        n_samples: int = 100,
        regularize: bool = False,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.window = window
        self.prior = prior
        self.training = training
        self.sampler = sampler
        self.n_samples = n_samples
        self.regularize = regularize
        self.device = device
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Learn from a recording that may have gaps itself.

        Parameters
        ----------
        X : DataFrame or array of shape (n_timestamps, n_features) or (n_series, n_timestamps, n_features)
            Rows in time order; NaN is missing.
        y : ignored
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.

        Returns
        -------
        self
        """
        self._check_parameters()
        recording, period = self._read(X, groups, reset=True)
        scaling = self._fit_scaling(recording)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        lengths = [len(series) for series in recording.series]
        # Nothing can be learnt of rows that no series is long enough to show.
        window = min(self.window, max(2, min(max(lengths), sum(lengths) // WINDOWS_HELD)))
        training = check_training(self.training, default=Training()) or Training(max_steps=0)
        with tracking.run_of(self, X, training) as on_progress, pinned_defaults():
            if self.prior == "auto" and scaling.modelled.any():
                standardised = [scaling.forward(s).astype(np.float32) for s in recording.series]
                scaling = replace(scaling, marginals=fit_marginals(standardised, window, seed))
            fitted = fit_windows(
                [scaling.forward(s).clip(-WILD, WILD).astype(np.float32) for s in recording.series],
                window,
                self.prior,
                training,
                self._sampler(),
                device_of(self.device),
                seed,
                on_progress,
            )
            self.fitted_on_frame_ = isinstance(X, pd.DataFrame)
            self.scaling_, self.period_, self.seed_ = scaling, period, seed
            self.model_, self.bands_, self.levels_ = fitted.model, fitted.bands, fitted.levels
            self.history_, self.network_gain_ = fitted.history, fitted.gain
            judged = fitted.held_out and all(np.isfinite(step["validation"]) for step in fitted.history[-1:])
            if isinstance(self.training, Training) and training.max_steps and scaling.modelled.any() and not judged:
                tell(
                    f"no network was trained: X has too few rows to hold some out, which takes {LEAST_WINDOWS} windows "
                    f"of {window} rows in one series, or in as many series; give more rows or a smaller window",
                )
        return self

    def transform(self, X: Any, groups: Any = None) -> Any:
        """Return X with every missing entry replaced by the middle of its distribution.

        That is where the probability flow carries the prior's mean: the median of one missing value
        (a flow in one dimension keeps order), and near it for many, without drawing a sample. Gaps longer than half
        a window rest on a few draws of what comes before them: the same for the same recording, slightly others when
        any of its values is another.
        Observed values, index, columns and dtypes of tables come back as they were: nullable integers and truth values are
        filled with the nearest, objects with gaps become floats, arrays are floats. Fitted on an array, the imputer knows no names
        but ``x0``, ``x1`` and on; with `set_output` they stand for names that are no strings, too.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.

        Returns
        -------
        array or DataFrame of X's shape

        Raises
        ------
        ValueError
            For a 3-D X where `set_output` asks for tables, which have two axes.
        """
        self._check_output(X)
        recording, pieces = self._reduce(X, groups, lambda s, _scales, _kind: s[0], None)
        filled = recording.fill(recording.assemble(pieces))
        if isinstance(filled, pd.DataFrame) and not self.fitted_on_frame_:
            filled.columns = self.get_feature_names_out()
        return filled

    def fit_transform(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        """Fit to X and fill its gaps.

        Parameters
        ----------
        X, y, groups
            As in `fit`.

        Returns
        -------
        array or DataFrame of X's shape
        """
        self._check_output(X)
        return self.fit(X, y, groups=groups).transform(X, groups=groups)

    def sample(self, X: Any, n_samples: int = 20, groups: Any = None) -> NDArray[np.float64]:
        """Draw completions of X.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.
        n_samples : int, default=20
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.

        Returns
        -------
        array of shape (n_samples, *X.shape)
            Observed entries are repeated unchanged.
        """
        check_count(n_samples, "n_samples")
        recording = self._open(X, groups)
        pieces = [np.repeat(s[None], n_samples, 0) for s in recording.series]
        for segment, samples, _, missing in self._filling().segments(recording, n_samples):
            part = pieces[segment.series][:, segment.start : segment.stop]
            part[:, missing] = self.scaling_.inverse(samples)[:, missing]
        return recording.assemble(pieces)

    def quantile(self, X: Any, q: float, groups: Any = None, n_samples: int | None = None) -> NDArray[np.float64]:
        """Return the calibrated quantile of every missing entry, and observed entries as they are.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.
        q : float in (0, 1)
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.
        n_samples : int, optional
            Instead of the estimator's.

        Returns
        -------
        array of X's shape
        """
        check_share(q, "q")

        def reduce(samples: Array, scales: Array, kind: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.median(samples, 0) + spread(samples, *scales) * self.bands_.quantile(q, kind)

        recording, pieces = self._reduce(X, groups, reduce, self._n_samples(n_samples))
        return recording.assemble(pieces)

    def interval(
        self, X: Any, coverage: float = 0.9, groups: Any = None, n_samples: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and upper edge of calibrated bands; they close on observed entries.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.
        coverage : float in (0, 1), default=0.9
            Share of the missing entries that the band is to hold.
        groups : array-like of shape (n_timestamps,), optional
            Label of the series each row belongs to.
        n_samples : int, optional
            Instead of the estimator's.

        Returns
        -------
        lower, upper : array of X's shape
        """
        check_share(coverage, "coverage")
        edges = ((1 - coverage) / 2, (1 + coverage) / 2)

        def reduce(samples: Array, scales: Array, kind: NDArray[np.int64]) -> NDArray[np.float64]:
            middle, width = np.median(samples, 0), spread(samples, *scales)
            return np.stack([middle + width * self.bands_.quantile(q, kind) for q in edges])

        recording, pieces = self._reduce(X, groups, reduce, self._n_samples(n_samples))
        lower, upper = recording.assemble(pieces)
        return lower, upper

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_parameters(self) -> None:
        check_count(self.window, "window", least=2)
        if self.prior not in ("auto", *PRIORS, None):
            raise ValueError(f"prior must be one of {['auto', *PRIORS, None]}, got {self.prior!r}")
        check_training(self.training, default=Training())
        check_count(self.n_samples, "n_samples")
        device_of(self.device)
        self._sampler()

    def _check_output(self, X: Any) -> None:
        """Raise ValueError where scikit-learn would make a table of a panel, before any work is done for it."""
        asked = getattr(self, "_sklearn_output_config", {}).get("transform", get_config()["transform_output"])
        if asked != "default" and np.ndim(X) == 3:
            n_series, length, channels = np.shape(X)
            raise ValueError(
                f"a table of {asked} has two axes, X has the shape {np.shape(X)}: give its rows, "
                f"X.reshape(-1, {channels}), with groups=np.repeat(range({n_series}), {length}), or call "
                "set_output(transform='default')"
            )

    def _sampler(self) -> Sampler:
        return as_sampler(self.sampler)

    def _n_samples(self, n_samples: int | None) -> int:
        n_samples = self.n_samples if n_samples is None else n_samples
        check_count(n_samples, "n_samples")
        return n_samples

    def _reduce(self, X: Any, groups: Any, reduce: Reduce, n_samples: int | None) -> tuple[Recording, list[Any]]:
        """Return X as a recording, and its series with what `reduce` makes of the samples in every gap."""
        recording = self._open(X, groups)
        return recording, self._filling().reduced(recording, reduce, n_samples)

    def _filling(self) -> Filling:
        return Filling(self.model_, self.scaling_, self.levels_, self._sampler(), self.seed_)
