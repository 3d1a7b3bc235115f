"""Scores are probabilities of normal data, combined so that one bad sensor among many shows.

Oracles: the exponential law that -log p of normal data follows, norms for the combination, and new
data from the process that made the training data.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import diffad.evidence.combination
import diffad.evidence.cross_fitting
from diffad.evidence.combination import (
    CHANNEL_POWER,
    KIND_POWER,
    SATURATION,
    WEIGHTS,
    combine,
    default_weights,
    reweight,
    saturated,
)
from diffad.evidence.cross_fitting import fit_scorer, look_ahead, trusted
from diffad.evidence.scoring import EXPECTED_LENGTH, Lengths, Models
from diffad.evidence.window_model import BESIDE_GAUSSIAN, GAUSSIAN, KINDS, WHOLE
from diffad.tails import LogTail

CPU = torch.device("cpu")
LINEAR = ("energy", "local", "filter", "step")


def process(rows, seed, channels=2):
    """Return a Gaussian autoregressive recording whose channels share some noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, channels)) + 0.7 * rng.standard_normal((rows, 1))
    for t in range(1, rows):
        x[t] += 0.5 * x[t - 1]
    return x.astype(np.float32)


def fit(series, kinds=KINDS, centred=True):
    with torch.no_grad():
        return fit_scorer(series, kinds, WEIGHTS, centred, CPU)


def score(fitted, rows):
    """Return the score (n,) of every row by the models of everything."""
    with torch.no_grad():
        return fitted.scorer.by_channel(fitted.scorer.evidence(rows), rows.shape[1]).sum(1)


def normal_score(fitted, channels=2):
    """Return the cross-fitted score of the training rows."""
    return fitted.scorer.by_channel(fitted.normal, channels).sum(1)


def column(*values):
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize("law", [stats.norm(3, 2), stats.gamma(2), stats.chi2(30), stats.uniform(-1, 2)])
def test_the_log_tail_of_normal_data_is_exponential(law):
    tail = LogTail.fit(law.rvs((20_000, 2), random_state=0).astype(np.float32))
    found = tail(law.rvs((20_000, 2), random_state=1).astype(np.float32))
    assert found.min() >= 0
    levels = np.array([0.1, 0.5, 1, 2, 2.9])  # the body; its end is -log 0.05
    for k in range(2):
        share = (found[:, [k]] > levels).mean(0)
        # Two samples of 20,000: three standard errors of the difference of shares are 0.015.
        np.testing.assert_allclose(share, np.exp(-levels), atol=0.015)


def test_the_tail_of_exponential_evidence_is_exact_far_beyond_what_was_seen():
    tail = LogTail.fit(stats.expon(scale=3).rvs((200_000, 1), random_state=0).astype(np.float32))
    evidence = np.linspace(0.1, 120, 50)
    np.testing.assert_allclose(tail(column(*evidence))[:, 0], evidence / 3, rtol=0.05)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-800, 800).map(lambda i: i / 8), min_size=1, max_size=60),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=30),
)
def test_stranger_evidence_is_never_less_strange(normal, evidence):
    found = LogTail.fit(column(*normal))(column(*sorted(evidence)))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found, axis=0) >= 0).all()


def test_beyond_the_last_quantile_the_tail_is_a_line():
    normal = np.random.default_rng(0).gamma(2, size=500).astype(np.float32)
    last = np.quantile(normal, 0.95)
    excess = (normal[normal > last] - last).mean()
    beyond = LogTail.fit(normal[:, None])(column(*(last + np.array([0.01, 1, 5, 100]))))[:, 0]
    np.testing.assert_allclose(beyond, -np.log(0.05) + np.array([0.01, 1, 5, 100]) / excess, rtol=1e-4)


def test_nothing_known_is_not_strange():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((300, 2)).astype(np.float32)
    whole = LogTail.fit(normal)
    with_gaps = np.concatenate([normal, np.full((100, 2), -np.inf, np.float32)])
    tail = LogTail.fit(with_gaps)
    assert (tail(np.full((1, 2), -np.inf, np.float32)) == 0).all()
    np.testing.assert_array_equal(tail(normal), whole(normal))
    silent = LogTail.fit(np.full((40, 2), -np.inf, np.float32))
    assert (silent(np.array([[-np.inf, 3.0]], np.float32)) == 0).all(), "a kind that never spoke cannot be judged"


def test_tails_beside_each_other_are_the_tails():
    rng = np.random.default_rng(0)
    normal = [rng.standard_normal((300, n)).astype(np.float32) ** 3 for n in (2, 1, 3)]
    tails = [LogTail.fit(x) for x in normal]
    new = [2 * x[:50] for x in normal]
    expected = np.concatenate([tail(x) for tail, x in zip(tails, new, strict=True)], 1)
    np.testing.assert_array_equal(LogTail.beside(tails)(np.concatenate(new, 1)), expected)


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_evidence_that_many_normal_rows_share_is_not_strange(share):
    """A channel at rest has the same quietness in all its resting rows."""
    rest = int(1000 * share)
    normal = np.r_[np.random.default_rng(0).uniform(0, 1, 1000 - rest), np.full(rest, 13.8)].astype(np.float32)
    found = LogTail.fit(normal[:, None])(column(13.8)).item()
    assert found == pytest.approx(-np.log(share), abs=0.1)


def evidence_of(strengths):
    """Return evidence of every kind (n, channels); those of all channels together have one column."""
    return {k: s[:, :1] if k in WHOLE else s for k, s in zip(KINDS, strengths, strict=True)}


STRENGTHS = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 999)).map(
    lambda drawn: np.random.default_rng(drawn[2]).exponential(size=(len(KINDS), drawn[0], drawn[1]))
)


@settings(max_examples=60, deadline=None)
@given(STRENGTHS)
def test_shares_add_up_to_the_norm_over_kinds_and_channels(strengths):
    evidence, channels = evidence_of(strengths), strengths.shape[2]
    shares = combine(evidence, WEIGHTS, channels)
    assert (shares >= 0).all()
    share, linear = WEIGHTS["decoupled"], sum(WEIGHTS[k] * saturated(evidence[k]) for k in LINEAR)
    gaussian = (1 - share) * linear + share * saturated(evidence["decoupled"])
    reasons = [gaussian, *(WEIGHTS[k] * evidence[k] for k in BESIDE_GAUSSIAN)]
    by_channel = np.linalg.norm(reasons, ord=KIND_POWER, axis=0)
    together = [np.linalg.norm(by_channel, ord=CHANNEL_POWER, axis=1), WEIGHTS["nearest"] * evidence["nearest"][:, 0]]
    expected = (
        np.linalg.norm(together, ord=KIND_POWER, axis=0) + WEIGHTS["window"] * saturated(evidence["window"])[:, 0]
    )
    np.testing.assert_allclose(shares.sum(1), expected, rtol=1e-9)
    linear = sum(WEIGHTS[k] * evidence[k] for k in LINEAR)
    unsaturated = [(1 - share) * linear + share * evidence["decoupled"], *reasons[1:]]
    assert (shares.argmax(1) == np.linalg.norm(unsaturated, ord=KIND_POWER, axis=0).argmax(1)).all()


def test_the_edges_of_a_fault_do_not_drown_what_lies_inside_it():
    """A good row beside an edge, and one inside the fault with a shape never met: the Gaussian alone prefers the edge."""
    roots = {
        "energy": [400.0, 12.0],
        "local": [400.0, 12.0],
        "filter": [400.0, 12.0],
        "step": [400.0, 12.0],
        "shape": [1.0, 14.0],
    }
    edge, inside = combine({k: np.array(v)[:, None] for k, v in roots.items()}, default_weights(1), 1).sum(1)
    assert inside > edge


@given(st.floats(0, 1e6), st.floats(0, 1e3))
def test_saturated_evidence_keeps_its_order_and_is_itself_while_small(root, more):
    low, high = saturated(np.array([root, root + more]))
    assert low <= high
    assert low == root or (root > SATURATION and low > SATURATION)


@settings(max_examples=60, deadline=None)
@given(STRENGTHS, st.data())
def test_more_evidence_of_any_kind_is_a_higher_score(strengths, data):
    kind, row, channel = (data.draw(st.integers(0, n - 1)) for n in strengths.shape)
    more = strengths.copy()
    more[kind, row, channel] += data.draw(st.floats(0.01, 10))
    channels = strengths.shape[2]
    before, after = (combine(evidence_of(s), WEIGHTS, channels).sum(1) for s in (strengths, more))
    others = np.arange(len(before)) != row
    np.testing.assert_array_equal(after[others], before[others])
    assert after[row] >= before[row] * (1 - 1e-12)
    if channels == 1:
        assert after[row] > before[row]


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in WHOLE])
def test_one_strange_channel_among_many_gets_the_blame(kind):
    evidence = {k: np.ones((1, 1 if k in WHOLE else 30)) for k in KINDS}
    calm = combine(evidence, WEIGHTS, 30)
    np.testing.assert_allclose(calm, calm[0, 0], err_msg="equal evidence is equal blame")
    evidence[kind] = evidence[kind].copy()
    evidence[kind][0, 7] = 10
    shares = combine(evidence, WEIGHTS, 30)
    assert shares[0].argmax() == 7
    assert shares[0, 7] > 0.99 * shares.sum()
    assert shares.sum() > 1.3 * calm.sum()


def test_no_evidence_is_no_score_and_the_window_alone_blames_all_alike():
    nothing = {k: np.zeros((2, 1 if k in WHOLE else 3)) for k in KINDS}
    assert (combine(nothing, WEIGHTS, 3) == 0).all()
    shares = combine({"window": np.array([[2.0], [0.0]])}, WEIGHTS, 3)
    np.testing.assert_allclose(shares, WEIGHTS["window"] * np.array([[2 / 3] * 3, [0] * 3]))


def test_every_known_row_is_scored_once_and_rows_without_a_value_are_left_out():
    series = [process(90, 0), process(40, 1), process(500, 2)]
    series[0][10:14] = np.nan
    series[2][0] = np.nan
    series[2][50, 1] = np.nan  # half a row is a row
    fitted = fit(series)
    for i, rows in enumerate(series):
        found = np.concatenate([r for s, r in fitted.rows if s == i])
        np.testing.assert_array_equal(found, np.flatnonzero(~np.isnan(rows).all(1)))
    known = sum(len(r) for _, r in fitted.rows)
    assert known == 90 + 40 + 500 - 5
    assert {k: v.shape for k, v in fitted.normal.items()} == {k: (known, 1 if k in WHOLE else 2) for k in KINDS}
    assert np.isfinite(normal_score(fitted)).all()
    assert fitted.residual.shape == (known, 2)
    gone = np.isnan(np.concatenate([series[i][r] for i, r in fitted.rows]))
    unknown = np.isnan(fitted.residual)
    np.testing.assert_array_equal(unknown | gone, unknown)
    # Besides, only rows near the ends of a series, whose windows are not whole.
    near = [np.minimum(r, len(series[i]) - 1 - r) < EXPECTED_LENGTH // 2 for i, r in fitted.rows]
    assert not (unknown & ~gone)[~np.concatenate(near)].any()


def test_cross_fitted_scores_stand_in_the_order_of_their_rows():
    series = [process(150, 0), process(150, 1)]
    for i, row in [(0, 20), (1, 100)]:
        series[i][row] += 25
    fitted = fit(series, kinds=("local", "filter"))
    place = [(i, t) for i, rows in fitted.rows for t in rows]
    score_of = dict(zip(place, normal_score(fitted), strict=True))
    for i, row in [(0, 20), (1, 100)]:
        best = max((t for s, t in place if s == i), key=lambda t: score_of[i, t])
        assert abs(best - row) <= 16, f"series {i} is strangest in row {best}, the fault is in row {row}"


@pytest.mark.parametrize("rows", [5, 20, 60])
@pytest.mark.parametrize("centred", [True, False])
def test_short_recordings_are_scored(rows, centred):
    fitted = fit([process(rows, 0)], centred=centred)
    assert np.isfinite(normal_score(fitted)).all()
    new = process(100, 1)
    found = score(fitted, new)
    assert found.shape == (100,) and np.isfinite(found).all()
    new[50] += 100
    assert score(fitted, new)[50] > found.max()


def test_gaps_are_scored_by_what_is_visible():
    holes = process(400, 0)
    holes[np.random.default_rng(0).random(holes.shape) < 0.2] = np.nan
    holes[100:160, 1] = np.nan
    holes[300:310] = np.nan
    fitted = fit([holes])
    found = score(fitted, holes)
    assert np.isfinite(found).all()
    holes[200, 0] = 40
    assert score(fitted, holes).argmax() in range(200 - 16, 200 + 17)


@pytest.mark.parametrize("seed", range(3))
def test_held_out_scores_are_distributed_like_scores_of_new_data(seed):
    """In-sample scores are not: the threshold would be too low.

    Windows of up to 96 rows overlap, so 1500 rows say about as much as 75 independent ones and two
    empirical distributions may differ by 0.15 or so.
    """
    train = process(1500, seed)
    fitted = fit([train])
    held_out, in_sample = normal_score(fitted), score(fitted, train)
    new = np.concatenate([score(fitted, process(1500, 100 + 10 * seed + i)) for i in range(3)])
    assert stats.ks_2samp(held_out, new).statistic < 0.15
    assert stats.ks_2samp(in_sample, new).statistic > 0.2
    assert in_sample.mean() < 0.93 * held_out.mean()
    false_alarms = (new > np.quantile(held_out, 0.95)).mean()
    assert 0.02 < false_alarms < 0.1, f"a threshold for 5 % alarms on {false_alarms:.1%} of new rows"


@pytest.mark.parametrize("change", ["fault", "gap", "end"])
def test_without_centring_a_score_uses_nothing_that_comes_later(change):
    fitted = fit([process(400, 0)], centred=False)
    rows, t = process(200, 1), 120
    before = score(fitted, rows)
    other = rows.copy()
    if change == "fault":
        other[t + 1 :] += 50
    elif change == "gap":
        other[t + 1 :] = np.nan
    else:
        other = other[: t + 1]
    # Batches of another size round otherwise.
    np.testing.assert_allclose(score(fitted, other)[: t + 1], before[: t + 1], rtol=1e-4)
    if change == "fault":
        assert score(fitted, other)[t + 1] > 2 * before[t + 1]


def test_with_centring_a_score_sees_both_sides():
    fitted = fit([process(400, 0)], centred=True)
    rows = process(200, 1)
    other = rows.copy()
    other[121:] += 50
    changed = ~np.isclose(score(fitted, other), score(fitted, rows), rtol=1e-3)
    assert changed[110:121].all()
    assert not changed[: 121 - 96].any()


@pytest.mark.parametrize("rows", [3, 30, 150])
def test_the_last_row_alone_scores_as_in_its_recording(rows):
    fitted = fit([process(400, 0)], centred=False)
    recording = process(rows, 1)
    recording[-1, 0] = 3
    with torch.no_grad():
        alone = fitted.scorer.evidence_of_last(recording)
        every = fitted.scorer.evidence(recording)
    assert alone.keys() == every.keys()
    for kind in alone:
        np.testing.assert_allclose(alone[kind], every[kind][-1:], rtol=1e-3, atol=1e-3, err_msg=kind)


def test_the_expected_value_ignores_a_fault():
    models = fit([process(800, 0)]).scorer.models
    rows = process(1000, 1)
    clean = models.expected(rows)
    assert clean.shape == rows.shape
    assert np.corrcoef(clean[:, 0], rows[:, 0])[0, 1] > 0.2, "the other channel says something"
    faulty = rows.copy()
    faulty[99:102, 0] += 30
    np.testing.assert_allclose(models.expected(faulty)[99:102, 0], clean[99:102, 0], atol=0.1)


def test_residuals_are_as_wide_as_those_of_new_data():
    """Those of the training data are narrower: a band around them would promise too much."""
    train, new = process(500, 0), process(3000, 1)
    fitted = fit([train])
    width = {
        "held out": fitted.residual,
        "new": new - fitted.scorer.models.expected(new),
        "in sample": train - fitted.scorer.models.expected(train),
    }
    ninth = {name: np.nanquantile(np.abs(r), 0.9) for name, r in width.items()}
    # Models of the folds know three quarters of the data; 1000 correlated values give a quantile to 5 %.
    assert ninth["held out"] == pytest.approx(ninth["new"], rel=0.15)
    assert ninth["in sample"] < 0.93 * ninth["new"]


def test_a_long_recording_is_calibrated_on_rows_from_all_of_it(monkeypatch):
    monkeypatch.setattr(diffad.evidence.cross_fitting, "MOST_NORMAL", 8000)
    fitted = fit([process(17_000, 0, channels=1)], kinds=("quiet",))
    rows = np.concatenate([r for _, r in fitted.rows])
    assert len(rows) <= 8000
    assert len(np.unique(rows)) == len(rows) == len(fitted.normal["quiet"])
    per_quarter = np.histogram(rows, bins=4, range=(0, 17_000))[0]
    assert per_quarter.min() > 1000
    assert rows.min() < 1000 and rows.max() >= 16_000


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_evidence_works_alone(kind):
    fitted = fit([process(300, 0)], kinds=(kind,))
    rows = process(50, 1)
    assert set(fitted.normal) == {kind}
    assert np.isfinite(score(fitted, rows)).all()
    expected = fitted.scorer.models.expected(rows)
    assert expected.shape == rows.shape
    assert expected.any() == (kind in GAUSSIAN), "without a Gaussian nothing is expected but the mean"


@pytest.mark.parametrize(("kind", "rows"), [("quiet", 5), ("shape", 60)])
def test_recordings_too_short_for_the_kind_asked_for_are_not_strange(kind, rows):
    fitted = fit([process(rows, 0)], kinds=(kind,))
    assert (score(fitted, process(50, 1)) == 0).all()


def labelled(seed, **strong):
    """Return evidence of 400 rows, the last 20 of them faults that some kinds see, and their labels."""
    rng = np.random.default_rng(seed)
    evidence = {k: rng.exponential(size=(400, 1 if k in WHOLE else 3)) for k in KINDS}
    for kind, strength in strong.items():
        evidence[kind][380:, 0] += strength
    return evidence, np.arange(400) >= 380


@pytest.mark.parametrize("seed", range(3))
def test_labels_raise_the_weight_of_what_sees_the_faults(seed):
    evidence, faulty = labelled(seed, filter=3.0)
    evidence["quiet"][:380] *= 2  # misleads
    found = reweight(evidence, faulty, WEIGHTS, 3)
    factor = {k: found[k] / WEIGHTS[k] for k in KINDS}
    assert factor["quiet"] == 0.5
    assert factor["filter"] > np.mean([factor[k] for k in KINDS if k != "filter"]), factor
    before, after = (combine(evidence, w, 3).sum(1) for w in (WEIGHTS, found))
    assert (after[380:, None] > after[:380]).mean() > (before[380:, None] > before[:380]).mean()


@pytest.mark.parametrize("seed", range(5))
def test_labels_change_each_weight_by_two_at_most(seed):
    evidence, faulty = labelled(seed, shape=1.0)
    given_weights = dict(WEIGHTS)
    found = reweight(evidence, faulty, given_weights, 3)
    assert given_weights == WEIGHTS, "the caller's weights are left alone"
    assert found.keys() == WEIGHTS.keys()
    assert {found[k] / WEIGHTS[k] for k in KINDS} <= {0.5, 1.0, 2.0}


def test_faults_that_stand_out_already_change_no_weight():
    evidence, faulty = labelled(0, **dict.fromkeys(KINDS, 50.0))
    assert reweight(evidence, faulty, WEIGHTS, 3) == WEIGHTS


def test_labels_that_hardly_matter_change_no_weight(monkeypatch):
    evidence, faulty = labelled(0)
    monkeypatch.setattr(
        diffad.evidence.combination, "average_precision_score", lambda y, s: 0.5 + 1e-3 * float(s.mean() % 1)
    )
    assert reweight(evidence, faulty, WEIGHTS, 3) == WEIGHTS


@pytest.mark.parametrize("drifts", [False, True])
def test_rows_of_another_time_lose_the_nearest_ones_their_trust(drifts):
    """A counter is never again where it was: that no row is near says nothing."""
    rows = process(1600, 0)
    if drifts:
        rows[:, 0] += np.linspace(0, 20, len(rows), dtype=np.float32)
    with torch.no_grad():
        ahead = look_ahead([rows], KINDS, WEIGHTS, True, CPU)
    assert set(ahead.trust) == {"nearest"}
    if drifts:
        assert ahead.trust["nearest"] < 0.3, ahead.trust
    else:
        assert ahead.trust["nearest"] > 0.8, ahead.trust
    assert trusted(WEIGHTS, ahead.trust)["nearest"] == WEIGHTS["nearest"] * ahead.trust["nearest"]
    assert trusted(WEIGHTS, ahead.trust)["energy"] == WEIGHTS["energy"]


def test_kinds_that_do_not_go_by_single_rows_are_trusted():
    with torch.no_grad():
        assert look_ahead([process(400, 0)], ("energy", "shape"), WEIGHTS, True, CPU).trust == {}


def test_doubt_is_of_rows_near_a_long_silence_alone():
    rows = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32).cumsum(0)
    models = Models.fit([rows], Lengths.choose(500, 2, ("energy",)), True, torch.device("cpu"))
    holes = rows.copy()
    holes[100:108, 0] = np.nan  # as many as `LOCAL`
    assert (models.doubt(holes) == 1).all()
    holes[200:209, 0] = np.nan
    doubt = models.doubt(holes)
    before, after = models.reach(EXPECTED_LENGTH)
    far = np.r_[0 : 200 - after, 209 + before : 500]
    assert (doubt[far] == 1).all() and (doubt[:, 1] == 1).all()
    assert (doubt[200:209, 0] > 1).all() and doubt[195, 0] > 1
