"""The preconditioned denoiser is exact: a zero velocity gives a Gaussian's posterior mean under noise.

Oracle: the joint normal of visible entries, hidden entries and noisy entries, conditioned by numpy.
"""

import math

import numpy as np
import pytest
import torch

from diffad.diffusion.denoiser import coefficients, precondition
from diffad.priors import GaussianPrior

SIGMAS = [1e-3, 0.3, 1.0, 7.0, 300.0]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_zero_velocity_is_the_posterior_mean_of_the_prior(sigma):
    rng = np.random.default_rng(0)
    d, seen, unseen = 6, [0, 2, 5], [1, 3, 4]
    root = rng.standard_normal((d, d))
    mean, covariance = rng.standard_normal(d), root @ root.T + 0.3 * np.eye(d)
    x = rng.standard_normal(d)

    # Noise has the covariance V of the hidden entries given the visible ones.
    cross = covariance[np.ix_(unseen, seen)]
    inner = np.linalg.inv(covariance[np.ix_(seen, seen)])
    noise = covariance[np.ix_(unseen, unseen)] - cross @ inner @ cross.T
    y = rng.standard_normal(3)
    hidden = covariance[np.ix_(unseen, unseen)]
    evidence = np.block([[covariance[np.ix_(seen, seen)], cross.T], [cross, hidden + sigma**2 * noise]])
    off = np.concatenate([x[seen] - mean[seen], y - mean[unseen]])
    expected = mean[unseen] + np.hstack([cross, hidden]) @ np.linalg.solve(evidence, off)

    visible = torch.zeros(1, d, dtype=torch.bool)
    visible[0, seen] = True
    given = GaussianPrior(torch.from_numpy(mean), torch.from_numpy(covariance)).condition(visible, ~visible)
    conditional = given.explain(torch.from_numpy(x).float()[None, None])[0, 0][unseen].double()
    denoise = precondition(lambda z, theta: torch.zeros_like(z), conditional, given.scale[0, unseen].double())
    ours = denoise(torch.from_numpy(y), torch.tensor(sigma, dtype=torch.float64))
    # The conditional mean is float32.
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_coefficients_are_those_of_edm_for_unit_data(sigma):
    c_skip, c_out, c_in = (float(c) for c in coefficients(torch.tensor(sigma, dtype=torch.float64)))
    data = 1.0  # Karras et al. (2022), table 1, written out
    assert c_skip == pytest.approx(data**2 / (sigma**2 + data**2))
    assert c_out == pytest.approx(sigma * data / math.sqrt(sigma**2 + data**2))
    assert c_in == pytest.approx(1 / math.sqrt(sigma**2 + data**2))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_known_velocity_gives_the_known_denoiser_in_any_units(sigma):
    """Data N(3, (0.4 * 2)^2) around a prior of mean 2.5 and scale 2: the residual has deviation 0.4."""
    mean, scale, deviation, centre = 2.5, 2.0, 0.4, 0.25

    def velocity(z, theta):
        cos, sin = theta.cos(), theta.sin()
        gain = (z - cos * centre) / (cos**2 * deviation**2 + sin**2)
        return sin * (centre + cos * deviation**2 * gain) - cos * sin * gain

    y = torch.linspace(-4, 9, 7, dtype=torch.float64)
    denoise = precondition(velocity, torch.tensor(mean), torch.tensor(scale))
    ours = denoise(y, torch.tensor(sigma, dtype=torch.float64)).numpy()
    data, noise = (scale * deviation) ** 2, (scale * sigma) ** 2
    truth = mean + scale * centre
    np.testing.assert_allclose(ours, truth + data / (data + noise) * (y.numpy() - truth), rtol=1e-9, atol=1e-9)


def test_the_network_sees_unit_variance_at_every_level():
    generator = torch.Generator().manual_seed(0)
    mean, scale = torch.tensor([3.0, -1.0]), torch.tensor([0.2, 5.0])
    clean = mean + scale * torch.randn(20_000, 2, generator=generator)
    for sigma in SIGMAS:
        seen = []

        def velocity(z, theta, seen=seen):
            seen.append(z)
            return torch.zeros_like(z)

        noisy = clean + sigma * scale * torch.randn(clean.shape, generator=generator)
        precondition(velocity, mean, scale)(noisy, torch.tensor(sigma))
        # Four standard errors of a deviation from 20,000 values.
        torch.testing.assert_close(seen[0].std(0), torch.ones(2), rtol=0, atol=4 / math.sqrt(2 * 20_000))
