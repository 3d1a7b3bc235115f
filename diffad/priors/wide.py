"""Gaussian of low rank for rows too wide for dense factors, one mask for each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffad.priors.conditional_rows import MixtureMarginals
from diffad.priors.lowrank import LowRankConditional, LowRankPrior

#: Most factors; rows should outnumber them.
RANK = 50
#: Rounds of filling and fitting.
ROUNDS = 3


@dataclass(frozen=True)
class WideConditional:
    """p(hidden | visible) of n rows; each row has a mask among those of `masks`."""

    known: Tensor  # (n, d)
    x: Tensor  # (n, d) with 0 for hidden entries
    masks: LowRankConditional
    group: Tensor  # (n,)

    def marginals(self) -> MixtureMarginals:
        """Return the distribution of every hidden entry alone."""
        row, column = (~self.known).nonzero(as_tuple=True)
        means = self._mean()[row, column][:, None]
        deviations = self.masks.scale[self.group[row], column][:, None].double()
        return MixtureMarginals(torch.ones_like(means), means, deviations)

    def sample(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """Draw completed rows (S, n, d) from white noise (S, n, d)."""
        step = self.masks.select(self.group).color(noise.transpose(0, 1).float()).transpose(0, 1)
        return torch.where(self.known, self.x, self._mean() + step.double())

    def completed(self) -> Tensor:
        """Return the rows (n, d) with the conditional mean in their gaps."""
        return torch.where(self.known, self.x, self._mean())

    def _mean(self) -> Tensor:
        return self.masks.select(self.group).explain(self.x[:, None].float())[:, 0].double()


class WideGaussian:
    """Low rank plus diagonal normal over d entries."""

    chunk = 64

    def __init__(self, prior: LowRankPrior) -> None:
        self.prior = prior

    @classmethod
    def fit(cls, x: Tensor) -> WideGaussian:
        """Fit to rows (n, d), NaN = missing; what is missing becomes its conditional mean, in rounds."""
        known = ~x.isnan()
        rank = max(1, min(RANK, len(x) // 4))
        wide = cls(LowRankPrior.fit(torch.nan_to_num(x), known, rank))
        for _ in range(ROUNDS if not bool(known.all()) else 0):
            filled = torch.cat([wide.condition(rows).completed() for rows in x.split(cls.chunk)])
            wide = cls(LowRankPrior.fit(filled, torch.ones_like(known), rank))
        return wide

    def condition(self, x: Tensor) -> WideConditional:
        """Return p(hidden | visible) of rows (n, d), NaN = hidden."""
        known = ~x.isnan()
        masks, group = torch.unique(known, dim=0, return_inverse=True)
        return WideConditional(known, torch.nan_to_num(x).double(), self.prior.condition(masks, ~masks), group)
