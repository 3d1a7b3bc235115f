"""What another version stored is read with a warning, as scikit-learn's own estimators are."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import diffad
from diffad import TabularDetector
from diffad.base import holds_parameters


@pytest.fixture(scope="module")
def fitted():
    return TabularDetector().fit(np.random.default_rng(0).normal(size=(40, 2)))


def test_what_this_version_stored_is_read_in_silence(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(pickle.dumps(fitted))
        copy.deepcopy(again)
    assert vars(again).keys() == vars(fitted).keys()


@pytest.mark.parametrize("stored_by", ["99.1", None])
def test_what_another_version_stored_is_read_with_a_warning(fitted, stored_by):
    state = fitted.__getstate__()
    assert state.pop(holds_parameters.STORED_BY) == diffad.__version__
    if stored_by:
        state[holds_parameters.STORED_BY] = stored_by
    again = TabularDetector()
    with pytest.warns(
        UserWarning, match=f"diffad {stored_by or 'of an earlier version'} stored .* fit it anew"
    ) as said:
        again.__setstate__(state)
    assert said[0].filename == __file__
    assert vars(again).keys() == vars(fitted).keys()
