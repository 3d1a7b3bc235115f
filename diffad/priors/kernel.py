"""The kernel prior: every training row, shrunk towards the mean and blurred, is a component.

With noise C = h^2 (r S + (1 - r) diag S) around centres ``mean + sqrt(1 - h^2) (row - mean)`` it is
the density that a variance-preserving diffusion of the training set passes through, whose denoiser
is known exactly (Karras et al. 2022, appendix B.3), and West's (1993) shrunken kernel density.
h -> 0 copies the nearest row, h = 1 with r = 1 is the Gaussian; between them C carries what a
neighbour shows over to the row at hand, along the correlations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffad.priors.conditional_rows import RowConditional
from diffad.priors.mixture import BUDGET, NUGGET, MixturePrior

#: Training rows that a conditional mixes, those of the largest weights.
DONORS = 24
#: Difference of squared distances below which rows are equally near.
TIE = 1e-6
#: Part of the covariance's correlations in the kernel.
CORRELATION = 0.5


class KernelPrior:
    """Kernel density of training rows with a kernel shaped like their covariance.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        Complete training rows.
    observed : Tensor of shape (n, d), bool
        Which of their entries were observed; the others were completed, and are no evidence.
    mean : Tensor of shape (d,)
    covariance : Tensor of shape (d, d)
    bandwidth : float in (0, 1]
    """

    def __init__(self, rows: Tensor, observed: Tensor, mean: Tensor, covariance: Tensor, bandwidth: float) -> None:
        self.centres = mean + (1 - bandwidth**2) ** 0.5 * (rows - mean)
        self.observed = observed
        variance = torch.diag(covariance.diagonal())
        self.noise = bandwidth**2 * (CORRELATION * covariance + (1 - CORRELATION) * variance)
        self.noise.diagonal().add_(NUGGET)
        # Rows as far as each other take turns in an order of their own, not in one that differs from batch to batch.
        turn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        self.turns = TIE * turn.double() / len(rows)

    @classmethod
    def fit(cls, x: Tensor, gaussian: MixturePrior, bandwidth: float) -> KernelPrior:
        """Take rows (n, d), NaN = missing, and their Gaussian, which completes them."""
        parts = [gaussian.condition(rows).means[:, 0] for rows in x.double().split(gaussian.chunk)]
        return cls(torch.cat(parts), ~x.isnan(), gaussian.means[0], gaussian.covariances[0], bandwidth)

    @property
    def chunk(self) -> int:
        """Rows to condition on at a time."""
        return max(1, BUDGET // (self.centres.numel() + 2 * self.noise.numel()))

    def condition(self, x: Tensor) -> RowConditional:
        """Return p(hidden | visible) of rows (n, d), NaN = hidden; give at most `chunk` rows.

        A training row that knows none of the hidden entries is no component: it may be the row
        itself.
        """
        x = x.double()
        known = ~x.isnan()
        masks, group = torch.unique(known, dim=0, return_inverse=True)
        inverse, spread = self._operators(masks)
        given = torch.where(known, x, 0.0)
        white = (inverse[group] @ given[:, :, None])[:, :, 0]
        distance = torch.empty(len(x), len(self.centres), dtype=torch.float64)
        for g in range(len(masks)):
            centres = self.centres @ inverse[g].T
            members = group == g
            part = (centres**2).sum(1) - 2 * white[members] @ centres.T
            useless = ~(self.observed & ~masks[g]).any(1)
            part += self.turns
            part[:, useless] = torch.inf if not bool(useless.all()) else 0.0
            distance[members] = part
        nearest = distance.topk(min(DONORS, distance.shape[1]), largest=False)
        log_weights = (-0.5 * nearest.values).log_softmax(1)
        gain = (spread.mT @ inverse)[group]  # (n, d hidden, d visible)
        centres = self.centres[nearest.indices]
        means = centres + (given[:, None] - torch.where(known[:, None], centres, 0.0)) @ gain.mT
        hidden = ~masks[:, :, None] & ~masks[:, None]
        covariances = torch.where(hidden, self.noise - spread.mT @ spread, 0.0)[group]
        means = torch.where(known[:, None], given[:, None], means)
        return RowConditional(known, log_weights, means, covariances[:, None], self.observed[nearest.indices])

    def _operators(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return per mask the inverse factor of the visible block and the factor's solve of the rest."""
        eye = torch.eye(masks.shape[1], dtype=torch.float64)
        factor = torch.linalg.cholesky(torch.where(masks[:, :, None] & masks[:, None], self.noise, eye))
        inverse = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        inverse = torch.where(masks[:, :, None] & masks[:, None], inverse, 0.0)
        return inverse, inverse @ torch.where(masks[:, :, None], self.noise, 0.0)
