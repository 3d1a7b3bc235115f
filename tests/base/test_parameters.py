"""Parameters of parameters: set by name, checked, and never changed in another estimator's hands."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import diffad
from diffad import (
    AlarmsPerDay,
    Augmentation,
    DiffusionVAE,
    FalseAlarmRate,
    ImageDetector,
    ImageImputer,
    Sampler,
    SeriesDetector,
    SeriesImputer,
    TabularDetector,
    TabularImputer,
    Training,
)

CASES = [
    (SeriesImputer, "training__max_steps", 7, "training", Training(max_steps=7)),
    (SeriesImputer, "sampler__n_steps", 3, "sampler", Sampler("angle", 3)),
    (TabularImputer, "training__max_steps", 7, "training", Training(max_steps=7)),
    (ImageImputer, "training__max_steps", 7, "training", Training(max_steps=7)),
    (ImageImputer, "sampler__name", "ddim", "sampler", Sampler("ddim")),
    (DiffusionVAE, "diffusion__max_steps", 7, "diffusion", Training(max_steps=7)),
    (SeriesDetector, "threshold__rate", 0.1, "threshold", FalseAlarmRate(0.1)),
    (TabularDetector, "threshold__rate", 0.1, "threshold", FalseAlarmRate(0.1)),
    (ImageDetector, "threshold__rate", 0.1, "threshold", FalseAlarmRate(0.1)),
    (ImageDetector, "augmentation__shift", 2, "augmentation", Augmentation(horizontal=True, shift=2)),
]


@pytest.mark.parametrize(("kind", "key", "value", "name", "expected"), CASES)
def test_parts_that_are_defaults_have_parameters_to_set(kind, key, value, name, expected):
    estimator = kind().set_params(**{key: value})
    assert getattr(estimator, name) == expected
    assert estimator.get_params()[key] == value
    assert clone(estimator).get_params()[key] == value


def test_a_vae_keeps_what_its_training_is_by_default():
    model = DiffusionVAE().set_params(training__max_steps=5)
    assert (model.training.max_steps, model.training.masks_per_batch) == (5, 4)


def test_an_object_and_a_field_of_it_may_be_set_together():
    detector = SeriesDetector().set_params(threshold=AlarmsPerDay(3), threshold__rows_per_day=24.0)
    assert detector.threshold == AlarmsPerDay(3, rows_per_day=24.0)


def test_a_shared_object_is_not_changed_for_another():
    shared = FalseAlarmRate(0.1)
    first, second = SeriesDetector(threshold=shared), TabularDetector(threshold=shared)
    first.set_params(threshold__rate=0.3)
    assert first.threshold.rate == 0.3
    assert second.threshold.rate == shared.rate == 0.1


@pytest.mark.parametrize(
    ("params", "words"),
    [({"training__max_stps": 7}, "max_stps"), ({"training__max_steps": -1}, "max_steps"), ({"windw": 3}, "windw")],
)
def test_what_is_refused_changes_nothing(params, words):
    imputer = SeriesImputer()
    before = imputer.get_params()
    with pytest.raises(ValueError, match=words):
        imputer.set_params(**params)
    assert imputer.get_params() == before


def test_a_grid_search_reaches_a_threshold_inside_a_pipeline():
    X = np.random.default_rng(0).standard_normal((240, 2))

    def alarms(pipeline, X, y=None):
        return float((pipeline.predict(X) == -1).mean())

    search = GridSearchCV(
        make_pipeline(StandardScaler(), SeriesDetector(kinds=("energy",))),
        {"seriesdetector__threshold__rate": [0.01, 0.3]},
        scoring=alarms,
        cv=TimeSeriesSplit(2),
        error_score="raise",
    )
    assert search.fit(X).best_params_ == {"seriesdetector__threshold__rate": 0.3}


def test_every_estimator_of_the_package_is_covered():
    names = {name for name in diffad.__all__ if name.endswith(("Imputer", "Detector", "VAE"))}
    assert names == {kind.__name__ for kind, *_ in CASES}
