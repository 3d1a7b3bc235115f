"""The spread follows what visible neighbours say of it, and is left alone where they say nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffad import SeriesImputer, Training
from diffad.metrics import coverage, crps
from diffad.model import Sampler
from diffad.priors.local_scale import MOST, LocalScale


def test_unsurprising_neighbours_leave_the_spread_as_it_is():
    local = LocalScale.of_window(length=6, doubt=3.0)
    visible = torch.rand((5, 12), generator=torch.Generator().manual_seed(0)) < 0.5
    surprise = torch.where(torch.rand(5, 4, 12) < 0.5, 1.0, -1.0)
    torch.testing.assert_close(local(surprise, visible), torch.ones(5, 4, 12))


def test_nothing_visible_leaves_the_spread_as_it_is():
    local = LocalScale.of_window(length=6, doubt=3.0)
    surprise = torch.full((1, 3, 12), 9.0)
    torch.testing.assert_close(local(surprise, torch.zeros(1, 12, dtype=torch.bool)), torch.ones(1, 3, 12))


def test_the_scale_of_many_surprises_is_theirs_and_of_few_is_shrunk():
    """Where all entries weigh alike it is the posterior mean variance under an inverse-gamma prior."""
    local = LocalScale(torch.ones(200, 200), doubt=10.0)  # one channel
    surprise = 2 * torch.randn((1, 50, 200), generator=torch.Generator().manual_seed(1)).clamp(-1.9, 1.9)
    for seen in (5, 199):
        visible = torch.arange(200)[None] < seen
        square = surprise[..., :seen].double().square().sum(-1)
        expected = ((10 + square) / (10 + seen)).sqrt().float()
        torch.testing.assert_close(local(surprise, visible)[..., -1], expected)


def test_near_surprises_of_the_same_channel_count_most():
    local = LocalScale.of_window(length=20, doubt=3.0)
    visible = torch.ones(1, 40, dtype=torch.bool)
    surprise = torch.zeros(1, 1, 40)
    surprise[0, 0, 20] = MOST  # step 10, channel 0
    scale = local(surprise, visible)[0, 0].unflatten(0, (20, 2))
    assert scale[10, 0] > scale[4, 0] > scale[0, 0]
    assert scale[10, 0] > scale[10, 1]


def test_one_wild_surprise_is_cut():
    local = LocalScale.of_window(length=6, doubt=3.0)
    visible = torch.ones(1, 12, dtype=torch.bool)
    wild, cut = torch.zeros(1, 1, 12), torch.zeros(1, 1, 12)
    wild[..., 3], cut[..., 3] = 1e6, MOST
    torch.testing.assert_close(local(wild, visible), local(cut, visible))


def restless(seed, rows=4000, channels=3):
    """Autoregressive channels whose innovations are quiet and restless in turns, in a rhythm nothing else tells."""
    rng = np.random.default_rng(seed)
    size = np.exp(np.repeat(rng.normal(0, 1.0, (rows // 100, channels)), 100, 0))
    x = np.zeros((rows, channels))
    for t in range(1, rows):
        x[t] = 0.7 * x[t - 1] + size[t] * rng.standard_normal(channels)
    return x


def test_restless_recordings_get_a_local_scale_and_bands_that_follow_it():
    imputer = SeriesImputer(window=24, training=Training(max_steps=0)).fit(restless(0))
    assert imputer.model_.local is not None
    truth = restless(1)
    gaps = np.where(np.random.default_rng(2).random(truth.shape) < 0.2, np.nan, truth)
    hidden = np.isnan(gaps)
    lower, upper = imputer.interval(gaps, 0.9, n_samples=20)
    assert coverage(lower[hidden], upper[hidden], truth[hidden]) == pytest.approx(0.9, abs=0.03)
    samples = imputer.sample(gaps, n_samples=20)[:, hidden]
    imputer.model_.local = None
    plain = imputer.sample(gaps, n_samples=20)[:, hidden]
    assert crps(samples, truth[hidden]).mean() < 0.98 * crps(plain, truth[hidden]).mean()


def test_gaussian_recordings_get_none():
    rng = np.random.default_rng(0)
    x = np.zeros((4000, 3))
    for t in range(1, len(x)):
        x[t] = 0.7 * x[t - 1] + rng.standard_normal(3)
    assert SeriesImputer(window=24, training=Training(max_steps=0)).fit(x).model_.local is None


def test_a_network_s_samples_are_left_alone_and_bands_told_how_restless_it_is(trained):
    windows = torch.randn((5, trained.window, 2), generator=torch.Generator().manual_seed(0))
    visible = torch.rand(windows.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    noise = torch.randn((4, *windows.shape), generator=torch.Generator().manual_seed(2))
    found = []
    for local in (None, LocalScale.of_window(trained.window, doubt=3.0)):
        model = replace(trained.model_, local=local)
        with torch.no_grad():
            found.append(model.sample(windows, visible, ~visible, noise, Sampler(n_steps=2), torch.Generator()))
    (plain, scale, calm), (same, own, restless) = found
    assert torch.equal(plain, same) and torch.equal(scale, own)
    assert bool((calm == 1).all() and (restless[visible] == 1).all())
    assert (restless[~visible] - 1).abs().max() > 0.05
