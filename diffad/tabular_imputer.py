"""`TabularImputer`: fill the gaps of mixed tables, with distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from diffad import tracking
from diffad.base.arguments import check_count, check_share
from diffad.base.atomic import all_or_nothing
from diffad.base.defaults import pinned_defaults
from diffad.base.devices import device_of
from diffad.base.holds_parameters import HoldsParameters
from diffad.base.integers import whole_numbers
from diffad.rows.diffusion import RowDiffusion
from diffad.rows.encoding import Columns
from diffad.rows.filling_fitting import MOST_ROWS, PRIORS, fit_filler, sampled
from diffad.rows.input import TableInput
from diffad.training import Training, check_training

Matrix = NDArray[np.float64]

#: Rows that a network learns from, a random sample of more.
MOST_LEARNT = 50_000


class TabularImputer(OneToOneFeatureMixin, TransformerMixin, TableInput, HoldsParameters):
    """Fill gaps in tables of numbers and categories from p(hidden columns | the others).

    1. Numbers are brought to the scale of a normal, linearly or by their ranks (normal scores),
       categories become indicators.
    2. A Gaussian, mixtures of Gaussians and kernel densities of the training rows know the
       distribution of any hidden entries given the visible ones in closed form.
    3. Entries hidden in held-out rows choose scale and model, or a pool of a mixture and a kernel,
       by the continuous ranked probability score, and calibrate the quantiles: column by column where 400
       held-out errors of a column tell of them, else in the shape of all columns together (the model's own, if these
       have fewer, too) and the size of the column's errors.
    4. Given `training`, a diffusion model learns what a Gaussian of the rows leaves over, whole columns hidden; held-out
       entries choose its share of the pool, possibly none.
    5. What comes back is valid: seen categories, whole numbers where there were only whole numbers,
       seen values where a column has few, nothing beyond the least and largest value seen.

    Parameters
    ----------
    prior : {"auto", "gaussian", "mixture", "kernel"}, default="auto"
        Models to choose from. ``"gaussian"`` is the fastest.  Beyond 200 encoded columns it is
        always a Gaussian of low rank.
    categorical_features : sequence of column names or numbers, or mask of all columns, default=None
        None takes the columns of text, category and bool.
    training : Training or None, default=None
        How to train a network on up to 50,000 rows; None is the closed forms alone, a second or two a table. 3,000
        steps on ``4 * masks_per_batch * windows_per_mask`` rows each take about a minute, and filling then takes
        about ten times as long. Beyond 200 encoded columns there is no network.
    device : str, default="auto"
        Of the network: ``"cpu"``, ``"cuda"``; ``"auto"`` takes CUDA where it is.
    random_state : int, RandomState instance or None, default=0
        Seed of held-out rows, starting points and samples; equal seeds repeat a run to the bit.

    Attributes
    ----------
    prior_ : str
        Scale and model in use, such as ``"scores mixture-12 + kernel-0.5"``.
    losses_ : dict of str to float
        Held-out loss of every candidate; empty for fewer than 40 rows with a value or a single
        column, where a Gaussian is used.
    history_ : list of dict
        Step, seconds, training and held-out loss of the network; empty without one.
    columns_ : Columns
        How columns became numbers.
    filler_ : Filler
        The model of rows, with its bands.
    seed_ : int
        Of the samples.
    n_features_in_ : int

    Notes
    -----
    Fitting looks at a random sample of 4,000 rows where there are more (fewer beyond 40 encoded columns), and rows with
    gaps are filled in chunks: what takes memory beside the table is these rows, encoded.  A column without any value is
    refused; an unseen category counts as one unlike all others; of a column's categories the 60 commonest can be filled
    in.

    References
    ----------
    Little and Rubin (2002), "Statistical analysis with missing data"; Fraley and Raftery (2007),
    "Bayesian regularization for normal mixture estimation"; Kuleshov et al. (2018), "Accurate
    uncertainties for deep learning using calibrated regression".

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from diffad import TabularImputer
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal(300)
    >>> X = pd.DataFrame({"x": x, "twice": 2 * x, "sign": np.where(x > 0, "plus", "minus")})
    >>> gaps = pd.DataFrame({"x": [1.0, np.nan], "twice": [np.nan, -2.0], "sign": [None, "minus"]})
    >>> imputer = TabularImputer().fit(X)
    >>> imputer.transform(gaps).round(1)
         x  twice   sign
    0  1.0    2.0   plus
    1 -1.0   -2.0  minus
    """

    stands_for: ClassVar = {"training": lambda _: Training()}

    def __init__(
        self,
        prior: str = "auto",
        categorical_features: Sequence[str | int] | None = None,
        training: Training | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.prior = prior
        self.categorical_features = categorical_features
        self.training = training
        self.device = device
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from a table that may have gaps itself.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_features)
            NaN is missing.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a column holds no value, infinity, or text that is not declared categorical.
        """
        if self.prior not in PRIORS:
            raise ValueError(f"prior must be one of {list(PRIORS)}, got {self.prior!r}")
        training = check_training(self.training)
        device = device_of(self.device)
        table = self._table(X, reset=True)
        self.fitted_on_frame_ = isinstance(X, pd.DataFrame)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        with tracking.run_of(self, X) as on_progress, pinned_defaults():
            self.columns_ = Columns.fit(table, self.categorical_features)
            # Sampled before they are encoded: a category takes as many numbers as there are.
            some = table[table.notna().any(axis=1)]
            most = MOST_LEARNT if training is not None else MOST_ROWS
            if len(some) > most:
                rng = np.random.default_rng(self.seed_)
                some = some.iloc[sampled(some.notna().to_numpy(), most, rng)]
            owner = self.columns_.owner
            self.history_: list[dict[str, float]] = []

            def learn(rows: Matrix, known: NDArray[np.bool_]) -> RowDiffusion | None:
                assert training is not None
                found, self.history_ = RowDiffusion.fit(rows, known, owner, training, self.seed_, device, on_progress)
                return found

            self.filler_, self.losses_ = fit_filler(
                self.columns_.raw(some), owner, self.prior, self.seed_, learn if training is not None else None
            )
            self.prior_ = self.filler_.name
        return self

    def transform(self, X: Any) -> Any:
        """Fill every gap with the median of its distribution, or the most likely category.

        Observed values, index, columns and dtypes of tables come back as they were, but for sparse columns, which
        become dense (with `set_output`, names that are no strings become ``x0``, ``x1`` and on); arrays of numbers are floats, those with text objects. What is filled in a column of objects that are numbers is a float.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.

        Returns
        -------
        array or DataFrame of X's shape
        """
        table, rows = self._open(X)
        with pinned_defaults():
            values = self.filler_.fill(rows, (0.5,))[0][0]
        return self._wrap(X, self._completed(table, values))

    def sample(self, X: Any, n_samples: int = 20) -> Any:
        """Draw completions of X, the hidden entries of a row together.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.
        n_samples : int, default=20

        Returns
        -------
        array of shape (n_samples, n_rows, n_features), or list of DataFrame where X is one
        """
        check_count(n_samples, "n_samples")
        table, rows = self._open(X)
        with pinned_defaults():
            drawn = self.filler_.sample(rows, int(n_samples), self.seed_)
        completed = [self._wrap(X, self._completed(table, values)) for values in drawn]
        return completed if isinstance(X, pd.DataFrame) else np.stack(completed)

    def quantile(self, X: Any, q: float) -> Any:
        """Return X with the calibrated quantile in the gaps of numbers.

        Categories have no order: their gaps stay, see `category_probabilities`.

        Parameters
        ----------
        X : DataFrame or array
        q : float in (0, 1)

        Returns
        -------
        array or DataFrame of X's shape
        """
        check_share(q, "q")
        return self._quantiles(X, (q,))[0]

    def interval(self, X: Any, coverage: float = 0.9) -> tuple[Any, Any]:
        """Return the lower and upper edge of calibrated bands; they close on observed entries.

        The gaps of categories stay, see `category_probabilities`.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.
        coverage : float in (0, 1), default=0.9
            Share of the missing numbers that the band is to hold.

        Returns
        -------
        lower, upper : array or DataFrame of X's shape
        """
        check_share(coverage, "coverage")
        lower, upper = self._quantiles(X, ((1 - coverage) / 2, (1 + coverage) / 2))
        return lower, upper

    def category_probabilities(self, X: Any) -> pd.DataFrame:
        """Return the probability of every category of every categorical column.

        Parameters
        ----------
        X : DataFrame or array
            As in `fit`.

        Returns
        -------
        DataFrame with columns (column, category)
            1 or 0 where the category is known; 0 in all columns for one never seen in `fit`.
        """
        table, rows = self._open(X, everything=True)
        with pinned_defaults():
            chances = self.filler_.fill(rows, (0.5,))[1]
        found = {
            (table.columns[k], label): chances[:, np.flatnonzero(self.columns_.owner == k)[i]]
            for k, codes in self.columns_.categories.items()
            for label, i in codes.items()
        }
        if not found:
            return pd.DataFrame(index=table.index)
        return pd.DataFrame(np.stack(list(found.values()), 1), table.index, pd.MultiIndex.from_tuples(found))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _open(self, X: Any, everything: bool = False) -> tuple[pd.DataFrame, Matrix]:
        """Return the table, and its rows with gaps, or all, encoded."""
        check_is_fitted(self)
        table = self._table(X, reset=False)
        if everything:
            return table, self.columns_.raw(table)
        gaps = table.isna().any(axis=1)
        self.columns_.check(table[~gaps])
        return table, self.columns_.raw(table[gaps])

    def _quantiles(self, X: Any, levels: Sequence[float]) -> list[Any]:
        table, rows = self._open(X)
        with pinned_defaults():
            values = self.filler_.fill(rows, levels)[0]
        return [self._wrap(X, self._completed(table, v, categories=False)) for v in values]

    def _completed(self, table: pd.DataFrame, values: Matrix, categories: bool = True) -> pd.DataFrame:
        """Return the table with its gaps taken from encoded values of the rows that have some, (n, width)."""
        result, incomplete = table.copy(), table.isna().any(axis=1).to_numpy()
        for k in range(table.shape[1]):
            gap = table.iloc[:, k].isna().to_numpy()
            if not gap.any() or (k in self.columns_.categories and not categories):
                continue
            entries = np.flatnonzero(self.columns_.owner == k)
            if k in self.columns_.categories:
                labels = np.empty(len(entries), object)
                labels[:-1] = list(self.columns_.categories[k])
                filled = labels[values[np.ix_(gap[incomplete], entries)].argmax(1)]
            else:
                filled = values[gap[incomplete], entries[0]]
            result.isetitem(k, _filled(table.iloc[:, k], gap, filled))
        return result

    def _wrap(self, X: Any, table: pd.DataFrame) -> Any:
        if isinstance(X, pd.DataFrame):
            known = hasattr(self, "feature_names_in_") or self.fitted_on_frame_
            return table if known else table.set_axis(self.get_feature_names_out(), axis=1)
        values = table.to_numpy()
        if values.dtype in (np.float32, np.float64):
            return values
        return values if any(map(pd.api.types.is_string_dtype, table.dtypes)) else values.astype(np.float64)


def _filled(column: pd.Series, gap: NDArray[np.bool_], values: NDArray[Any]) -> pd.Series:
    """Return the column with `values` in its gaps, of its own dtype.

    Of a column of categories that shows none the dtype tells nothing: pandas reads it as floats.
    """
    of_categories = values.dtype == object
    if of_categories and gap.all() and column.dtype in (np.dtype(float), np.dtype(object)):
        return pd.Series(values.tolist(), column.index, name=column.name)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.add_categories([v for v in pd.unique(values) if v not in column.cat.categories])
    if isinstance(column.dtype, pd.BooleanDtype):  # declared a number
        values = values.astype(bool)
    if pd.api.types.is_integer_dtype(column.dtype):
        values = pd.array(values.tolist(), column.dtype) if of_categories else whole_numbers(values, column.dtype)
    array = column.to_numpy(copy=True) if isinstance(column.dtype, np.dtype) else column.array.copy()
    array[gap] = values
    return pd.Series(array, column.index, name=column.name, dtype=column.dtype)
