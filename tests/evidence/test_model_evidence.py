"""A diffusion model joins the evidence of a detector as far as injected faults say, and is reused, not refitted."""

import numpy as np
import pytest

from diffad import SeriesDetector, SeriesImputer, Training
from diffad.evidence.of_model import SHARES, admitted_share
from diffad.faults import inject


@pytest.fixture(scope="module")
def recording():
    """Return 1,200 rows of three channels that follow one another."""
    rng = np.random.default_rng(0)
    slow = np.convolve(rng.standard_normal(1240), np.ones(20) / 5, "same")[20:-20]
    return slow[:, None] * [1.0, -0.5, 0.8] + 0.1 * rng.standard_normal((1200, 3))


@pytest.fixture(scope="module")
def imputer(recording):
    return SeriesImputer(window=12, training=Training(max_steps=0)).fit(recording[:800])


@pytest.fixture(scope="module")
def detector(recording, imputer):
    return SeriesDetector(kinds=["quiet", "window"], model=imputer).fit(recording[:800])


def test_the_gate_admits_evidence_that_knows_the_fault_and_refuses_noise():
    normal = np.random.default_rng(0).standard_normal((600, 2))
    rng = np.random.default_rng(1)

    def pair(rows):
        blind = np.abs(rng.standard_normal(rows.shape))
        changed = np.minimum(rows != normal[:300], rows != normal[300:])
        return blind, 3.0 * changed + 0.1 * np.abs(rng.standard_normal(rows.shape))

    def knows(rows):
        return dict(zip(("energy", "model"), pair(rows), strict=True))

    def noise(rows):
        return dict(zip(("model", "energy"), pair(rows), strict=True))

    assert admitted_share(knows, {"energy": 0.5}, [normal[:300], normal[300:]], 2) in SHARES
    assert admitted_share(noise, {"energy": 0.5}, [normal[:300], normal[300:]], 2) == 0


def test_evidence_of_a_model_replaces_what_was_left_out(recording, detector):
    faulty = inject(recording[800:], ("shift", "spike"), 5, 20, 4.0, random_state=0)
    assert detector.weights_["model"] > 0
    assert {f"model:{k}" for k in range(3)} <= set(detector.evidence(recording[800:]).columns)
    alone = SeriesDetector(kinds=["quiet", "window"]).fit(recording[:800])
    ranks = [-d.score_samples(faulty.X) for d in (detector, alone)]
    found = [np.mean(r[faulty.y == 1]) - np.mean(r[faulty.y == 0]) for r in ranks]
    spread = [np.std(r[faulty.y == 0]) for r in ranks]
    assert found[0] / spread[0] > found[1] / spread[1]


def test_a_fitted_model_is_reused_and_fills_gaps(recording, detector, imputer):
    assert detector.model_.model_ is imputer.model_, "the network is not copied"
    gaps = recording[800:].copy()
    gaps[100:104, 1] = np.nan
    assert np.abs(detector.model_.transform(gaps) - recording[800:]).max() < 1.0
    assert np.isfinite(detector.score_samples(gaps)).all()


def test_what_the_imputer_learns_later_is_no_business_of_the_detector(recording):
    imputer = SeriesImputer(window=12, training=None).fit(recording[:400])
    detector = SeriesDetector(kinds=["quiet"], model=imputer).fit(recording[:400])
    filled, scores = detector.model_.transform(recording), detector.score_samples(recording)
    imputer.fit(recording[:400] * [1.0, 1000.0, 1.0] + 5)
    np.testing.assert_array_equal(detector.model_.transform(recording), filled)
    np.testing.assert_array_equal(detector.score_samples(recording), scores)
    imputer.fit(recording[:400, :2])
    assert np.isfinite(detector.adapt(recording[400:1000]).score_samples(recording)).all()


def test_a_model_that_is_not_fitted_is_fitted_as_a_copy(recording):
    blueprint = SeriesImputer(window=12, training=Training(max_steps=0))
    detector = SeriesDetector(kinds=["energy"], model=blueprint).fit(recording[:400])
    assert not hasattr(blueprint, "model_")
    assert detector.model_.n_features_in_ == 3


def test_shares_add_up_and_normal_rows_alarm_about_as_often(recording, detector):
    explanation = detector.explain(recording[800:])
    np.testing.assert_allclose(explanation.share.sum(axis=1), -detector.score_samples(recording[800:]), rtol=1e-6)
    alone = SeriesDetector(kinds=["quiet", "window"]).fit(recording[:800])
    rates = [(d.decision_function(recording[800:]) < 0).mean() for d in (detector, alone)]
    assert rates[0] <= 2 * rates[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"model": "imputer"}, "model must be a SeriesImputer"), ({"context": "past"}, "context='both'")],
)
def test_impossible_models_are_refused(recording, imputer, options, message):
    with pytest.raises(ValueError, match=message):
        SeriesDetector(**{"model": imputer, **options}).fit(recording)


def test_a_model_of_other_channels_is_refused(recording, imputer):
    with pytest.raises(ValueError, match="3 features"):
        SeriesDetector(model=imputer).fit(recording[:, :2])
