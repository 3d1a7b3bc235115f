"""Residual network for rows: one token of all columns, told the noise level by adaLN-zero (Peebles and Xie 2023).

Rows have no order of columns to attend along, and at some dozen columns a dense layer is quicker than attention.
An untrained network outputs zero, which is the prior.
"""

from __future__ import annotations

from torch import Tensor, nn

from diffad.networks.axial import N_INPUTS, angle_features


class RowNetwork(nn.Module):
    """Velocity network ``F`` over rows (n, 1, columns, N_INPUTS).

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
