"""`SeriesImputer` is a scikit-learn transformer: whatever works with one works with it.

That holds without a network and with one, and neither the caller's torch settings nor global random
states matter to it, nor does it change them.
"""

from __future__ import annotations

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_set_output_transform_pandas,
    parametrize_with_checks,
)

from diffad import Sampler, SeriesImputer, Training

#: Checks that are excused, with the reason. Models of ordered rows may excuse sample order and subset
#: invariance; an imputer needs no excuse, because the checks hand it complete rows and it returns those.
EXCUSED: dict[str, str] = {}

WITHOUT_NETWORK = SeriesImputer(window=8, n_samples=5, training=Training(max_steps=0))
WITH_NETWORK = SeriesImputer(
    window=4,
    n_samples=2,
    prior=None,
    sampler=Sampler(n_steps=1),
    training=Training(max_steps=2, masks_per_batch=2, windows_per_mask=2, evaluate_every=2),
)


@parametrize_with_checks([WITHOUT_NETWORK, WITH_NETWORK], expected_failed_checks=lambda estimator: EXCUSED)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", [check_set_output_transform_pandas, check_dataframe_column_names_consistency])
def test_checks_that_check_estimator_leaves_out(check):
    check("SeriesImputer", clone(WITHOUT_NETWORK))


def test_check_data_do_train_the_network_of_the_second_run():
    X = np.random.default_rng(0).standard_normal((60, 3))
    assert clone(WITH_NETWORK).fit(X).history_, "the checks would only have seen the prior"


def test_pipeline_with_a_scaler_keeps_names_and_index(frame, prior_only):
    pipeline = make_pipeline(StandardScaler(), prior_only()).set_output(transform="pandas")
    filled = pipeline.fit_transform(frame)
    assert list(filled.columns) == list(frame.columns)
    pd.testing.assert_index_equal(filled.index, frame.index)
    assert not filled.isna().any().any()
    # A linear scaler before a model that standardises itself changes the unit, not the answer.
    alone = prior_only().fit_transform(frame)
    back = pipeline[0].inverse_transform(filled)
    # Rounding changes the noise key: two medians of 40 draws differ by sampling alone.
    np.testing.assert_allclose(back, alone, atol=0.25)


def test_set_output_pandas_names_the_columns_of_arrays(gaps, prior_only):
    filled = prior_only().set_output(transform="pandas").fit_transform(gaps)
    assert isinstance(filled, pd.DataFrame)
    assert list(filled.columns) == ["x0", "x1", "x2"]


@pytest.mark.parametrize("everywhere", [False, True])
def test_set_output_pandas_refuses_a_panel_and_says_what_works(gaps, prior_only, everywhere):
    panel = np.stack([gaps, gaps + 1])
    imputer = prior_only() if everywhere else prior_only().set_output(transform="pandas")
    with config_context(transform_output="pandas" if everywhere else "default"):
        with pytest.raises(ValueError, match=r"two axes.*X\.reshape.*groups"):
            imputer.fit_transform(panel)
        assert not hasattr(imputer, "model_"), "fitted in vain"
        with pytest.raises(ValueError, match="two axes"):
            imputer.fit(panel).transform(panel)
        groups = np.repeat(range(2), len(gaps))
        rows = imputer.fit_transform(panel.reshape(-1, 3), groups=groups)
    assert isinstance(rows, pd.DataFrame)
    np.testing.assert_array_equal(
        rows.to_numpy().reshape(panel.shape), imputer.set_output(transform="default").transform(panel)
    )


def test_feature_names_out_are_those_that_came_in(frame, prior_only):
    assert list(prior_only().fit(frame).get_feature_names_out()) == list(frame.columns)


def test_clone_copies_parameters_and_nothing_learnt(trained):
    copy = clone(trained)
    assert not hasattr(copy, "model_")
    assert copy.training == trained.training
    assert copy.training is not trained.training
    copy.set_params(training__max_steps=1)
    assert trained.training.max_steps == 60


def hidden_entries_score(estimator, X, y=None):
    """Return minus the mean absolute error on a tenth of the entries, hidden here: needs no labels."""
    hide = np.random.default_rng(0).random(X.shape) < 0.1
    return -np.abs(estimator.transform(np.where(hide, np.nan, X)) - X)[hide].mean()


def test_grid_search_reaches_the_parameters_of_training(waves, few_steps):
    search = GridSearchCV(
        few_steps(prior=None),
        {"training__max_steps": [0, 2]},
        scoring=hidden_entries_score,
        cv=TimeSeriesSplit(2),
        error_score="raise",
    ).fit(waves)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.training.max_steps == search.best_params_["training__max_steps"]


def test_grid_search_finds_that_a_prior_beats_none(waves, prior_only):
    search = GridSearchCV(
        prior_only(), {"prior": [None, "gaussian"]}, scoring=hidden_entries_score, cv=TimeSeriesSplit(2)
    ).fit(waves)
    assert search.best_params_ == {"prior": "gaussian"}


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_a_stored_imputer_gives_the_same_bits(way, network, trained, prior_only, switching_gaps, tmp_path):
    imputer = trained if network else prior_only().fit(switching_gaps)
    if way == "pickle":
        loaded = pickle.loads(pickle.dumps(imputer))
    else:
        joblib.dump(imputer, tmp_path / "imputer.joblib")
        loaded = joblib.load(tmp_path / "imputer.joblib")
    np.testing.assert_array_equal(loaded.sample(switching_gaps, 3), imputer.sample(switching_gaps, 3))
    np.testing.assert_array_equal(loaded.interval(switching_gaps), imputer.interval(switching_gaps))


@pytest.fixture
def double_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def drawn(waves, gaps, few_steps):
    """Return samples of an imputer with a network, fitted under the usual settings."""
    return few_steps().fit(waves).sample(gaps, 2)


def test_default_dtype_float64_does_not_matter_to_fit(waves, gaps, few_steps, prior_only, drawn, request):
    closed = prior_only().fit(waves).sample(gaps, 2)
    request.getfixturevalue("double_by_default")
    np.testing.assert_array_equal(prior_only().fit(waves).sample(gaps, 2), closed)
    np.testing.assert_array_equal(few_steps().fit(waves).sample(gaps, 2), drawn)
    assert torch.get_default_dtype() == torch.float64


def test_default_dtype_float64_does_not_matter_to_a_fitted_imputer(trained, switching_gaps, request):
    expected = trained.sample(switching_gaps, 2), trained.interval(switching_gaps)
    request.getfixturevalue("double_by_default")
    np.testing.assert_array_equal(trained.sample(switching_gaps, 2), expected[0])
    np.testing.assert_array_equal(trained.interval(switching_gaps), expected[1])


def test_no_grad_around_a_fit_does_not_matter(waves, gaps, few_steps, drawn):
    with torch.no_grad():
        samples = few_steps().fit(waves).sample(gaps, 2)
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(samples, drawn)
    assert torch.is_grad_enabled()


def test_global_random_states_neither_matter_nor_change(waves, gaps, few_steps, drawn):
    np.random.seed(11)  # noqa: NPY002 - the legacy global state is the subject
    torch.manual_seed(11)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    samples = few_steps().fit(waves).sample(gaps, 2)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    np.testing.assert_array_equal(samples, drawn)


def test_parts_that_are_defaults_have_parameters_to_set():
    imputer = SeriesImputer().set_params(training__max_steps=7, sampler__n_steps=3)
    assert (imputer.training, imputer.sampler) == (Training(max_steps=7), Sampler("angle", 3))
    assert SeriesImputer().get_params()["training"] == "auto"
    with pytest.raises(ValueError, match="max_stps"):
        SeriesImputer().set_params(training__max_stps=7)
