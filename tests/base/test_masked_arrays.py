"""What numpy masks is missing, in every estimator: the numbers behind a mask are nobody's readings."""

import numpy as np
import pandas as pd
import pytest

from diffad import (
    ImageDetector,
    ImageImputer,
    SeriesDetector,
    SeriesImputer,
    TabularDetector,
    TabularImputer,
    Training,
)
from diffad.base.masked_arrays import unmasked

RNG = np.random.default_rng(0)
SERIES = np.cumsum(RNG.standard_normal((300, 3)), 0)
ROWS = RNG.standard_normal((200, 3)) @ RNG.standard_normal((3, 3))
IMAGES = RNG.standard_normal((30, 8, 8)).cumsum(1).cumsum(2)

CASES = {
    "SeriesImputer": (lambda: SeriesImputer(training=Training(max_steps=0)), SERIES, "transform"),
    "SeriesDetector": (lambda: SeriesDetector(kinds=("energy",)), SERIES, "score_samples"),
    "TabularImputer": (TabularImputer, ROWS, "transform"),
    "TabularDetector": (lambda: TabularDetector(kinds=("mixture",)), ROWS, "score_samples"),
    "ImageImputer": (ImageImputer, IMAGES, "transform"),
    "ImageDetector": (ImageDetector, IMAGES, "score_samples"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_masked_is_missing(name):
    make, X, method = CASES[name]
    hidden = np.random.default_rng(1).random(X.shape) < 0.1
    masked = np.ma.MaskedArray(np.where(hidden, 999.0, X), hidden)
    found = getattr(make().fit(masked), method)(masked)
    expected = getattr(make().fit(np.where(hidden, np.nan, X)), method)(np.where(hidden, np.nan, X))
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(np.asarray(found)).all()


def test_a_mask_counts_whatever_is_masked():
    masked = np.ma.MaskedArray(np.array([[1.0, 999.0], [2.0, 3.0]]).astype(object), [[False, True], [False, False]])
    found = unmasked(masked)
    assert not isinstance(found, np.ma.MaskedArray)
    np.testing.assert_array_equal(found, [[1.0, np.nan], [2.0, 3.0]])


def test_an_object_that_is_no_array_is_refused_as_ever():
    with pytest.raises(ValueError, match="Expected 2D array"):
        SeriesDetector().fit(np.array(None, dtype=object))


@pytest.mark.parametrize("name", ["SeriesDetector", "TabularImputer", "TabularDetector"])
def test_na_of_pandas_in_an_array_is_missing(name):
    make, X, method = CASES[name]
    table = pd.DataFrame(np.where(np.random.default_rng(1).random(X.shape) < 0.1, np.nan, X)).astype("Float64")
    found = getattr(make().fit(table.to_numpy()), method)(table.to_numpy())
    numbers = table.to_numpy(float, na_value=np.nan)
    np.testing.assert_array_equal(np.asarray(found, float), getattr(make().fit(numbers), method)(numbers))
