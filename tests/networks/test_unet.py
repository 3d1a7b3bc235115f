"""`UNet` keeps shapes of any size, starts as zero, and hears the angle and the class once trained."""

from __future__ import annotations

import pytest
import torch

from diffad.networks.unet import UNet


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1), (16, 9)])
@pytest.mark.parametrize("patch", [1, 2])
def test_shape_is_kept_and_the_start_is_zero(size, patch):
    network = UNet(4, 2, width=8, patch=patch)
    out = network(torch.randn(3, 4, *size), torch.rand(3))
    assert out.shape == (3, 2, *size) and not out.any()


def test_angle_and_class_change_the_output():
    torch.manual_seed(0)
    network = UNet(1, 1, n_classes=2, width=8, patch=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(1, 1, 8, 8)
    base = network(x, torch.tensor([0.3]), torch.tensor([0]))
    assert (network(x, torch.tensor([1.3]), torch.tensor([0])) - base).abs().max() > 1e-3
    assert (network(x, torch.tensor([0.3]), torch.tensor([1])) - base).abs().max() > 1e-3
    torch.testing.assert_close(network(x, torch.tensor([0.3])), network(x, torch.tensor([0.3]), torch.tensor([2])))
