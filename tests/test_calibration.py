"""Bands hold what they promise: the share of new errors inside is the nominal one, per kind and channel."""

import numpy as np
import pytest
from scipy import stats

from diffad.calibration import ENOUGH, Bands, spread

KINDS, CHANNELS = 3, 2


def at(bands, kind, channel, q=0.9):
    """Return the bands' quantile of one kind and channel."""
    return bands.quantile(q, np.full((1, CHANNELS), kind))[0, channel]


@pytest.mark.parametrize("q", [0.005, 0.05, 0.3, 0.5, 0.9, 0.995])
def test_gaussian_bands_are_gaussian_quantiles(q):
    kinds = np.array([[0, 2], [1, 1]])
    quantiles = Bands.gaussian(KINDS, CHANNELS).quantile(q, kinds)
    np.testing.assert_allclose(quantiles, stats.norm.ppf(q), atol=1e-9)


@pytest.mark.parametrize("windows", [4, 7.5, 1e6])
def test_a_spread_that_few_windows_told_takes_wider_bands(windows):
    bands = Bands.of_few(KINDS, CHANNELS, windows)
    assert at(bands, 2, 1) == pytest.approx(stats.t.ppf(0.9, windows))
    assert at(bands, 2, 1) >= at(Bands.gaussian(KINDS, CHANNELS), 2, 1) - 1e-9


def test_a_few_values_and_the_spread_they_show_leave_nine_tenths_of_new_ones_inside():
    """The law behind it: the next value by the spread of five others, 20,000 times."""
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((20_000, 5))
    z = rng.standard_normal(20_000) / np.sqrt((seen**2).mean(1))
    bands = Bands.of_few(1, CHANNELS, 5), Bands.gaussian(1, CHANNELS)
    inside, too_few = (float((np.abs(z) <= at(b, 0, 0, 0.95)).mean()) for b in bands)
    assert inside == pytest.approx(0.9, abs=0.01)
    assert too_few < 0.86


def test_between_levels_gaussian_bands_are_nearly_gaussian():
    q = np.linspace(0.001, 0.999, 57)
    ours = [Bands.gaussian(1, 1).quantile(level, np.zeros((1, 1), int))[0, 0] for level in q]
    # Interpolated between levels 0.002 to 0.005 apart: coverage is off by less than 0.0005.
    np.testing.assert_allclose(stats.norm.cdf(ours), q, atol=5e-4)
    assert (np.diff(ours) > 0).all()


@pytest.mark.parametrize("law", [stats.norm(0.5, 2.0), stats.t(3), stats.expon(-1)], ids=["normal", "heavy", "skew"])
@pytest.mark.parametrize("q", [0.01, 0.05, 0.5, 0.9, 0.99])
def test_new_errors_are_covered_as_promised_for_each_kind_and_channel(law, q):
    """Each kind and channel has errors of its own size; the law need not be normal."""
    rng = np.random.default_rng(0)
    n = 40_000
    kind, channel = rng.integers(KINDS, size=n), rng.integers(CHANNELS, size=n)
    size = 1 + kind + 3 * channel
    z = size * law.rvs(n, random_state=rng)
    bands = Bands.fit(z, kind, channel, (KINDS, CHANNELS))
    for k in range(KINDS):
        for c in range(CHANNELS):
            threshold = at(bands, k, c, q)
            # Four standard errors of a level from 40,000 / 6 entries.
            assert law.cdf(threshold / (1 + k + 3 * c)) == pytest.approx(q, abs=4 * np.sqrt(q * (1 - q) * 6 / n))


@pytest.mark.parametrize("q", [0.02, 0.05, 0.95, 0.98])
def test_few_calibration_entries_err_on_the_safe_side_on_average(q):
    """Split conformal prediction promises coverage on average over calibration sets of any size."""
    rng = np.random.default_rng(1)
    levels = []
    for _ in range(300):
        z = rng.standard_normal(ENOUGH)
        bands = Bands.fit(z, np.zeros(ENOUGH, int), np.zeros(ENOUGH, int), (1, 1))
        levels.append(stats.norm.cdf(bands.quantile(q, np.zeros((1, 1), int))[0, 0]))
    inside = np.mean(levels) if q > 0.5 else 1 - np.mean(levels)
    nominal = max(q, 1 - q)
    # Four standard errors of the mean of 300 levels.
    assert nominal - 4 * np.std(levels) / np.sqrt(300) < inside < nominal + 1.5 / ENOUGH + 0.004


def test_few_entries_borrow_from_all_channels_of_their_kind_then_from_all_kinds():
    rng = np.random.default_rng(0)
    counts = {(0, 0): 5000, (0, 1): ENOUGH - 1, (1, 0): ENOUGH // 4, (1, 1): ENOUGH // 4}
    kind = np.concatenate([np.full(n, k) for (k, _), n in counts.items()])
    channel = np.concatenate([np.full(n, c) for (_, c), n in counts.items()])
    z = rng.standard_normal(len(kind)) * np.where(kind == 1, 100.0, 1.0)
    z[(kind == 0) & (channel == 0)] *= 3
    bands = Bands.fit(z, kind, channel, (KINDS, CHANNELS))
    assert at(bands, 0, 0) == pytest.approx(3 * stats.norm.ppf(0.9), rel=0.1)
    assert at(bands, 0, 1) == pytest.approx(np.quantile(z[kind == 0], 0.9), rel=0.02)
    for k in (1, 2):  # too few, and none at all
        for c in range(CHANNELS):
            assert at(bands, k, c) == pytest.approx(np.quantile(z, 0.9), rel=0.02)


def test_without_enough_entries_bands_are_gaussian():
    z = 50 * np.random.default_rng(0).standard_normal(ENOUGH - 1)
    bands = Bands.fit(z, np.zeros(len(z), int), np.zeros(len(z), int), (KINDS, CHANNELS))
    np.testing.assert_array_equal(bands.table, Bands.gaussian(KINDS, CHANNELS).table)
    empty = Bands.fit(np.zeros(0), np.zeros(0, int), np.zeros(0, int), (KINDS, CHANNELS))
    np.testing.assert_array_equal(empty.table, bands.table)


def test_quantiles_never_cross():
    z = np.random.default_rng(0).standard_t(2, 3 * ENOUGH)
    bands = Bands.fit(z, np.arange(len(z)) % KINDS, np.zeros(len(z), int), (KINDS, CHANNELS))
    assert (np.diff(bands.table, axis=-1) >= 0).all()


def test_quantiles_of_blocks_that_drift_never_cross():
    """Widening is measured over all kinds of gaps: what the outer levels of one need may fall where another is flat."""
    rng = np.random.default_rng(0)
    block, kind = np.repeat(np.arange(4), 2 * ENOUGH), np.arange(8 * ENOUGH) % 2
    wild = rng.standard_t(2, len(block)) * rng.uniform(0.2, 2, 4)[block]
    z = np.where(kind == 0, rng.uniform(-1, 1, len(block)), wild)
    bands = Bands.fit(z, kind, np.zeros(len(z), int), (2, 1), block)
    assert (np.diff(bands.table, axis=-1) >= 0).all()


def test_spread_lies_between_samples_and_prior():
    rng = np.random.default_rng(0)
    prior = np.full(50, 2.0, np.float32)
    few, many = (rng.standard_normal((n, 50)).astype(np.float32) for n in (5, 5000))
    calm = np.ones(50, np.float32)
    np.testing.assert_array_equal(spread(few[:1], prior, calm) <= prior, True)
    steadied = spread(few, prior, calm)
    assert (np.abs(steadied - prior) < np.abs(few.std(0, ddof=1) - prior)).all()
    # With many samples the prior's weight fades: 20 of 5,020 of a variance of 4.
    np.testing.assert_allclose(spread(many, prior, calm), many.std(0, ddof=1), rtol=0.01)
    np.testing.assert_allclose(spread(2 * rng.standard_normal((40, 50)), prior, calm).mean(), 2, rtol=0.03)
    np.testing.assert_allclose(spread(few, prior, 3 * calm), 3 * spread(few, prior, calm))


def test_bands_are_widened_half_way_to_what_the_worse_half_of_the_held_out_blocks_needs():
    rng = np.random.default_rng(3)
    block = np.repeat(np.arange(4), 10_000)
    z = rng.standard_normal(len(block)) * np.where(block >= 2, 1.5, 0.5)
    zeros = np.zeros(len(block), int)
    together = Bands.fit(z, zeros, zeros, (1, CHANNELS))
    widened = Bands.fit(z, zeros, zeros, (1, CHANNELS), block)
    worse = 1.5 * stats.norm.ppf(0.95)
    assert at(together, 0, 0, 0.95) < 0.9 * worse
    # Half way in logarithms.
    assert at(widened, 0, 0, 0.95) == pytest.approx(np.sqrt(worse * at(together, 0, 0, 0.95)), rel=0.02)


def test_a_channel_that_drifts_widens_its_own_bands_alone():
    rng = np.random.default_rng(3)
    block, channel = np.repeat(np.arange(4), 10_000), np.arange(40_000) % 2
    z = rng.standard_normal(len(block)) * np.where((block >= 2) & (channel == 1), 2.0, 1.0)
    bands = Bands.fit(z, np.zeros(len(block), int), channel, (1, 2), block)
    assert at(bands, 0, 0, 0.95) == pytest.approx(stats.norm.ppf(0.95), rel=0.05)
    together = Bands.fit(z, np.zeros(len(block), int), channel, (1, 2))
    worse = 2 * stats.norm.ppf(0.95)
    assert at(bands, 0, 1, 0.95) == pytest.approx(np.sqrt(worse * at(together, 0, 1, 0.95)), rel=0.03)


def test_blocks_that_agree_widen_bands_by_chance_alone():
    rng = np.random.default_rng(4)
    block = np.repeat(np.arange(4), 10_000)
    z = rng.standard_normal(len(block))
    zeros = np.zeros(len(block), int)
    widened = Bands.fit(z, zeros, zeros, (1, CHANNELS), block)
    assert at(widened, 0, 0, 0.95) == pytest.approx(stats.norm.ppf(0.95), rel=0.04)
