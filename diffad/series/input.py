"""What the series estimators share: reading recordings and checking them against the fitted one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from diffad.base.column_names import check_table
from diffad.base.masked_arrays import unmasked
from diffad.base.telling import tell
from diffad.series import recordings
from diffad.series.recordings import Recording
from diffad.series.scaling import Scaling


class SeriesInput(BaseEstimator):
    """Base of estimators over ordered rows; subclasses set `regularize` and, in `fit`, `period_`."""

    regularize: bool
    period_: float | None

    def _read(self, X: Any, groups: Any, reset: bool) -> tuple[Recording, float | None]:
        if isinstance(X, pd.DataFrame):
            check_table(self, X, reset)
            return recordings.read(X, groups, self.regularize, None if reset else self.period_)
        X = unmasked(X)
        if reset:
            self.__dict__.pop("_labels", None)
        panel = isinstance(X, np.ndarray) and X.ndim == 3
        flat = X.reshape(-1, X.shape[-1]) if panel else X
        flat = validate_data(self, flat, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        X = X if panel else flat
        return recordings.read(X, groups, self.regularize)

    def _open(self, X: Any, groups: Any) -> Recording:
        check_is_fitted(self)
        recording, period = self._read(X, groups, reset=False)
        if period and self.period_ and not recordings.same_period(period, self.period_):
            raise ValueError(
                f"X is sampled every {period:g} s but the model was fitted on {self.period_:g} s; "
                "resample it: X.resample(...).mean()"
            )
        return recording

    def _fit_scaling(self, recording: Recording) -> Scaling:
        scaling = Scaling.fit(np.concatenate(recording.series))
        if np.isnan(scaling.scale).all():
            raise ValueError("X holds no observed value at all; fit needs at least one channel with data")
        empty = [self.channel_names_[k] for k in np.flatnonzero(np.isnan(scaling.scale))]
        if empty:
            tell(f"channels {empty} hold no observed value; nothing is learnt of them")
        return scaling

    @property
    def channel_names_(self) -> list[str]:
        """Return the channels' names, or their numbers as text."""
        return [str(n) for n in getattr(self, "_labels", range(self.n_features_in_))]
