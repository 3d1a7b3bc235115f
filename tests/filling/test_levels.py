"""Which channels wander, and what a window knows of a level that nothing tells."""

import numpy as np
import pytest
import torch

from diffad import SeriesImputer
from diffad.filling.levels import FREE, wandering, with_free_levels
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
