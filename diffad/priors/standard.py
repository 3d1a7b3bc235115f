"""The prior that knows nothing: mean 0, scale 1, independent entries (textbook CSDI)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from diffad.priors.base import OneCentre


@dataclass(frozen=True)
class StandardConditional:
    """Hidden entries are N(0, 1) whatever is visible; a visible entry's surprise is its value."""

    visible: Tensor  # (M, d)
    hidden: Tensor  # (M, d)

    @property
    def scale(self) -> Tensor:
        return torch.ones(self.visible.shape, device=self.visible.device)

    def centre(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def explain(self, x: Tensor) -> Tensor:
        return torch.where(self.visible[:, None], x, 0.0)

    def color(self, noise: Tensor) -> Tensor:
        return torch.where(self.hidden[:, None], noise, 0.0)

    def select(self, index: Tensor) -> StandardConditional:
        return StandardConditional(self.visible[index], self.hidden[index])


class StandardPrior(OneCentre):
    """N(0, I) over d entries; the network alone learns the data."""

    def __init__(self, d: int) -> None:
        self.mean = torch.zeros(d, dtype=torch.float64)

    @classmethod
    def fit(cls, x: Tensor, known: Tensor) -> Self:
        return cls(x.shape[1])

    def condition(self, visible: Tensor, hidden: Tensor) -> StandardConditional:
        return StandardConditional(visible, hidden)
