"""Which channels wander, and what a window knows of a level that nothing tells."""

import warnings

import numpy as np
import pytest
import torch

from diffad import SeriesImputer, Training
from diffad.filling.levels import FREE, LevelRange, wandering, with_free_levels
from diffad.metrics import coverage
from diffad.priors import CyclicPrior, GaussianPrior, StandardPrior

LENGTH = 24


def noise(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 1))


def autoregression(n, seed=0, keeps=0.9):
    rows = noise(n, seed)
    for t in range(1, n):
        rows[t] += keeps * rows[t - 1]
    return rows


def walk(n, seed=0):
    return np.cumsum(noise(n, seed), 0)


def cycle(n, seed=0):
    return np.sin(2 * np.pi * np.arange(n) / 40)[:, None] + 0.1 * noise(n, seed)


@pytest.mark.parametrize(
    ("process", "wanders"), [(noise, False), (autoregression, False), (cycle, False), (walk, True)]
)
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_a_walk_wanders_and_what_returns_to_a_mean_does_not(process, wanders, missing):
    rows = np.concatenate([process(2000, 0), process(2000, 1)], 1)
    rows[np.random.default_rng(2).random(rows.shape) < missing] = np.nan
    assert wandering([rows], LENGTH).tolist() == [wanders, wanders]


def test_each_channel_is_judged_by_itself_over_all_series():
    series = [np.concatenate([noise(500, k), walk(500, k)], 1) for k in range(4)]
    assert wandering(series, LENGTH).tolist() == [False, True]


@pytest.mark.parametrize("rows", [np.zeros((5, 2)), np.full((500, 2), np.nan), np.zeros((2 * LENGTH, 2))])
def test_what_tells_nothing_does_not_wander(rows):
    assert wandering([rows], LENGTH).tolist() == [False, False]


def test_the_level_of_a_window_is_what_its_visible_part_shows():
    """White noise around a level: the mean of a normal sample under a normal prior."""
    prior = with_free_levels(
        GaussianPrior(torch.zeros(2 * LENGTH), torch.eye(2 * LENGTH)), LENGTH, np.array([True, False])
    )
    visible = torch.zeros(1, LENGTH, 2, dtype=torch.bool)
    visible[:, :10] = True
    given = prior.condition(visible.flatten(1), ~visible.flatten(1))
    x = torch.from_numpy(5 + np.random.default_rng(0).standard_normal((1, 1, 2 * LENGTH))).float()
    level = FREE**2 * float(x[0, 0, 0:20:2].sum()) / (1 + 10 * FREE**2)
    told = given.explain(x)[0, 0].view(LENGTH, 2)[10:]
    torch.testing.assert_close(told[:, 0], torch.full((LENGTH - 10,), level))
    torch.testing.assert_close(told[:, 1], torch.zeros(LENGTH - 10))
    scale = given.scale[0].view(LENGTH, 2)[10:]
    torch.testing.assert_close(scale[:, 0], torch.full((LENGTH - 10,), float(np.sqrt(1 + 1 / (FREE**-2 + 10)))))


def test_phases_are_kept_and_other_priors_are_left_alone():
    cyclic = CyclicPrior(torch.randn(5, LENGTH), torch.eye(LENGTH))
    free = with_free_levels(cyclic, LENGTH, np.array([True]))
    assert isinstance(free, CyclicPrior) and torch.equal(free.centres, cyclic.centres)
    assert with_free_levels(cyclic, LENGTH, np.array([False])) is None
    assert with_free_levels(StandardPrior(LENGTH), LENGTH, np.array([True])) is None


def test_a_forecast_of_a_walk_stays_where_it_was():
    """The last value is the best there is; a mean of all that was seen is far away."""
    own, best, inside = [], [], []
    for seed in range(4):
        rows = np.cumsum(np.random.default_rng(seed).standard_normal((1400, 2)), 0)
        imputer = SeriesImputer(training=None).fit(rows[:1200])
        shown = rows[1200:].copy()
        shown[-96:] = np.nan
        own.append(np.abs(imputer.transform(shown) - rows[1200:])[-96:].mean())
        best.append(np.abs(rows[-97] - rows[-96:]).mean())
        inside.append(coverage(*(edge[-96:] for edge in imputer.interval(shown)), rows[-96:]))
    assert np.mean(own) < 1.4 * np.mean(best)
    assert np.mean(inside) > 0.75


def test_few_rows_do_not_tell_where_a_trend_will_be():
    inside = []
    for seed in range(6):
        t = np.arange(150)
        rows = np.stack([0.01 * t + np.sin(2 * np.pi * t / 24), np.cos(2 * np.pi * t / 24)], 1)
        rows += 0.15 * np.random.default_rng(seed).standard_normal(rows.shape)
        shown = rows.copy()
        shown[-30:] = np.nan
        inside.append(
            coverage(*(edge[-30:] for edge in SeriesImputer(training=None).fit(shown).interval(shown)), rows[-30:])
        )
    assert np.mean(inside) > 0.85


@pytest.fixture(scope="module")
def known_levels():
    return LevelRange.fit([np.concatenate([noise(500), 3 + noise(500, 1), np.full((500, 1), np.nan)], 1)], LENGTH)


def shown(level, channel=0):
    """A window of noise, one channel at another level; the third never seen before."""
    window = np.random.default_rng(5).standard_normal((LENGTH, 3))
    window += np.array([0, 3, 0]) + level * (np.arange(3) == channel)
    return window


@pytest.mark.parametrize(("level", "channel", "left"), [(0, 0, False), (4, 0, True), (-4, 1, True), (50, 2, False)])
def test_a_window_leaves_the_levels_of_a_channel_it_knows(known_levels, level, channel, left):
    assert known_levels.left(np.stack([shown(0), shown(level, channel)])).tolist() == [False, left]


def test_one_wild_reading_and_what_shows_little_leave_nothing(known_levels):
    wild, little = shown(0), shown(4)
    wild[3, 0] = 1e6
    little[LENGTH // 3 :, 0] = np.nan
    assert known_levels.left(np.stack([wild, little, np.full_like(wild, np.nan)])).tolist() == [False, False, False]


@pytest.mark.parametrize("training", [None, Training(max_steps=20)])
@pytest.mark.parametrize("rows", [120, 1500])  # 120 are too few to hold any out
def test_what_lies_beyond_the_rows_fitted_on_is_filled_as_what_lies_within(rows, training):
    process = np.concatenate([autoregression(rows + 200, 0, 0.95), autoregression(rows + 200, 1, 0.95)], 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no network was trained")
        imputer = SeriesImputer(window=LENGTH, training=training).fit(process[:rows])
    later = process[rows:].copy()
    for start in range(10, 180, 20):
        later[start : start + 6, start % 2] = np.nan
    hidden = np.isnan(later)
    apart = 30 * process.std(0)
    error, inside = [], []
    for beyond in (0, apart):
        truth = (process[rows:] + beyond)[hidden]
        error.append(np.abs(imputer.transform(later + beyond)[hidden] - truth).mean())
        inside.append(coverage(*(edge[hidden] for edge in imputer.interval(later + beyond)), truth))
    assert error[1] < 1.25 * error[0]
    assert inside[1] > inside[0] - 0.1


def test_beyond_them_a_channel_that_is_not_shown_at_all_still_follows_another():
    lead = autoregression(900, 0, 0.95)
    rows = np.concatenate([lead, 2 * lead + 0.1 * noise(900, 1)], 1)
    imputer = SeriesImputer(window=LENGTH, training=None).fit(rows[:700])
    shown = rows[700:] + np.array([100.0, 200.0])
    shown[:, 1] = np.nan
    assert np.abs(imputer.transform(shown)[:, 1] - rows[700:, 1] - 200).mean() < 1


def test_within_them_nothing_changes(monkeypatch):
    process = walk(600)
    imputer = SeriesImputer(window=LENGTH, training=None).fit(process)
    holes = process.copy()
    holes[50:60] = holes[200:203] = np.nan
    filled = imputer.transform(holes)
    monkeypatch.setattr(LevelRange, "left", lambda self, windows: np.zeros(len(windows), bool))
    np.testing.assert_array_equal(imputer.transform(holes), filled)


def test_a_stochastic_sampler_gets_the_noise_of_its_own_rows():
    """A recording half beyond the levels: the half within is drawn as it is by itself in the same place."""
    process = autoregression(900)
    imputer = SeriesImputer(window=LENGTH, sampler="ddpm", training=Training(max_steps=20)).fit(process)
    imputer.model_.gate[:] = 1.0
    later = process[:400].copy()
    later[100:106] = later[300:306] = np.nan
    later[250:] += 100
    with pytest.MonkeyPatch.context() as patched:
        # The noise of a recording hangs on its content; here it is to be the same.
        patched.setattr("diffad.series.windows._content_key", lambda series: 7)
        beyond = imputer.sample(later, 3)
        later[250:] -= 100
        within = imputer.sample(later, 3)
    np.testing.assert_allclose(beyond[:, :200], within[:, :200], atol=1e-5)
    assert np.abs(beyond[:, 300:306].mean() - 100) < 10
