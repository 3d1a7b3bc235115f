"""Residual networks for rows: one token of all columns.

Rows have no order of columns to attend along, and at some dozen columns a dense layer is quicker than attention.
An untrained network outputs zero, which is the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffad.networks.axial import N_INPUTS, angle_features


class RowNetwork(nn.Module):
    """Velocity network ``F`` over rows (n, 1, columns, N_INPUTS), told the level by adaLN-zero (Peebles and Xie 2023).

    Parameters
    ----------
    columns : int
        Encoded columns.
    width : int, default=256
    depth : int, default=3
        Number of blocks.
    """

    def __init__(self, columns: int, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(N_INPUTS * columns, width)
        self.level = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(RowBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, columns)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Tensor, theta: Tensor) -> Tensor:
        """Map inputs (n, 1, columns, N_INPUTS) and angles (n,) to velocities (n, 1, columns)."""
        x, level = self.embed(inputs.flatten(1)), self.level(angle_features(theta))
        for block in self.blocks:
            x = block(x, level)
        return self.out(self.norm(x))[:, None]


class RowBlock(nn.Module):
    """Mix features, gated by the noise level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.within = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Map features (n, width) under a level embedding (n, width)."""
        shift, scale, gate = self.modulation(level).chunk(3, -1)
        return x + gate * self.within(self.norm(x) * (1 + scale) + shift)


class WholeRowNetwork(nn.Module):
    """Velocity network ``F`` over rows of which nothing is given: small, told the level beside the columns.

    Parameters
    ----------
    columns : int
    width : int, default=128
        Wider ones learn rows by heart.
    depth : int, default=3
        Number of blocks.
    """

    #: Waves that the logarithm of the noise is told in.
    WAVES = 8

    waves: Tensor

    def __init__(self, columns: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.register_buffer("waves", torch.exp(torch.linspace(-1, 3, self.WAVES)), persistent=False)
        self.embed = nn.Linear(columns + 1 + 2 * self.WAVES, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.out = nn.Linear(width, columns)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, log_sigma: Tensor) -> Tensor:
        """Map rows among noise (n, columns) and the logarithm of the noise (n or 1, 1) to velocities (n, columns)."""
        waves = log_sigma * self.waves
        told = torch.cat([log_sigma, waves.sin(), waves.cos()], 1)
        x = self.embed(torch.cat([z, told.expand(len(z), -1)], 1))
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)
