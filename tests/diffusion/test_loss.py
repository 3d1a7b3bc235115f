"""The velocity regression has the known velocity as its optimum, and counts asked-for entries alone."""

import math

import numpy as np
import pytest
import torch

from diffad.diffusion.loss import masked_mse, noisy_and_target

ANGLES = [0.05, 0.5, 1.0, math.pi / 2]


@pytest.mark.parametrize("theta", ANGLES)
def test_noise_and_target_rotate_data_and_noise(theta):
    r, e = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z, v = noisy_and_target(r, e, torch.tensor(theta, dtype=torch.float64))
    # A rotation can be undone: from z and v both the data and the noise come back.
    torch.testing.assert_close(math.cos(theta) * z + math.sin(theta) * v, r)
    torch.testing.assert_close(math.sin(theta) * z - math.cos(theta) * v, e)


@pytest.mark.parametrize("theta", ANGLES)
@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.0])
def test_optimum_is_the_velocity_of_a_gaussian(theta, deviation):
    """For residuals N(0, s^2), E[v | z] is linear in z; for s = 1, the prior itself, it is zero."""
    n = 200_000
    r, e = np.random.default_rng(0).standard_normal((2, n))
    z, v = noisy_and_target(
        torch.from_numpy(deviation * r), torch.from_numpy(e), torch.tensor(theta, dtype=torch.float64)
    )
    cos, sin = math.cos(theta), math.sin(theta)
    variance = (cos * deviation) ** 2 + sin**2
    slope = (deviation**2 - 1) * sin * cos / variance
    fitted = float(np.linalg.lstsq(z.numpy()[:, None], v.numpy(), rcond=None)[0][0])
    assert fitted == pytest.approx(slope, abs=4 * deviation / variance / math.sqrt(n))

    everywhere = torch.ones(n, dtype=torch.bool)
    at_optimum = float(masked_mse(slope * z, v, everywhere))
    assert at_optimum == pytest.approx(deviation**2 / variance, rel=4 * math.sqrt(2 / n))
    for off in (-0.1, 0.1):
        assert float(masked_mse((slope + off) * z, v, everywhere)) > at_optimum


@pytest.mark.parametrize("theta", ANGLES)
def test_target_has_unit_variance_at_every_level(theta):
    r, e = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(1))
    assert float(noisy_and_target(r, e, torch.tensor(theta))[1].var()) == pytest.approx(1, abs=0.02)


def test_angles_broadcast_over_entries():
    r, e = torch.ones(2, 3, 5), torch.zeros(2, 3, 5)
    theta = torch.tensor([[0.0, 0.5, 1.0], [0.1, 0.2, 0.3]])
    z, v = noisy_and_target(r, e, theta[..., None])
    np.testing.assert_allclose(z.numpy(), np.repeat(np.cos(theta.numpy())[..., None], 5, -1), rtol=1e-6)
    np.testing.assert_allclose(v.numpy(), np.repeat(np.sin(theta.numpy())[..., None], 5, -1), rtol=1e-6)


def test_mean_is_over_the_chosen_entries():
    prediction = torch.tensor([[1.0, 2.0, 100.0], [0.0, 5.0, -3.0]], requires_grad=True)
    where = torch.tensor([[True, True, False], [False, False, True]])
    loss = masked_mse(prediction, torch.zeros(2, 3), where)
    assert float(loss.detach()) == pytest.approx((1 + 4 + 9) / 3)
    loss.backward()
    assert torch.equal(prediction.grad != 0, where)


def test_no_entry_is_a_loss_of_zero():
    assert float(masked_mse(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))) == 0
