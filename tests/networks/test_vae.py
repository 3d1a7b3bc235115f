"""`VAE` keeps shapes of any size; its loss is the reconstruction error plus the divergence of normals."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from diffad.networks.vae import VAE, Critic, adversarial_loss, evidence_loss


@pytest.mark.parametrize("size", [(8, 8), (13, 6), (1, 1)])
def test_shapes(size):
    network = VAE(2, latent=3, width=8)
    mean, log_variance = network.encode(torch.randn(5, 2, *size))
    assert mean.shape == log_variance.shape == (5, 3, -(-size[0] // 4), -(-size[1] // 4))
    assert network.decode(mean, *size).shape == (5, 2, *size)


def test_divergence_is_that_of_normals():
    torch.manual_seed(0)
    network, x = VAE(1, width=8), torch.randn(4, 1, 8, 8)
    mean, log_variance = network.encode(x)
    noise = torch.zeros_like(mean)
    reconstruction = evidence_loss(network, x, 0.0, noise)[0]
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum() / x.numel()
    torch.testing.assert_close(evidence_loss(network, x, 2.0, noise)[0] - reconstruction, 2 * expected)


def test_critic_and_decoder_move_in_their_own_parts_of_one_loss():
    torch.manual_seed(0)
    critic, x = Critic(2).eval(), torch.randn(3, 2, 8, 8)
    again = torch.randn(3, 2, 8, 8, requires_grad=True)
    adversarial_loss(critic, x, again, 0.5).backward()
    moved = {name: p.grad.clone() for name, p in critic.named_parameters()}
    told = torch.nn.functional.softplus(-critic(x)).mean() + torch.nn.functional.softplus(critic(again.detach())).mean()
    expected = torch.autograd.grad(told, list(critic.parameters()))
    for (name, _), gradient in zip(critic.named_parameters(), expected, strict=True):
        torch.testing.assert_close(moved[name], gradient, msg=f"{name}: the decoder's wish must not move the critic")
    free = again.detach().requires_grad_()
    wish = 0.5 * torch.nn.functional.softplus(-critic(free)).mean()
    torch.testing.assert_close(again.grad, torch.autograd.grad(wish, free)[0])
