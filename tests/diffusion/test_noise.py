"""A schedule falls strictly to zero in as many steps as asked, and training levels are log-normal."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from diffad.diffusion.noise import HIGHEST, SCHEDULES, LogNormalLevels, angle_sigmas, karras_sigmas

EVERY = [*SCHEDULES.values(), angle_sigmas]


@pytest.mark.parametrize("n_steps", [1, 2, 8, 50])
@pytest.mark.parametrize("schedule", EVERY)
def test_levels_fall_strictly_to_zero(schedule, n_steps):
    sigmas = schedule(n_steps)
    assert sigmas.shape == (n_steps + 1,)
    assert sigmas[-1] == 0
    assert bool((sigmas[:-1] > sigmas[1:]).all()), sigmas


@pytest.mark.parametrize("schedule", EVERY)
def test_no_steps_are_refused(schedule):
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        schedule(0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_by_name_start_at_a_finite_level(schedule):
    assert math.isfinite(SCHEDULES[schedule](8)[0])


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_more_steps_than_training_levels_are_refused(name):
    with pytest.raises(ValueError, match="n_steps=1001 exceeds"):
        SCHEDULES[name](1001)


def test_karras_keeps_its_ends_and_is_even_in_the_root():
    sigmas = karras_sigmas(9, 0.1, 30.0, rho=5.0)[:-1].numpy()
    assert sigmas[[0, -1]] == pytest.approx([30.0, 0.1])
    np.testing.assert_allclose(np.diff(sigmas ** (1 / 5), n=2), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_thinned_schedules_keep_the_first_useful_and_the_last_training_level(name):
    every, few = SCHEDULES[name](1000), SCHEDULES[name](7)
    assert few[0] == every[every <= HIGHEST][0]
    assert few[-2] == every[-2]


def test_angles_are_even_from_a_right_angle_to_zero():
    sigmas = angle_sigmas(6)
    assert sigmas[0] == math.inf
    np.testing.assert_allclose(np.arctan(sigmas.numpy()), np.linspace(np.pi / 2, 0, 7), atol=1e-15)


def test_training_levels_are_log_normal():
    levels = LogNormalLevels(0.3, 1.2).sample((50, 400), torch.Generator().manual_seed(0))
    assert levels.shape == (50, 400)
    assert levels.dtype == torch.float32
    result = stats.kstest(np.log(levels.double().numpy().ravel()), stats.norm(0.3, 1.2).cdf)
    assert result.pvalue > 1e-3, result


def test_training_levels_repeat_with_the_seed():
    draws = [LogNormalLevels().sample((5,), torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
