"""With the exact denoiser of a known distribution every sampler draws from that distribution.

Oracles: Gaussian mixtures, whose denoiser and velocity are sums of textbook posteriors; scipy's ODE
solver; a finite training set, whose ideal denoiser is a softmax over its points.
"""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import norm

from diffad.diffusion import samplers
from diffad.diffusion.noise import angle_sigmas, karras_sigmas

N = 40_000
GAUSSIAN = ([1.0], [0.8], [1.3])
MIXTURE = ([0.3, 0.7], [-2.0, 1.5], [0.5, 0.3])


class Mixture:
    """Closed-form posterior of a 1-d Gaussian mixture under ``z = cos(theta) x + sin(theta) e``."""

    def __init__(self, weights, means, deviations):
        self.weights, self.means, self.deviations = (
            torch.tensor(a, dtype=torch.float64) for a in (weights, means, deviations)
        )

    def expected(self, z, theta):
        """Return E[x | z] and E[e | z]."""
        cos, sin = math.cos(theta), math.sin(theta)
        variance = (cos * self.deviations) ** 2 + sin**2
        off = z[..., None] - cos * self.means
        responsibility = torch.softmax(self.weights.log() - variance.log() / 2 - off**2 / (2 * variance), -1)
        x = self.means + cos * self.deviations**2 * off / variance
        e = sin * off / variance
        return (responsibility * x).sum(-1), (responsibility * e).sum(-1)

    def denoise(self, y, sigma):
        theta = math.atan(float(sigma))
        return self.expected(y * math.cos(theta), theta)[0]

    def velocity(self, z, theta):
        x, e = self.expected(z, float(theta))
        return math.sin(theta) * x - math.cos(theta) * e

    def cdf(self, x):
        parts = norm.cdf(np.asarray(x)[:, None], self.means.numpy(), self.deviations.numpy())
        return parts @ self.weights.numpy()

    def draw(self, n, generator):
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, generator=generator, dtype=torch.float64)
        return self.means[which] + self.deviations[which] * z


def sample(name, target, n_steps, n=N, seed=0):
    """Start from the exact noisy marginal, so that only the sampler can err."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(n, generator=generator, dtype=torch.float64)
    if name == "angle":
        return samplers.angle(target.velocity, white, angle_sigmas(n_steps))
    sigmas = karras_sigmas(n_steps)
    start = target.draw(n, generator) + sigmas[0] * white

    def noise():
        return torch.randn(n, generator=generator, dtype=torch.float64)

    return samplers.SAMPLERS[name](target.denoise, start, sigmas, noise)


#: First-order samplers need more steps for the same discretisation error, below 0.01 in the CDF.
STEPS = {"ddim": 300, "ddpm": 300, "heun": 40, "dpmpp_2m": 40, "angle": 40}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("parts", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_samples_follow_the_distribution(name, parts):
    target = Mixture(*parts)
    x = np.sort(sample(name, target, STEPS[name]).numpy())
    distance = np.abs(target.cdf(x) - (np.arange(N) + 0.5) / N).max()
    # Kolmogorov's 0.1 % point is 1.95 / sqrt(N) = 0.0098; the seed is fixed.
    assert distance < 0.01 + 1.95 / math.sqrt(N), f"largest distance between the CDFs: {distance:.4f}"


@pytest.mark.parametrize("name", STEPS)
def test_modes_keep_their_weights_and_moments(name):
    weights, means, deviations = MIXTURE
    x = sample(name, Mixture(*MIXTURE), STEPS[name]).numpy()
    left = x < -0.3  # 3.4 and 6 deviations from the modes
    # Four standard errors, and 2 % of the deviation for the discretisation.
    assert np.mean(left) == pytest.approx(weights[0], abs=4 * math.sqrt(0.21 / N) + 0.005)
    for part, mean, deviation in zip([x[left], x[~left]], means, deviations, strict=True):
        error = 4 / math.sqrt(len(part)) + 0.02
        assert part.mean() == pytest.approx(mean, abs=error * deviation)
        assert part.std() == pytest.approx(deviation, rel=error)


def test_ddim_with_noise_in_between_still_has_the_moments():
    x = sample_ddim(0.5)
    assert float(x.mean()) == pytest.approx(0.8, abs=0.03)
    assert float(x.std()) == pytest.approx(1.3, rel=0.03)


def sample_ddim(eta):
    target, generator, sigmas = Mixture(*GAUSSIAN), torch.Generator().manual_seed(1), karras_sigmas(200)

    def noise():
        return torch.randn(N, generator=generator, dtype=torch.float64)

    start = target.draw(N, generator) + sigmas[0] * noise()
    return samplers.ddim(target.denoise, start, sigmas, noise, eta=eta)


def test_angle_converges_to_scipys_solution_at_second_order():
    target = Mixture(*MIXTURE)
    start = torch.linspace(-2.5, 2.5, 21, dtype=torch.float64)

    def slope(theta, z):
        return -target.velocity(torch.from_numpy(z), theta).numpy()

    exact = solve_ivp(slope, (math.pi / 2, 0), start.numpy(), rtol=1e-10, atol=1e-12).y[:, -1]

    def error(n_steps):
        return np.abs(samplers.angle(target.velocity, start, angle_sigmas(n_steps)).numpy() - exact).max()

    coarse, fine = error(200), error(400)
    assert fine < 2e-3
    assert 3 < coarse / fine < 5, f"halving the step divides the error by {coarse / fine:.2f}, not by 4"


@pytest.mark.parametrize("n_steps", [1, 2, 13])
def test_angle_is_exact_where_the_velocity_is_zero(n_steps):
    start = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    after = samplers.angle(lambda z, theta: torch.zeros_like(z), start, angle_sigmas(n_steps))
    assert torch.equal(after, start)


@pytest.mark.parametrize("name", STEPS)
def test_ideal_denoiser_of_a_finite_set_draws_its_points(name):
    points = torch.tensor([[-1.5, 0.2], [0.3, 1.4], [1.1, -0.9]], dtype=torch.float64)

    def expected(z, theta):
        cos, sin = math.cos(theta), math.sin(theta)
        distance = ((z[:, None] - cos * points) ** 2).sum(-1)
        return torch.softmax(-distance / (2 * sin**2), 1) @ points

    def velocity(z, theta):
        x = expected(z, float(theta))
        return (x - math.cos(theta) * z) / math.sin(theta)

    def denoise(y, sigma):
        theta = math.atan(float(sigma))
        return expected(y * math.cos(theta), theta)

    generator = torch.Generator().manual_seed(2)
    white = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    if name == "angle":
        x = samplers.angle(velocity, white, angle_sigmas(200))
    else:
        sigmas = karras_sigmas(60)

        def noise():
            return torch.randn(white.shape, generator=generator, dtype=torch.float64)

        x = samplers.SAMPLERS[name](denoise, sigmas[0] * white, sigmas, noise)
    distance, nearest = torch.cdist(x, points).min(1)
    # The textbook solvers end with the denoiser itself; `angle` ends with a step of its own.
    assert float(distance.max()) < (0.02 if name == "angle" else 1e-3)
    share = torch.bincount(nearest, minlength=3) / len(x)
    # Equally likely points: 300 draws leave a standard error of 0.027 on 1/3.
    assert float((share - 1 / 3).abs().max()) < 4 * 0.027
