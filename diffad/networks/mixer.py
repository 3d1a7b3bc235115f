"""Patched mixer for windows of several channels (Tolstikhin et al. 2021).

A token is a patch of consecutive time steps of one channel.  Each block mixes all tokens of a
window through one dense layer, then the features of each token through another.  A model is fitted
for one set of channels and one window length, so the mixing needs no attention: in equal
time on a CPU it removed about twice the error that attention over all tokens did.  The noise angle enters by adaLN-zero
(Peebles and Xie 2023): an untrained network outputs zero, which is the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Inputs per entry: value or conditional mean, surprise, noisy entry, log scale, visible, hidden.
N_INPUTS = 6


class WindowMixer(nn.Module):
    """Velocity network ``F`` over windows (n, length, channels, N_INPUTS).

    Parameters
    ----------
    length, channels : int
        Shape of a window.
    width : int, default=64
        Size of a token.
    depth : int, default=3
        Number of blocks.
    patch : int, default=4
        Time steps per token.
    """

    def __init__(self, length: int, channels: int, width: int = 64, depth: int = 3, patch: int = 4) -> None:
        super().__init__()
        self.length, self.channels, self.patch = length, channels, patch
        self.n_patches = -(-length // patch)
        tokens = self.n_patches * channels
        self.embed = nn.Linear(patch * N_INPUTS, width)
        self.position = nn.Parameter(0.1 * torch.randn(tokens, width))
        self.level = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(MixerBlock(tokens, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, patch)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Tensor, theta: Tensor) -> Tensor:
        """Map inputs (n, length, channels, N_INPUTS) and angles (n,) to velocities (n, length, channels)."""
        padding = self.n_patches * self.patch - self.length
        inputs = functional.pad(inputs, (0, 0, 0, 0, 0, padding))
        patches = inputs.unflatten(1, (self.n_patches, self.patch)).transpose(2, 3)
        x = self.embed(patches.flatten(3).flatten(1, 2)) + self.position  # (n, tokens, width)
        level = self.level(angle_features(theta))
        for block in self.blocks:
            x = block(x, level)
        x = self.out(self.norm(x)).unflatten(1, (self.n_patches, self.channels))
        return x.transpose(2, 3).flatten(1, 2)[:, : self.length]


class MixerBlock(nn.Module):
    """Mix tokens, then features, each gated and modulated by the noise level."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.across = _feed_forward(tokens, min(2 * tokens, 512))
        self.within = _feed_forward(width, 3 * width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Map tokens (n, tokens, width) under a level embedding (n, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(level)[:, None].chunk(6, -1)
        mixed = self.across((self.norms[0](x) * (1 + scale1) + shift1).mT).mT
        x = x + gate1 * mixed
        return x + gate2 * self.within(self.norms[1](x) * (1 + scale2) + shift2)


def angle_features(theta: Tensor) -> Tensor:
    """Return sines and cosines of the noise angle at four frequencies: (n,) -> (n, 8)."""
    phase = theta[:, None] * torch.tensor([1.0, 2.0, 4.0, 8.0], device=theta.device)
    return torch.cat([phase.sin(), phase.cos()], 1)


def _feed_forward(size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, size))
