"""A Gaussian around a mean that repeats: days, shifts, strokes of a machine.

Windows of a periodic recording start anywhere in the period.  Given its phase f a window is normal
with mean ``m_f`` and a covariance that all phases share; the phase is not asked for but inferred
from the visible entries, with weights ``p(f | x_o)`` of linear discriminant analysis (Hastie et
al. 2009, eq. 4.10).  A stationary Gaussian of the same windows must spend variance on the cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from diffad.priors.covariance import eigh
from diffad.priors.gaussian import GaussianConditional, GaussianPrior

#: Simulated windows per phase from which the uncertainty of the inferred phase is measured.
DRAWS = 4


@dataclass(frozen=True)
class CyclicConditional(GaussianConditional):
    """Conditionals of M masks around P means; `mean` is zero, `operator` as in the base."""

    centres: Tensor  # (P, d)
    linear: Tensor  # (M, d, P) discriminant: logits are x @ linear + bias
    bias: Tensor  # (M, P)

    def centre(self, x: Tensor) -> Tensor:
        """Return the mean expected from the visible entries: (M, B, d)."""
        logits = torch.where(self.visible[:, None], x, 0.0) @ self.linear + self.bias[:, None]
        return logits.softmax(-1) @ self.centres

    def explain(self, x: Tensor) -> Tensor:
        centre = self.centre(x)
        return super().explain(x - centre) + torch.where(self.hidden[:, None], centre, 0.0)

    def select(self, index: Tensor) -> CyclicConditional:
        base = super().select(index)
        kept = {f.name: getattr(base, f.name) for f in fields(base)}
        return CyclicConditional(**kept, centres=self.centres, linear=self.linear[index], bias=self.bias[index])


class CyclicPrior(GaussianPrior):
    """Mixture of P normals that share a covariance, one per phase, all equally likely.

    Parameters
    ----------
    centres : Tensor of shape (P, d)
        Mean of a window that starts in each phase.
    covariance : Tensor of shape (d, d)
        Positive definite; kept in float64.

    Examples
    --------
    >>> prior = CyclicPrior(torch.tensor([[-5.0, -1.0], [5.0, 3.0]]), torch.eye(2))
    >>> given = prior.condition(torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    >>> given.explain(torch.tensor([[[4.0, 0.0]]]))
    tensor([[[-1.,  3.]]])
    """

    def __init__(self, centres: Tensor, covariance: Tensor) -> None:
        super().__init__(centres.double().mean(0), covariance)
        self._centres = centres.double()

    @property
    def centres(self) -> Tensor:
        """(P, d), float64."""
        return self._centres

    @classmethod
    def around(cls, centres: Tensor, x: Tensor, known: Tensor) -> Self:
        """Fit the shared covariance to rows (n, d), each around the centre it fits best.

        The first round tells phases apart by the total covariance, the second by the first's.
        """
        covariance = GaussianPrior.fit(x, known).covariance
        for _ in range(2):
            phase = cls(centres, covariance).phase(torch.where(known, x, centres.mean(0).float()))
            shared = GaussianPrior.fit(x - centres[phase].float(), known)
            covariance = shared.covariance
        return cls(centres + shared.mean, covariance)

    def phase(self, x: Tensor) -> Tensor:
        """Return the phase each complete row (n, d) fits best: (n,) int64."""
        linear = torch.linalg.solve(self.covariance, self.centres.T)
        bias = -0.5 * (self.centres.T * linear).sum(0)
        return (x.double() @ linear + bias).argmax(1)

    def condition(self, visible: Tensor, hidden: Tensor) -> CyclicConditional:
        """Condition on M masks (M, d) at once; see :class:`diffad.priors.base.Conditional`."""
        base = super().condition(visible, hidden)
        centres = self.centres.float()
        seen = torch.where(visible[:, None], centres, 0.0)
        # The operator's visible block is the precision over the root of its diagonal.
        root = torch.where(visible, base.operator.diagonal(dim1=1, dim2=2), 0.0)
        linear = ((seen @ base.operator.mT) * root[:, None]).mT
        kept = {f.name: getattr(base, f.name) for f in fields(base)} | {"mean": torch.zeros_like(base.mean)}
        return CyclicConditional(**kept, centres=centres, linear=linear, bias=-0.5 * (seen * linear.mT).sum(2))

    def _doubt(self, seen: Tensor, unseen: Tensor, precision: Tensor, gain: Tensor) -> Tensor:
        """Return the covariance that an uncertain phase adds to the hidden entries.

        Under a mask it depends on the values; this is its mean over windows, by simulation.  With
        nothing visible it is the covariance of the centres.
        """
        centres = self.centres
        n_phases = len(centres)
        gram = centres[:, seen] @ precision @ centres[:, seen].T
        values, vectors = eigh(gram)
        root = vectors * values.clamp(min=0).sqrt()
        white = torch.randn(
            (n_phases, DRAWS, n_phases), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        logits = gram[:, None] + white @ root.T - 0.5 * gram.diagonal()
        weights = logits.softmax(-1).flatten(0, 1)
        spread = weights.mean(0).diag() - weights.T @ weights / len(weights)
        # What each phase expects there, beyond what the visible entries say by themselves.
        offsets = centres[:, unseen] - centres[:, seen] @ gain.T
        return offsets.T @ spread @ offsets
