"""Patched axial transformer for windows of several channels (Ho et al. 2019; Nie et al. 2023).

A token is a patch of consecutive time steps of one channel.  Each block attends along time within
a channel, then across channels within a patch, then mixes the features of every token.  The noise
angle enters by adaLN-zero (Peebles and Xie 2023): an untrained network outputs zero, which is the
prior.  It carries over to unseen stretches of a recording better than dense mixing of all tokens,
which was twice as fast and lost a quarter of the gain.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Inputs per entry: value or conditional mean, surprise, noisy entry, log scale, centre, visible, hidden.
N_INPUTS = 7
#: Sequences that a fused kernel of CUDA takes at once: its grid ends at 65,535.
MOST = 2**15


class AxialTransformer(nn.Module):
    """Velocity network ``F`` over windows (n, length, channels, N_INPUTS).

    Parameters
    ----------
    length, channels : int
        Shape of a window.
    width : int, default=64
        Size of a token; a multiple of `heads`.
    depth : int, default=3
        Number of blocks.
    patch : int, default=2
        Time steps per token.
    heads : int, default=4
        Attention heads.
    """

    def __init__(
        self, length: int, channels: int, width: int = 64, depth: int = 3, patch: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.length, self.channels, self.patch = length, channels, patch
        self.n_patches = -(-length // patch)
        self.embed = nn.Linear(patch * N_INPUTS, width)
        self.time = nn.Parameter(0.1 * torch.randn(self.n_patches, 1, width))
        self.channel = nn.Parameter(0.1 * torch.randn(channels, width))
        self.level = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(AxialBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, patch)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @property
    def matrices(self) -> list[nn.Parameter]:
        """Weights between hidden layers."""
        return [p for p in self.blocks.parameters() if p.ndim == 2]

    def forward(self, inputs: Tensor, theta: Tensor) -> Tensor:
        """Map inputs (n, length, channels, N_INPUTS) and angles (n,) to velocities (n, length, channels)."""
        padding = self.n_patches * self.patch - self.length
        inputs = functional.pad(inputs, (0, 0, 0, 0, 0, padding))
        patches = inputs.unflatten(1, (self.n_patches, self.patch)).transpose(2, 3)
        x = self.embed(patches.flatten(3)) + self.time + self.channel  # (n, patches, channels, width)
        level = self.level(angle_features(theta))
        for block in self.blocks:
            x = block(x, level)
        x = self.out(self.norm(x))
        return x.transpose(2, 3).flatten(1, 2)[:, : self.length]


class AxialBlock(nn.Module):
    """Attend along time, then along channels, then mix features; each gated by the noise level."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(3))
        self.along_time = Attention(width, heads)
        self.along_channels = Attention(width, heads)
        self.within = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.modulation = nn.Linear(width, 9 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Map tokens (n, patches, channels, width) under a level embedding (n, width)."""
        change = self.modulation(level)[:, None, None].chunk(9, -1)
        x = x + change[2] * self.along_time(_modulate(self.norms[0](x), *change[:2]).transpose(1, 2)).transpose(1, 2)
        x = x + change[5] * self.along_channels(_modulate(self.norms[1](x), *change[3:5]))
        return x + change[8] * self.within(_modulate(self.norms[2](x), *change[6:8]))


class Attention(nn.Module):
    """Multi-head attention along the last but one dimension of (a, b, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x.flatten(0, 1)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value)
        return self.merge(attended.transpose(1, 2).flatten(2)).view(x.shape)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Average values (..., tokens, size) by the softmax of scaled products of queries and keys of that shape."""
    if query.device.type != "cpu":
        parts = zip(query.split(MOST), key.split(MOST), value.split(MOST), strict=True)
        return torch.cat([functional.scaled_dot_product_attention(*part) for part in parts])
    # For a dozen tokens the fused kernel of the CPU is slow, and so is softmax: its sum comes as one more column of
    # the values. Logits of a network trained on ETTh1 reach 22; the bounds keep the exponentials finite.
    weight = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).float().clamp(-60, 60).exp()
    attended = weight.to(value.dtype) @ functional.pad(value, (0, 1), value=1.0)
    return attended[..., :-1] / attended[..., -1:]


def angle_features(theta: Tensor) -> Tensor:
    """Return sines and cosines of the noise angle at four frequencies: (n,) -> (n, 8)."""
    # A tensor made of numbers would be copied to the device, which the loops would wait for at every step.
    phase = torch.stack([theta, 2 * theta, 4 * theta, 8 * theta], 1)
    return torch.cat([phase.sin(), phase.cos()], 1)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
