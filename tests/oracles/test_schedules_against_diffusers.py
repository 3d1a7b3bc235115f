"""Noise schedules are those of the literature: equal, level by level, to what `diffusers` computes.

`diffusers` keeps its schedules in float32, so agreement is asked to 1e-5 relative for sums of few
terms; where a level hangs on 1 - abar with abar near 1, float32 leaves four digits.
"""

import numpy as np
import pytest
from diffusers.schedulers import DDPMScheduler, EulerDiscreteScheduler

from diffad.diffusion.noise import HIGHEST, cosine_sigmas, karras_sigmas, linear_sigmas


@pytest.mark.parametrize("n_steps", [2, 7, 40])
@pytest.mark.parametrize(("low", "high"), [(0.02, 40.0), (0.1, 2.0)])
def test_karras_equals_diffusers(n_steps, low, high):
    scheduler = EulerDiscreteScheduler(use_karras_sigmas=True, sigma_min=low, sigma_max=high)
    scheduler.set_timesteps(n_steps)
    ours = karras_sigmas(n_steps, low, high)
    np.testing.assert_allclose(ours.numpy(), scheduler.sigmas.numpy(), rtol=1e-5)


def _sigmas_of_betas(betas):
    abar = np.cumprod(1 - np.asarray(betas, dtype=np.float64))
    return np.sqrt((1 - abar) / abar)


@pytest.mark.parametrize("n_train", [100, 1000])
def test_linear_equals_the_betas_of_diffusers(n_train):
    betas = DDPMScheduler(n_train, 1e-4, 0.02, "linear").betas
    ours = linear_sigmas(n_train, 1e-4, 0.02, n_train).numpy()
    np.testing.assert_allclose(ours[:-1], _sigmas_of_betas(betas)[::-1], rtol=1e-4)


@pytest.mark.parametrize("n_train", [100, 1000])
def test_cosine_equals_the_betas_of_diffusers(n_train):
    betas = DDPMScheduler(n_train, beta_schedule="squaredcos_cap_v2").betas
    ours = cosine_sigmas(n_train, n_train).numpy()
    # The largest level hangs on 1 - beta = 0.001, of which float32 keeps four digits.
    np.testing.assert_allclose(ours[:-1], _sigmas_of_betas(betas)[::-1], rtol=5e-4)


@pytest.mark.parametrize(("ours", "name"), [(linear_sigmas, "linear"), (cosine_sigmas, "squaredcos_cap_v2")])
def test_fewer_steps_are_even_timesteps_of_diffusers_below_the_leaps(ours, name):
    """The highest levels, where nothing of the data is left, are skipped; of the rest timesteps are even ("linspace")."""
    levels = _sigmas_of_betas(DDPMScheduler(1000, 1e-4, 0.02, name).betas)
    levels = levels[levels <= HIGHEST]
    kept = np.abs(np.log(ours(28).numpy()[:-1, None] / levels)).argmin(1)
    np.testing.assert_allclose(ours(28).numpy()[:-1], levels[kept], rtol=5e-4)
    assert kept[0] == len(levels) - 1 and kept[-1] == 0
    assert np.ptp(np.diff(kept)) <= 1
