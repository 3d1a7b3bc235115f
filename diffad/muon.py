"""Muon: gradient steps of hidden matrices made orthogonal (Jordan et al. 2024, "Muon", kellerjordan.github.io).

A step along the plain gradient of a matrix moves few of its directions; made orthogonal, it moves all
alike.  For the axial transformer that was worth a third of the steps.  `torch.optim.Muon` takes one
matrix after the other, in bfloat16: on CPUs without bfloat16 units that costs as much as the gradient;
this one stacks them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

#: Coefficients of the quintic whose iteration drives singular values towards 1, and iterations.
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonal, for matrices that are rows or columns of square blocks.

    Every block moves by itself: the maps to queries, keys and values are different maps.

    Parameters
    ----------
    matrices : iterable of Parameter (rows, columns)
        One side a multiple of the other.
    lr : float
        Size of a step: about its singular values.
    momentum : float, default=0.95
        Nesterov's.
    weight_decay : float, default=0.01
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        matrices = list(matrices)
        for matrix in matrices:
            if matrix.ndim != 2 or max(matrix.shape) % min(matrix.shape):
                raise ValueError(f"matrices must consist of square blocks, got one of shape {tuple(matrix.shape)}")
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if not moving:
                continue
            mean = [self._momentum(p) for p in moving]
            gradients = [p.grad for p in moving]
            torch._foreach_lerp_(mean, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, mean, group["momentum"])
            torch._foreach_mul_(moving, 1 - group["lr"] * group["weight_decay"])
            sizes: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix, step in zip(moving, ahead, strict=True):
                sizes[min(matrix.shape)] += zip(_blocks(matrix), _blocks(step), strict=True)
            for pairs in sizes.values():
                blocks, steps = zip(*pairs, strict=True)
                torch._foreach_add_(list(blocks), list(orthogonalised(torch.stack(steps))), alpha=-group["lr"])

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        return state["momentum"]


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return matrices (n, size, size) with their singular values moved to about 1, between .7 and 1.2."""
    a, b, c = QUINTIC
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / x.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


def _blocks(matrix: Tensor) -> tuple[Tensor, ...]:
    rows, columns = matrix.shape
    return matrix.split(columns, 0) if rows >= columns else matrix.split(rows, 1)
