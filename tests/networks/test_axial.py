"""The window network takes any window, starts as the prior (zero) and treats windows one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from diffad.networks import AxialTransformer
from diffad.networks.axial import N_INPUTS, angle_features, attend


def trained_like(length, channels, **options):
    """Return a network whose every parameter is away from its initial zero."""
    network = AxialTransformer(length, channels, width=16, depth=2, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def batch(n, length, channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, length, channels, N_INPUTS, generator=generator), 1.5 * torch.rand(n, generator=generator)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 4), length=st.integers(1, 14), channels=st.integers(1, 5), patch=st.integers(1, 6))
def test_untrained_output_is_exactly_zero_for_any_shape(n, length, channels, patch):
    out = AxialTransformer(length, channels, width=8, depth=1, patch=patch)(*batch(n, length, channels))
    assert out.shape == (n, length, channels)
    assert not bool(out.any())


@pytest.mark.parametrize("length", [1, 5, 8, 11])
def test_every_output_depends_on_every_entry_of_its_window(length):
    network = trained_like(length, 3)
    inputs, theta = batch(1, length, 3)
    inputs.requires_grad_()
    for t, channel in [(0, 0), (length - 1, 2)]:
        (gradient,) = torch.autograd.grad(network(inputs, theta)[0, t, channel], inputs)
        assert bool((gradient.abs().sum(-1) > 0).all())


@pytest.mark.parametrize("length", [6, 8])
def test_windows_do_not_see_each_other(length):
    network = trained_like(length, 2)
    inputs, theta = batch(5, length, 2)
    together = network(inputs, theta)
    alone = torch.cat([network(x[None], a[None]) for x, a in zip(inputs, theta, strict=True)])
    # Matrix products of other sizes round differently.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_output_depends_on_the_noise_level():
    network = trained_like(6, 2)
    inputs, _ = batch(2, 6, 2)
    outputs = [network(inputs, torch.full((2,), angle)) for angle in (0.1, 0.2, 1.5)]
    assert not torch.allclose(outputs[0], outputs[1], rtol=1e-3)
    assert not torch.allclose(outputs[1], outputs[2], rtol=1e-3)


def test_a_first_step_of_training_moves_the_output():
    network = AxialTransformer(6, 2, width=8, depth=1)
    inputs, theta = batch(3, 6, 2)
    ((network(inputs, theta) - 1) ** 2).mean().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    assert bool(network(inputs, theta).any())


def test_features_tell_all_angles_apart():
    features = angle_features(torch.linspace(0, torch.pi / 2, 100))
    assert features.shape == (100, 8)
    distance = torch.cdist(features, features) + 10 * torch.eye(100)
    # Neighbours are pi / 198 apart and the fastest feature turns 8 times as fast.
    assert float(distance.min()) > 0.1


@pytest.mark.parametrize("largest", [0.1, 1.0, 10.0, 59.0])
def test_attention_is_that_of_torch(largest):
    query, key, value = torch.randn(3, 5, 4, 7, 16, generator=torch.Generator().manual_seed(0))
    query *= largest / (query @ key.mT / 4).abs().max()  # of the logits
    ours, expected = attend(query, key, value), functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_attention_stays_an_average_for_logits_without_bounds(sign):
    query, value = torch.full((1, 1, 7, 16), 100.0), torch.arange(7.0)[None, None, :, None]
    assert attend(query, sign * query, value).flatten().tolist() == pytest.approx([3.0] * 7)
