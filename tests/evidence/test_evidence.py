"""Every kind of evidence is the textbook quantity it is named after, for any window and any gaps.

Oracles: numpy on the blocks of the covariance (Schur complement), scipy's density with the fault's
amplitude found by a numerical optimiser, and brute force over all training windows.  Evidence is
float32 from float64 factorisations: 1e-3 relative is a wide margin at these sizes.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.signal import lfilter
from scipy.spatial import cKDTree
from scipy.stats import binomtest, multivariate_normal

from diffad.evidence.nearness import NearestRows, ShapeModel
from diffad.evidence.window_model import (
    BOXES,
    CHUNK,
    GAPPY,
    LOCAL,
    UNREMARKABLE,
    WindowModel,
    last_window,
    missingness,
    quietness,
    windows_of_rows,
)
from diffad.series.windows import cut

CPU = torch.device("cpu")
LINEAR = ("energy", "local", "filter", "step")
#: Window length, channels and rows after the scored one: short, longer than LOCAL, centred, trailing.
CASES = [(5, 2, 0), (5, 2, 2), (11, 2, 5), (12, 1, 0), (10, 3, 4)]


def recording(rows, channels, seed=0):
    """Return an autoregressive recording whose channels are tied to each other."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(channels) + 0.4 * rng.standard_normal((channels, channels))
    x = rng.standard_normal((rows, channels)) @ mixing
    for t in range(1, rows):
        x[t] += 0.6 * x[t - 1]
    return (x + np.arange(channels)).astype(np.float32)


def fitted(length, channels, after, seed=0):
    """Return a model and the mean and covariance (float64) that it says it has."""
    windows = torch.from_numpy(cut([recording(500, channels, seed)], length))
    model = WindowModel.fit(windows, after, CPU)
    return model, model.mean.numpy().astype(float), np.linalg.inv(model.precision.numpy())


def strange_windows(n, length, channels, seed=1):
    """Return windows (n, length, channels) that the model was not fitted to."""
    return 2 * np.random.default_rng(seed).standard_normal((n, length, channels)).astype(np.float32)


def conditional(mean, covariance, x, hidden, seen):
    """Return mean and covariance of the entries `hidden` given those of `seen` (Bishop 2006, eq. 2.81, 2.82)."""
    cross = covariance[np.ix_(hidden, seen)]
    gain = np.linalg.solve(covariance[np.ix_(seen, seen)], cross.T).T
    return mean[hidden] + gain @ (x[seen] - mean[seen]), covariance[np.ix_(hidden, hidden)] - gain @ cross.T


def mahalanobis(x, mean, covariance):
    return float((x - mean) @ np.linalg.solve(covariance, x - mean))


def block_energy(precision, pull, block):
    return pull[block] @ np.linalg.solve(precision[np.ix_(block, block)], pull[block])


def filtered(precision, pull, block, shape):
    return (shape @ pull[block]) ** 2 / (shape @ precision[np.ix_(block, block)] @ shape)


def local_rows(length, after):
    """Return the LOCAL rows around the scored one, moved inside the window where it ends."""
    size = min(LOCAL, length)
    first = min(max(0, length - 1 - after - size // 2), length - size)
    return np.arange(first, first + size)


def boxes(length, after):
    """Return the levels that "filter" looks for: 1 in some rows around the scored one, 0 elsewhere."""
    shapes = []
    for size in sorted({b for b in BOXES if b < length} | {length}):
        first = min(max(0, length - 1 - after - size // 2), length - size)
        shapes.append(((np.arange(length) >= first) & (np.arange(length) < first + size)).astype(float))
    return shapes


def step(length, after):
    return np.where(np.arange(length) < length - 1 - after, -0.5, 0.5)


def twice_log_ratio(normal, x, entries, shape):
    """Return twice the log likelihood ratio of the best fault of that shape in those entries, by a numerical search."""
    fault = np.zeros(len(x))
    fault[entries] = shape

    best = -minimize_scalar(lambda amplitude: -normal.logpdf(x - amplitude * fault)).fun
    return 2 * (best - normal.logpdf(x))


def windows_with_gaps():
    """Draw a case of CASES and a mask of missing entries for two windows of it."""

    def mask(case):
        length, channels, _ = case
        bits = st.lists(st.booleans(), min_size=length * channels, max_size=length * channels)
        return st.tuples(st.just(case), st.tuples(bits, bits))

    return st.sampled_from(CASES).flatmap(mask)


MODELS = {case: fitted(*case) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_energy_is_the_distance_of_a_channel_given_all_others(case):
    length, channels, _ = case
    model, mean, covariance = MODELS[case]
    windows = strange_windows(4, length, channels)
    found = model(torch.from_numpy(windows))["energy"].numpy()
    for i, x in enumerate(windows.reshape(4, -1).astype(float)):
        for k in range(channels):
            mine = np.arange(length) * channels + k
            rest = np.setdiff1d(np.arange(length * channels), mine)
            expected = mahalanobis(x[mine], *conditional(mean, covariance, x, mine, rest))
            assert found[i, k] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_local_is_the_distance_of_the_rows_around_the_scored_one_given_the_rest(case):
    length, channels, after = case
    model, mean, covariance = MODELS[case]
    windows = strange_windows(4, length, channels)
    found = model(torch.from_numpy(windows))["local"].numpy()
    for i, x in enumerate(windows.reshape(4, -1).astype(float)):
        for k in range(channels):
            mine = local_rows(length, after) * channels + k
            rest = np.setdiff1d(np.arange(length * channels), mine)
            expected = mahalanobis(x[mine], *conditional(mean, covariance, x, mine, rest))
            assert found[i, k] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("case", [case for case in CASES if case[1] > 1])
def test_decoupled_is_the_log_likelihood_ratio_of_a_block_that_ignores_the_others(case):
    length, channels, _ = case
    model, mean, covariance = MODELS[case]
    windows = strange_windows(4, length, channels)
    found = model(torch.from_numpy(windows))["decoupled"].numpy()
    for k in range(channels):
        mine = np.arange(length) * channels + k
        rest = np.setdiff1d(np.arange(length * channels), mine)
        alone = multivariate_normal(mean[mine], covariance[np.ix_(mine, mine)])
        ratios = []
        for x in windows.reshape(4, -1).astype(float):
            beside = multivariate_normal(*conditional(mean, covariance, x, mine, rest))
            ratios.append(2 * (alone.logpdf(x[mine]) - beside.logpdf(x[mine])))
        # Up to a constant: that of the determinants.
        np.testing.assert_allclose(found[:, k] - found[0, k], np.array(ratios) - ratios[0], rtol=1e-3, atol=1e-2)


def test_channels_that_never_knew_of_each_other_say_nothing_of_it():
    """Their ratio would be rounding errors, which tails would take for evidence."""
    rows = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)
    model = WindowModel.fit(torch.from_numpy(cut([rows], 16)), 8, CPU)
    assert (model(torch.from_numpy(strange_windows(3, 16, 2)))["decoupled"] == -torch.inf).all()


def test_a_single_channel_cannot_be_decoupled():
    model, _, _ = fitted(12, 1, 0)
    assert "decoupled" not in model(torch.from_numpy(strange_windows(2, 12, 1)))


def test_a_block_from_another_time_is_decoupled_though_it_looks_like_any_other():
    """Two channels that follow each other, one of them replayed: its own course says nothing."""
    rng = np.random.default_rng(0)
    course = np.cumsum(rng.standard_normal(4000)) * 0.1
    course -= pd.Series(course).rolling(50, min_periods=1, center=True).mean().to_numpy()
    rows = np.stack([course, course], 1) + 0.1 * rng.standard_normal((4000, 2))
    model = WindowModel.fit(torch.from_numpy(cut([rows[:3000].astype(np.float32)], 16)), 8, CPU)
    normal = torch.from_numpy(cut([rows[3000:].astype(np.float32)], 16))
    replayed = normal.clone()
    replayed[:, :, 1] = normal.roll(len(normal) // 2, 0)[:, :, 1]
    before, after = (model(w)["decoupled"][:, 1] for w in (normal, replayed))
    energies = [model(w)["energy"][:, 1] for w in (normal, replayed)]
    assert (after[:, None] > before).float().mean() > 0.9
    assert (after[:, None] > before).float().mean() > (energies[1][:, None] > energies[0]).float().mean()


@pytest.mark.parametrize("case", CASES)
def test_filter_and_step_are_the_log_likelihood_ratio_of_the_best_fault(case):
    length, channels, after = case
    model, mean, covariance = MODELS[case]
    normal = multivariate_normal(mean, covariance)
    windows = strange_windows(3, length, channels)
    found = model(torch.from_numpy(windows))
    for i, x in enumerate(windows.reshape(3, -1).astype(float)):
        for k in range(channels):
            entries = np.arange(length) * channels + k
            levels = max(twice_log_ratio(normal, x, entries, shape) for shape in boxes(length, after))
            jump = twice_log_ratio(normal, x, entries, step(length, after))
            # The optimiser stops 1e-5 or so short of the best amplitude.
            assert found["filter"][i, k].item() == pytest.approx(levels, rel=1e-3, abs=1e-3)
            assert found["step"][i, k].item() == pytest.approx(jump, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("size", "after"), [(1, 8), (4, 8), (16, 0)])
def test_the_filter_grows_most_in_the_channel_with_the_fault(size, after):
    channels, length = 3, 16
    model, mean, _ = fitted(length, channels, after)
    windows = np.tile(mean.astype(np.float32).reshape(1, length, channels), (2, 1, 1))
    scored = length - 1 - after
    windows[1, max(0, scored - size // 2) : scored + max(1, size // 2), 1] += 3
    found = model(torch.from_numpy(windows))["filter"].numpy()
    assert found[0].max() < 1e-3, "the mean itself is no evidence"
    assert found[1].argmax() == 1
    assert found[1, 1] > 2 * np.delete(found[1], 1).max()


@settings(max_examples=40, deadline=None)
@given(windows_with_gaps())
def test_window_is_the_distance_of_what_is_visible(drawn):
    case, masks = drawn
    length, channels, _ = case
    model, mean, covariance = MODELS[case]
    windows = strange_windows(3, length, channels)
    flat = windows.reshape(3, -1)
    for i, mask in enumerate(masks):
        flat[i, mask] = np.nan
    found = model(torch.from_numpy(windows))["window"].numpy()
    assert found.shape == (3, 1)
    for i, x in enumerate(flat.astype(float)):
        seen = np.flatnonzero(~np.isnan(x))
        expected = mahalanobis(x[seen], mean[seen], covariance[np.ix_(seen, seen)]) if len(seen) else 0.0
        assert found[i, 0] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(windows_with_gaps())
def test_missing_entries_never_add_evidence(drawn):
    """The exact evidence of the visible entries, in closed form, is an upper bound; without gaps it is met."""
    case, masks = drawn
    length, channels, after = case
    model, mean, covariance = MODELS[case]
    windows = strange_windows(3, length, channels)
    flat = windows.reshape(3, -1)
    for i, mask in enumerate(masks):
        flat[i, mask] = np.nan
    found = {kind: values.numpy() for kind, values in model(torch.from_numpy(windows)).items()}
    for i, x in enumerate(flat.astype(float)):
        seen = np.flatnonzero(~np.isnan(x))
        if not len(seen):
            assert all(found[kind][i].max() < 1e-6 for kind in LINEAR)
            continue
        precision = np.linalg.inv(covariance[np.ix_(seen, seen)])
        pull = precision @ (x[seen] - mean[seen])
        for k in range(channels):
            mine = np.isin(seen, np.arange(length) * channels + k)
            if not mine.any():
                assert all(found[kind][i, k] < 1e-6 for kind in LINEAR)
                continue
            energy = block_energy(precision, pull, mine)
            visible = [shape[seen[mine] // channels] for shape in boxes(length, after)]
            level = max(filtered(precision, pull, mine, v) for v in visible if v.any())
            assert found["energy"][i, k] <= energy * (1 + 1e-3) + 1e-4
            assert found["filter"][i, k] <= level * (1 + 1e-3) + 1e-4
            if len(seen) == length * channels:
                assert found["energy"][i, k] == pytest.approx(energy, rel=1e-3)
                assert found["filter"][i, k] == pytest.approx(level, rel=1e-3)


@pytest.mark.parametrize("case", [case for case in CASES if case[1] > 1])
def test_where_channels_are_dead_the_others_are_judged_by_what_is_left(case):
    """The oracle takes blocks of the covariance: it has never heard of the dead ones."""
    length, channels, after = case
    model, mean, covariance = MODELS[case]
    for pattern in range(1, 2**channels - 1):
        dead = [k for k in range(channels) if pattern >> k & 1]
        windows = strange_windows(3, length, channels)
        windows[:, :, dead] = np.nan
        found = {kind: values.numpy() for kind, values in model(torch.from_numpy(windows)).items()}
        assert all((found[kind][:, dead] == 0).all() for kind in LINEAR)
        assert (found["decoupled"][:, dead] == -np.inf).all()
        living = [k for k in range(channels) if k not in dead]
        seen = np.flatnonzero(~np.isin(np.arange(length * channels) % channels, dead))
        precision = np.linalg.inv(covariance[np.ix_(seen, seen)])
        for i, k in np.ndindex(3, len(living)):
            x, here = windows[i].ravel()[seen].astype(float), np.arange(length) * len(living) + k
            near = local_rows(length, after) * len(living) + k
            pull = precision @ (x - mean[seen])

            expected = {
                "energy": block_energy(precision, pull, here),
                "local": block_energy(precision, pull, near),
                "filter": max(filtered(precision, pull, here, shape) for shape in boxes(length, after)),
                "step": filtered(precision, pull, here, step(length, after)),
            }
            for kind, value in expected.items():
                assert found[kind][i, living[k]] == pytest.approx(value, rel=2e-3, abs=1e-3), (dead, kind)


def test_a_channel_whose_only_tie_is_dead_is_not_decoupled():
    """By itself its ratio would be rounding errors."""
    model, _, _ = fitted(12, 2, 0)
    windows = strange_windows(4, 12, 2)
    assert (model(torch.from_numpy(windows))["decoupled"] > -torch.inf).all()
    windows[:2, :, 0] = np.nan
    found = model(torch.from_numpy(windows))["decoupled"]
    assert (found[:2] == -torch.inf).all()
    assert (found[2:] > -torch.inf).all()


def test_evidence_beside_dead_channels_does_not_depend_on_what_is_kept(monkeypatch):
    windows = strange_windows(60, 10, 3)
    for i, window in enumerate(windows):
        window[:, [k for k in range(3) if i >> k & 1]] = np.nan
    model, _, _ = fitted(10, 3, 4)
    size = len(pickle.dumps(model))
    together = model(torch.from_numpy(windows))
    assert len(pickle.dumps(model)) == size, "what is kept is not stored"
    monkeypatch.setattr("diffad.evidence.window_model.KEPT", 1)
    forgetful = pickle.loads(pickle.dumps(model))
    for kind, values in together.items():
        one_by_one = torch.cat([forgetful(torch.from_numpy(w[None]))[kind] for w in windows])
        torch.testing.assert_close(one_by_one, values, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(windows_with_gaps())
def test_gaps_are_completed_by_their_conditional_mean(drawn):
    case, masks = drawn
    model, mean, covariance = MODELS[case]
    length, channels, _ = case
    flat = strange_windows(3, length, channels).reshape(3, -1)
    for i, mask in enumerate(masks):
        flat[i, mask] = np.nan
    given_rows = flat.copy()
    found = model.complete(torch.from_numpy(flat)).numpy()
    np.testing.assert_array_equal(flat, given_rows)  # the caller's windows are left alone
    for i, x in enumerate(flat.astype(float)):
        hidden, seen = np.flatnonzero(np.isnan(x)), np.flatnonzero(~np.isnan(x))
        np.testing.assert_array_equal(found[i, seen], flat[i, seen])
        expected = conditional(mean, covariance, x, hidden, seen)[0] if len(seen) else mean
        np.testing.assert_allclose(found[i, hidden], expected, rtol=1e-3, atol=1e-4)


def expected_of_scored(case, flat):
    """Return the oracle of `expected`: each scored entry given what is visible outside its channel's LOCAL rows."""
    length, channels, after = case
    _, mean, covariance = MODELS[case]
    result = np.empty((len(flat), channels))
    for i, x in enumerate(flat.astype(float)):
        for k in range(channels):
            near = local_rows(length, after) * channels + k
            seen = np.setdiff1d(np.flatnonzero(~np.isnan(x)), near)
            scored = np.array([(length - 1 - after) * channels + k])
            result[i, k] = conditional(mean, covariance, x, scored, seen)[0][0]
    return result


@pytest.mark.parametrize("case", CASES)
def test_the_expected_value_is_given_everything_but_the_rows_around_it(case):
    length, channels, _ = case
    windows = strange_windows(5, length, channels)
    found = MODELS[case][0].expected(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(found, expected_of_scored(case, windows.reshape(5, -1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_gap_in_the_rows_around_it_changes_no_expected_value(case):
    """Those rows are hidden anyway."""
    length, channels, after = case
    model = MODELS[case][0]
    windows = torch.from_numpy(strange_windows(5, length, channels))
    for k in range(channels):
        holes = windows.clone()
        holes[:, local_rows(length, after)[::2], k] = torch.nan
        torch.testing.assert_close(model.expected(holes)[:, k], model.expected(windows)[:, k], rtol=1e-3, atol=1e-4)


def test_a_gap_elsewhere_does_not_let_a_fault_explain_itself():
    case = (11, 2, 5)
    length, channels, after = case
    windows = strange_windows(5, length, channels)
    windows[:, local_rows(length, after)[-1] + 1 :] = np.nan  # the recording's end, for instance
    windows[:, 0, 1] = np.nan
    found = MODELS[case][0].expected(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(found, expected_of_scored(case, windows.reshape(5, -1)), rtol=1e-3, atol=1e-4)


def test_a_stuck_sensor_is_too_quiet():
    windows = np.random.default_rng(0).standard_normal((3, 16, 2)).astype(np.float32)
    windows[1, :, 0] = 1.5
    windows[2] *= 0.1
    found = quietness(torch.from_numpy(windows)).numpy()
    assert found[1, 0] > found[2, 0] > found[0, 0]
    assert found[1, 0] == pytest.approx(-np.log(1e-6), rel=1e-4), "a stuck channel is as quiet as any"
    squares = (np.diff(windows[0], axis=0) ** 2).mean(0)
    np.testing.assert_allclose(found[0], -np.log(squares), rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=9, max_size=9))
def test_quietness_says_nothing_where_most_differences_are_missing(missing):
    windows = np.random.default_rng(0).standard_normal((1, 9, 1)).astype(np.float32)
    windows[0, missing] = np.nan
    found = quietness(torch.from_numpy(windows)).item()
    steps = np.diff(windows[0, :, 0])
    known = steps[~np.isnan(steps)]
    if len(known) < 4:  # of 8
        assert found == -np.inf
    else:
        assert found == pytest.approx(-np.log((known**2).mean() + 1e-6), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("n", [1, 50, 9000])
def test_the_nearest_row_is_that_of_a_tree(n):
    rng = np.random.default_rng(0)
    train, new = rng.standard_normal((n, 3)).astype(np.float32), rng.standard_normal((300, 3)).astype(np.float32)
    new[:3] = train[0]
    model = NearestRows.fit(torch.from_numpy(train), torch.device("cpu"))
    kept = train[:: -(-n // NearestRows.MOST)]
    expected = (cKDTree(kept).query(new)[0] / np.sqrt(3)).clip(min=NearestRows.SAME)
    np.testing.assert_allclose(model(torch.from_numpy(new))[:, 0], expected, rtol=1e-3)


def test_rows_with_a_gap_have_no_nearest_one_and_none_are_learnt():
    train = np.array([[0, 0], [np.nan, 5], [1, 1]], np.float32)
    new = torch.tensor([[np.nan, 5.0], [0.0, 5.0]])
    found = NearestRows.fit(torch.from_numpy(train), torch.device("cpu"))(new)[:, 0]
    assert found[0] == -torch.inf
    assert found[1].item() == pytest.approx(np.sqrt((1 + 16) / 2))
    nothing = NearestRows.fit(torch.full((4, 2), torch.nan), torch.device("cpu"))
    assert (nothing(new) == -torch.inf).all()


def test_missing_readings_are_as_strange_as_a_binomial_test_says():
    windows = strange_windows(17, 16, 2)
    windows[:, :, 1] = 0.0
    for lost in range(17):
        windows[lost, :lost, 0] = np.nan
    found = missingness(torch.from_numpy(windows)).numpy()
    for lost in range(16):
        p = binomtest(lost, 16, GAPPY, alternative="greater").pvalue
        assert found[lost, 0] == pytest.approx(max(0.0, -np.log(p) - UNREMARKABLE), abs=1e-6)
    assert (found[:, 1] == 0).all()
    assert found[16, 0] == 0, "a channel lost earlier would hide the others for good"


def test_rows_in_which_every_channel_is_silent_are_not_counted():
    windows = strange_windows(2, 16, 3)
    windows[:, 4:14] = np.nan
    windows[1, 0, 2] = np.nan
    found = missingness(torch.from_numpy(windows)).numpy()
    assert (found == 0).all(), found


def normalised(x):
    """Centre and scale one channel's window; a flat one is not blown up."""
    return (x - x.mean()) / (x.std() + ShapeModel.FLOOR)


def nearest(x, training):
    """Return the root mean squared distance of shapes to the nearest training window, where x is visible."""
    seen = ~np.isnan(x)
    return min(np.sqrt(((normalised(x[seen]) - normalised(w[seen])) ** 2).mean()) for w in training)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 10), st.integers(1, 3), st.integers(0, 999))
def test_shape_is_the_distance_to_the_nearest_training_window(length, channels, seed):
    training = cut([recording(60, channels, seed)], length).astype(np.float32)
    training[5, 2, 0] = np.nan  # a window with a gap is no reference
    queries = strange_windows(6, length, channels, seed)
    found = ShapeModel.fit(torch.from_numpy(training), CPU)(torch.from_numpy(queries)).numpy()
    for k in range(channels):
        references = [w[:, k].astype(float) for w in training if not np.isnan(w[:, k]).any()]
        for i, query in enumerate(queries[:, :, k].astype(float)):
            # A difference of float32 squares near 1: its root is good to a few 1e-4.
            assert found[i, k] == pytest.approx(nearest(query, references), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("length", [6, 10])
def test_shape_compares_where_the_window_is_visible(length):
    training = cut([recording(60, 2)], length).astype(np.float32)
    queries = strange_windows(20, length, 2)
    queries[np.random.default_rng(0).random(queries.shape) < 0.3] = np.nan
    found = ShapeModel.fit(torch.from_numpy(training), CPU)(torch.from_numpy(queries)).numpy()
    for i, k in np.argwhere(np.isfinite(found)):
        expected = nearest(queries[i, :, k].astype(float), training[:, :, k].astype(float))
        # The floor may be counted in deviations of the reference or of the channel.
        assert found[i, k] == pytest.approx(expected, rel=ShapeModel.FLOOR, abs=0.02)


def test_holes_in_some_channels_change_no_other_whatever_each_has_been_seen_of():
    training = cut([recording(60, 3)], 8).astype(np.float32)
    training[:30, 2, 1] = np.nan
    training[:, 5, 2] = np.nan
    queries = strange_windows(20, 8, 3)
    queries[5:15, 3, 1:] = np.nan
    found = ShapeModel.fit(torch.from_numpy(training), CPU)(torch.from_numpy(queries))
    for k in range(3):
        alone = ShapeModel.fit(torch.from_numpy(training[:, :, [k]]), CPU)(torch.from_numpy(queries[:, :, [k]]))
        torch.testing.assert_close(found[:, [k]], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lost", [slice(0, 8), slice(6, 12), slice(8, 16)])
def test_a_training_window_with_a_gap_stays_near(lost):
    wave = np.sin(np.arange(200) / 8)[:, None].astype(np.float32)
    training = torch.from_numpy(cut([wave], 16).copy())
    model = ShapeModel.fit(training, CPU)
    holes = training.clone()
    holes[:, lost] = torch.nan
    assert model(holes).max() < 2 * ShapeModel.FLOOR


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_shape_says_nothing_where_most_of_the_window_is_missing(missing):
    windows = strange_windows(1, 8, 1)
    windows[0, missing] = np.nan
    model = ShapeModel.fit(torch.from_numpy(cut([recording(60, 1)], 8)), CPU)
    found = model(torch.from_numpy(windows)).item()
    assert (found == -np.inf) if sum(missing) > 4 else (0 < found < 5)


def test_shapes_seen_in_training_are_near_whatever_their_level_and_size():
    training = torch.from_numpy(cut([recording(300, 2)], 16))
    model = ShapeModel.fit(training, CPU)
    assert model(training).max() < 2e-3  # the root of float32's rounding
    # Size does not count but for the floor: 5 % of a deviation.
    assert model(3 * training + 7).max() < 2 * ShapeModel.FLOOR
    strange = model(training.flip(1) * torch.linspace(-1, 1, 16)[:, None])
    assert strange.median() > 5 * ShapeModel.FLOOR


def test_a_flat_window_is_near_a_flat_window_not_near_noise():
    noise = recording(200, 1)
    flat = noise.copy()
    flat[:] = 1e-3 * (noise - noise.mean())
    model = ShapeModel.fit(torch.from_numpy(cut([flat], 12)), CPU)
    still = 1e-3 * torch.from_numpy(strange_windows(20, 12, 1))
    assert model(still).max() < 0.2
    assert model(torch.from_numpy(strange_windows(20, 12, 1))).min() > 0.5


def test_a_channel_that_was_never_whole_has_no_shape():
    training = cut([recording(60, 2)], 8).astype(np.float32)
    training[:, 3, 1] = np.nan
    found = ShapeModel.fit(torch.from_numpy(training), CPU)(torch.from_numpy(strange_windows(5, 8, 2)))
    assert (found[:, 1] == -torch.inf).all()
    assert (found[:, 0] > 0).all()


def test_many_training_windows_are_thinned_in_blocks_of_neighbours(monkeypatch):
    monkeypatch.setattr(ShapeModel, "MOST", 60)
    monkeypatch.setattr(ShapeModel, "BLOCK", 10)
    windows = torch.from_numpy(strange_windows(300, 8, 1))
    distance = ShapeModel.fit(windows, CPU)(windows)[:, 0]
    kept = np.flatnonzero(distance < 2e-3)
    assert len(kept) == 60
    assert kept[0] == 0 and kept[-1] == 299, "both ends are kept"
    assert (np.diff(kept.reshape(6, 10), axis=1) == 1).all(), "neighbours stay together"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_every_row_has_one_window_and_stands_at_its_place(rows, length, data):
    after = data.draw(st.integers(0, length - 1))
    values = (np.arange(rows)[:, None] + np.array([0, 0.5])).astype(np.float32)
    chunks = list(windows_of_rows(values, length, after))
    assert [t for place, _ in chunks for t in range(rows)[place]] == list(range(rows))
    windows = torch.cat([w for _, w in chunks]).numpy()
    assert windows.shape == (rows, length, 2)
    for t, window in enumerate(windows):
        for j, entry in enumerate(window):
            source = t + j - (length - 1 - after)
            if 0 <= source < rows:
                np.testing.assert_array_equal(entry, values[source])
            else:
                assert np.isnan(entry).all()


def test_long_recordings_come_in_chunks_without_a_seam():
    values = np.arange(2 * CHUNK + 7, dtype=np.float32)[:, None]
    chunks = list(windows_of_rows(values, 5, 2))
    assert [len(w) for _, w in chunks] == [CHUNK, CHUNK, 7]
    scored = torch.cat([w[:, 2, 0] for _, w in chunks]).numpy()
    np.testing.assert_array_equal(scored, values[:, 0])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.floats(0, 0.5))
def test_the_last_window_is_the_last_of_all(rows, length, share):
    values = recording(rows, 2)
    values[np.random.default_rng(rows).random(values.shape) < share] = np.nan
    every = torch.cat([w for _, w in windows_of_rows(values, length, 0)])
    np.testing.assert_array_equal(last_window(values, length).numpy(), every[-1:].numpy())


def test_doubt_does_not_depend_on_how_many_windows_are_worked_out_together(monkeypatch):
    windows = torch.randn(300, 8, 3, generator=torch.Generator().manual_seed(0))
    model = WindowModel.fit(windows, 4, torch.device("cpu"))
    some = torch.where(torch.rand(40, 8, 3, generator=torch.Generator().manual_seed(1)) < 0.5, torch.nan, windows[:40])
    together = model.doubt(some)
    monkeypatch.setattr("diffad.evidence.window_model.DOUBTED", 1)
    torch.testing.assert_close(model.doubt(some), together)


@pytest.mark.parametrize("after", [0, 8])
def test_doubt_of_a_silent_channel_is_that_of_windows_that_miss_nothing_else(after):
    windows = torch.randn(300, 16, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
    model = WindowModel.fit(windows, after, torch.device("cpu"))
    silent = torch.zeros(5, 16, dtype=torch.bool)
    silent[0], silent[1, :10], silent[2, 6:], silent[3, 3:14] = True, True, True, True
    some = windows[:5].clone()
    some[..., 1][silent] = torch.nan
    torch.testing.assert_close(model.doubt_of_silent(silent, 1), model.doubt(some)[:, 1])


@pytest.mark.parametrize("after", [0, 4])
def test_doubt_is_the_ratio_of_conditional_deviations(after):
    """Against the covariance itself: Schur complements, mask by mask and channel by channel."""
    length, channels = 10, 2
    rng = np.random.default_rng(0)
    rows = lfilter([1], [1, -0.8], rng.standard_normal((400, channels)) @ [[1.0, 0.7], [0.0, 0.5]], axis=0)
    windows = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(rows.astype(np.float32), length, 0)).mT.clone()
    model = WindowModel.fit(windows, after, torch.device("cpu"))
    some = windows[:6].clone()
    some[torch.from_numpy(rng.random(some.shape) < 0.4)] = torch.nan
    some[5] = torch.nan
    covariance = np.linalg.inv(model.precision.numpy())
    scored = length - 1 - after
    first = max(0, min(scored - LOCAL // 2, length - LOCAL))

    def deviation(missing, k):
        hidden = missing.copy()
        hidden.reshape(length, channels)[first : first + LOCAL, k] = True
        seen, entry = np.flatnonzero(~hidden), scored * channels + k
        across = covariance[entry, seen]
        return np.sqrt(covariance[entry, entry] - across @ np.linalg.solve(covariance[np.ix_(seen, seen)], across))

    expected = [
        [deviation(m, k) / deviation(np.zeros_like(m), k) for k in range(channels)]
        for m in some.isnan().flatten(1).numpy()
    ]
    np.testing.assert_allclose(model.doubt(some).numpy(), expected, rtol=1e-5)
