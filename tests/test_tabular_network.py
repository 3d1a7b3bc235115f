"""`TabularDetector(training=...)`: networks join the evidence where faults say that they help, and are refused by name
where they cannot be trained.
"""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from diffad import TabularDetector, Training
from diffad.rows import evidence as row_evidence
from diffad.rows.evidence import KINDS, NETWORK, WEIGHTS, best_network_weight, score

#: Long enough to learn the curve below.
TRAINING = Training(max_steps=300)


def curve(n, seed):
    """Return rows of twelve columns, each a bent sum of three hidden numbers, and a little noise."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(7)
    bends, offset = fixed.standard_normal((3, 12)), fixed.standard_normal(12)
    return np.tanh(rng.standard_normal((n, 3)) @ bends + offset) + 0.05 * rng.standard_normal((n, 12))


def mixed(n, seed):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(curve(n, seed)[:, :3], columns=list("abc"))
    table["state"] = np.where(table["a"] > 0, "high", "low")
    return table.mask(rng.random(table.shape) < 0.05)


def one_wrong(x, seed):
    """Return rows of which one number is another row's."""
    rng, faulty = np.random.default_rng(seed), x.copy()
    column = rng.integers(0, x.shape[1], len(x))
    faulty[np.arange(len(x)), column] = x[rng.permutation(len(x)), column]
    return faulty


def area(detector, normal, strange):
    label = np.r_[np.zeros(len(normal)), np.ones(len(strange))]
    return roc_auc_score(label, -detector.score_samples(np.r_[normal, strange]))


@pytest.fixture(scope="module")
def trained():
    return TabularDetector(training=TRAINING).fit(curve(600, 0))


@parametrize_with_checks([TabularDetector(training=Training(max_steps=2, masks_per_batch=1))])
def test_scikit_learn_checks(estimator, check, monkeypatch):
    monkeypatch.setattr(row_evidence, "LEAST_LEARNT", 10)
    check(estimator)


def test_networks_find_wrong_numbers_that_the_closed_forms_overlook(trained):
    new = curve(600, 1)
    closed = TabularDetector().fit(curve(600, 0))
    assert trained.scorer_.network_weight in WEIGHTS and len(trained.scorer_.networks) == row_evidence.NETWORKS
    assert area(trained, new, one_wrong(new, 2)) > area(closed, new, one_wrong(new, 2)) + 0.01


def test_what_was_noted_of_the_training(trained):
    steps = [(entry["network"], entry["step"]) for entry in trained.history_]
    assert steps == [(n, s) for n in range(row_evidence.NETWORKS) for s in (250, 300)]
    assert TabularDetector().fit(curve(100, 0)).history_ == []


def test_the_promised_rate_holds_with_networks(trained):
    # Cross-fitted rows see two thirds of the training rows each; new ones are judged by all networks.
    assert 0.002 < (trained.predict(curve(3000, 1)) == -1).mean() < 0.02
    assert 0.4 < np.median(trained.p_values(curve(3000, 1))) < 0.65


def test_evidence_and_score_go_together(trained):
    new = curve(50, 1)
    found = trained.evidence(new)
    assert list(found) == [*KINDS, NETWORK]
    by_kind = {kind: found[kind].to_numpy() for kind in found}
    np.testing.assert_allclose(-trained.score_samples(new), score(by_kind, trained.scorer_.network_weight))


def test_networks_count_as_so_many_other_kinds():
    evidence = {k: np.random.default_rng(i).exponential(size=50) for i, k in enumerate("abc")}
    network = np.random.default_rng(9).exponential(size=50)
    copies = {f"copy {i}": network for i in range(3)}
    np.testing.assert_allclose(score(evidence | {NETWORK: network}, 3.0), score(evidence | copies))
    np.testing.assert_allclose(score(evidence | {NETWORK: network}, 0.0), score(evidence))


def test_only_evidence_that_tells_faults_apart_is_admitted():
    rng = np.random.default_rng(0)

    def evidence(of_network):
        return {"nearest": rng.exponential(size=500), NETWORK: of_network}

    normal = evidence(rng.exponential(size=500))
    assert best_network_weight(normal, [evidence(3 + rng.exponential(size=500))] * 2) == max(WEIGHTS)
    assert best_network_weight(normal, [evidence(rng.exponential(size=500))] * 2) == 0


def test_refused_networks_are_gone(monkeypatch):
    monkeypatch.setattr(row_evidence, "WORTH", 1.0)
    refused = TabularDetector(training=Training(max_steps=5)).fit(curve(100, 0))
    closed = TabularDetector().fit(curve(100, 0))
    assert refused.scorer_.network_weight == 0 and not refused.scorer_.networks and len(refused.history_) > 0
    np.testing.assert_array_equal(refused.score_samples(curve(50, 1)), closed.score_samples(curve(50, 1)))
    assert refused.offset_ == closed.offset_


def test_gaps_and_categories_are_no_obstacle():
    detector = TabularDetector(training=Training(max_steps=30)).fit(mixed(300, 0))
    new = mixed(100, 1)
    scores = detector.score_samples(new)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(detector.explain(new).share.sum(axis=1), -scores, rtol=1e-6)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(detector)).score_samples(new), scores, rtol=1e-12)


def test_equal_seeds_give_equal_bits():
    first, second = (TabularDetector(training=Training(max_steps=10)).fit(curve(100, 0)) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(curve(50, 1)), second.score_samples(curve(50, 1)))
    assert first.history_[-1]["loss"] == second.history_[-1]["loss"]


def test_faults_among_the_training_rows_are_left_out_before_networks_learn():
    x = np.r_[curve(300, 0), 30 + curve(15, 1)]
    detector = TabularDetector(training=Training(max_steps=30), contamination=0.05).fit(x)
    assert (detector.predict(x)[300:] == -1).all() and len(detector.history_) == row_evidence.NETWORKS


def test_networks_that_diverge_are_refused_and_told(monkeypatch):
    def broken(self, rows):
        return np.full(len(rows), np.nan)

    monkeypatch.setattr(row_evidence.RowResidual, "__call__", broken)
    with pytest.warns(UserWarning, match="diverged"):
        detector = TabularDetector(training=Training(max_steps=2)).fit(curve(100, 0))
    assert not detector.scorer_.networks and np.isfinite(detector.score_samples(curve(10, 1))).all()


def test_few_rows_train_no_network_and_say_so():
    with pytest.warns(UserWarning, match="40 rows; no network"):
        detector = TabularDetector(training=TRAINING).fit(curve(40, 0))
    assert not detector.scorer_.networks


@pytest.mark.parametrize(
    ("training", "words"), [(5, "training must be"), (Training(checkpoint="x.pt"), "training.checkpoint='x.pt'")]
)
def test_what_cannot_train_is_refused(training, words):
    with pytest.raises(ValueError, match=words):
        TabularDetector(training=training).fit(curve(100, 0))


def test_parameters_of_the_training_can_be_set():
    assert clone(TabularDetector(training=TRAINING)).set_params(training__max_steps=3).training.max_steps == 3
    assert TabularDetector().set_params(training__max_steps=3).training == Training(max_steps=3)
