"""Each sampler takes the steps that `diffusers` takes with the same denoiser, levels and noise.

Ours are variance exploding (y = x + sigma e); DDIM, DDPM and DPM-Solver++ of `diffusers` are variance
preserving, ``y_vp = y / sqrt(1 + sigma^2)``.  States are compared element by element after every
step.  Where `diffusers` casts to float32 the tolerance is 2e-5 of the state's largest entry per
step; where float64 can be forced on it, 1e-9.
"""

import pytest
import torch
from diffusers.schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from diffad.diffusion import samplers

N_STEPS = 10
DRAW = torch.Generator().manual_seed(3)
START = torch.randn(6, 4, generator=DRAW, dtype=torch.float64)


def denoise(y, sigma):
    """Map anything smoothly: not the mean of any distribution, so nothing cancels by chance."""
    centre = torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype)
    return centre + (y - centre) / (1 + sigma**2) + 0.3 * torch.sin(2 * y / (1 + sigma)) * sigma / (1 + sigma)


def trajectory(sampler, y, sigmas, noise=None, **options):
    """Record the states a sampler shows its denoiser, and its result."""
    states = []

    def spy(state, sigma):
        states.append(state)
        return denoise(state, sigma)

    result = sampler(spy, y, sigmas, noise or _no_noise, **options)
    return [*states, result]


def _no_noise():
    raise AssertionError("a deterministic sampler drew noise")


def assert_states_equal(ours, theirs, rtol):
    assert len(ours) == len(theirs)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        worst = float((a - b).abs().max() / b.abs().max())
        assert worst < rtol, f"state {step} differs by {worst:.1e} of its largest entry"


def vp(scheduler):
    """Put a scheduler's abar into float64 and return it with the sigmas of its timesteps, then 0."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    else:
        scheduler.alphas, scheduler.betas = scheduler.alphas.double(), scheduler.betas.double()
        scheduler.one = scheduler.one.double()
    abar = scheduler.alphas_cumprod[scheduler.timesteps.long()]
    return torch.cat([((1 - abar) / abar).sqrt(), abar.new_zeros(1)])


def run_vp(scheduler, sigmas, step):
    """Run a variance-preserving scheduler on the exploding denoiser; return exploding states."""
    states = [START * sigmas[0]]
    for t, sigma, lower in zip(scheduler.timesteps, sigmas[:-1], sigmas[1:], strict=True):
        y = states[-1]
        after = step(denoise(y, sigma), t, y / (1 + sigma**2).sqrt())
        states.append(after * (1 + lower**2).sqrt())
    return states


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers(eta, schedule):
    scheduler = DDIMScheduler(beta_schedule=schedule, prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(N_STEPS)
    sigmas = vp(scheduler)
    draws = torch.randn(N_STEPS, *START.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs_noise, ours_noise = iter(draws), iter(draws)

    def step(clean, t, y):
        return scheduler.step(clean, t, y, eta=eta, variance_noise=next(theirs_noise)).prev_sample

    theirs = run_vp(scheduler, sigmas, step)
    noise = (lambda: next(ours_noise)) if eta else None
    ours = trajectory(samplers.ddim, START * sigmas[0], sigmas, noise, eta=eta)
    assert_states_equal(ours, theirs, 1e-9)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_ddpm_equals_diffusers_over_all_timesteps(schedule):
    scheduler = DDPMScheduler(
        40, beta_schedule=schedule, prediction_type="sample", clip_sample=False, variance_type="fixed_small"
    )
    scheduler.set_timesteps(40)
    sigmas = vp(scheduler)
    theirs_generator, ours_generator = (torch.Generator().manual_seed(5) for _ in range(2))

    def step(clean, t, y):
        return scheduler.step(clean, t, y, generator=theirs_generator).prev_sample

    def noise():
        return torch.randn(START.shape, generator=ours_generator, dtype=torch.float64)

    theirs = run_vp(scheduler, sigmas, step)
    ours = trajectory(samplers.ddpm, START * sigmas[0], sigmas, noise)
    # abar, cumulated in float32, is not the product of the alphas that DDPM also uses.
    assert_states_equal(ours, theirs, 1e-5)


@pytest.mark.parametrize("n_steps", [1, 2, 9, 20])
def test_dpmpp_2m_equals_diffusers(n_steps):
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="sample", algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint"
    )
    scheduler.set_timesteps(n_steps)
    sigmas = scheduler.sigmas.double()
    theirs = run_vp(scheduler, sigmas, lambda clean, t, y: scheduler.step(clean, t, y).prev_sample)
    ours = trajectory(samplers.dpmpp_2m, START * sigmas[0], sigmas)
    assert_states_equal(ours, theirs, 2e-5)


def test_ddim_equals_eulers_method_of_diffusers():
    scheduler = EulerDiscreteScheduler(prediction_type="sample", use_karras_sigmas=True, sigma_min=0.02, sigma_max=40)
    scheduler.set_timesteps(N_STEPS)
    sigmas = scheduler.sigmas.double()
    states = [START * sigmas[0]]
    for t, sigma in zip(scheduler.timesteps, sigmas[:-1], strict=True):
        scheduler.scale_model_input(states[-1], t)
        states.append(scheduler.step(denoise(states[-1], sigma), t, states[-1]).prev_sample)
    assert_states_equal(trajectory(samplers.ddim, START * sigmas[0], sigmas), states, 2e-5)


@pytest.mark.parametrize("karras", [True, False])
def test_heun_equals_diffusers(karras):
    scheduler = HeunDiscreteScheduler(prediction_type="epsilon", use_karras_sigmas=karras)
    scheduler.set_timesteps(N_STEPS)
    scheduler.sigmas = scheduler.sigmas.double()  # each level twice but the first and the last
    levels = scheduler.sigmas[[0, *range(1, 2 * N_STEPS - 1, 2), 2 * N_STEPS - 1]]
    assert len(levels) == N_STEPS + 1
    states = [START * levels[0]]
    for i, t in enumerate(scheduler.timesteps):
        y = states[-1]
        sigma = levels[(i + 1) // 2]
        states.append(scheduler.step((y - denoise(y, sigma)) / sigma, t, y).prev_sample)
    assert_states_equal(trajectory(samplers.heun, START * levels[0], levels), states, 1e-9)
