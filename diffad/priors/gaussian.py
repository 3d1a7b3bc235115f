"""The dense Gaussian prior: exact conditionals of a multivariate normal for any mask.

For visible entries o and hidden h of N(mu, S): mean ``mu_h + S_ho S_oo^-1 (x_o - mu_o)`` and
covariance ``S_hh - S_ho S_oo^-1 S_oh`` (Bishop 2006, eq. 2.81 and 2.82).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from diffad.priors.base import OneCentre
from diffad.priors.covariance import eigh, ledoit_wolf

#: Added to the variances, in squared standard deviations: what no sensor resolves.
NUGGET = 1e-4
#: Rows with the same entries missing from which they share one solve.
SHARED = 32
#: Entries of the systems that are solved side by side; bounds memory.
SYSTEM_ENTRIES = 2**21


@dataclass(frozen=True)
class GaussianConditional:
    """Conditionals of M masks as one operator each.

    The (d, d) operator holds three blocks side by side: the gain ``S_ho S_oo^-1`` (hidden rows,
    visible columns), the symmetric root of the conditional covariance (hidden, hidden) and the
    standardised precision of the visible entries (visible, visible).  So one matrix product gives
    conditional means and surprises together, and another colours noise.
    """

    mean: Tensor  # (d,)
    operator: Tensor  # (M, d, d)
    visible: Tensor  # (M, d)
    hidden: Tensor  # (M, d)
    scale: Tensor  # (M, d)

    def centre(self, x: Tensor) -> Tensor:
        return self.mean.expand(x.shape)

    def explain(self, x: Tensor) -> Tensor:
        given = torch.where(self.visible[:, None], x - self.mean, 0.0)
        result = given @ self.operator.mT
        return result + torch.where(self.hidden, self.mean, 0.0)[:, None]

    def color(self, noise: Tensor) -> Tensor:
        return torch.where(self.hidden[:, None], noise, 0.0) @ self.operator.mT

    def select(self, index: Tensor) -> GaussianConditional:
        return GaussianConditional(
            self.mean,
            self.operator[index],
            self.visible[index],
            self.hidden[index],
            self.scale[index],
        )


class GaussianPrior(OneCentre):
    """Multivariate normal over d entries.

    Parameters
    ----------
    mean : Tensor of shape (d,)
    covariance : Tensor of shape (d, d)
        Positive definite; kept in float64.

    Examples
    --------
    >>> prior = GaussianPrior(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    >>> given = prior.condition(torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    >>> given.explain(torch.tensor([[[2.0, 0.0]]]))
    tensor([[[2.0000, 1.6000]]])
    >>> given.scale
    tensor([[1.0000, 0.6000]])
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean = mean.double()
        self.covariance = covariance.double()

    @classmethod
    def fit(cls, x: Tensor, known: Tensor) -> Self:
        """Fit to rows (n, d) of which the entries with ``known`` true were observed."""
        mean, covariance, _ = ledoit_wolf(x, known)
        covariance.diagonal().add_(NUGGET)
        return cls(mean, covariance)

    def condition(self, visible: Tensor, hidden: Tensor) -> GaussianConditional:
        """Condition on M masks (M, d) at once; see :class:`diffad.priors.base.Conditional`."""
        n_masks, d = visible.shape
        operator = torch.zeros(n_masks, d, d, dtype=torch.float32)
        scale = torch.ones(n_masks, d, dtype=torch.float32)
        for i in range(n_masks):
            self._fill(operator[i], scale[i], visible[i].nonzero()[:, 0], hidden[i].nonzero()[:, 0])
        return GaussianConditional(self.mean.float(), operator, visible, hidden, scale)

    def _fill(self, operator: Tensor, scale: Tensor, seen: Tensor, unseen: Tensor) -> None:
        precision = torch.cholesky_inverse(torch.linalg.cholesky(self.covariance[seen[:, None], seen]))
        operator[seen[:, None], seen] = (precision / precision.diagonal().sqrt()[:, None]).float()
        if not len(unseen):
            return
        cross = self.covariance[unseen[:, None], seen]
        gain = cross @ precision
        operator[unseen[:, None], seen] = gain.float()
        covariance = self.covariance[unseen[:, None], unseen] - gain @ cross.T
        values, vectors = eigh(covariance + self._doubt(seen, unseen, precision, gain))
        root = (vectors * values.clamp(min=1e-8).sqrt()) @ vectors.T
        operator[unseen[:, None], unseen] = root.float()
        scale[unseen] = root.norm(dim=1).float()

    def _doubt(self, seen: Tensor, unseen: Tensor, precision: Tensor, gain: Tensor) -> Tensor:
        """Return the covariance that an uncertain mean adds to the hidden entries; here none."""
        return torch.zeros((), dtype=torch.float64)


def surely_whole(x: Tensor) -> bool:
    """Return whether x holds no NaN, False where it may: one spoils the sum, which costs less than a look at each.

    Examples
    --------
    >>> surely_whole(torch.tensor([1.0, 2.0])), surely_whole(torch.tensor([1.0, torch.nan]))
    (True, False)
    """
    return not bool(x.sum().isnan())


def fill_missing(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Replace missing entries of rows (n, d) by their conditional mean given the others.

    Then ``P (x - mean)`` is 0 there and that of the visible entries' marginal elsewhere: what is
    missing is no evidence, and what is visible is judged by what is visible.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        NaN = missing.
    mean : Tensor of shape (d,)
    precision : Tensor of shape (d, d), float64
    """
    if surely_whole(x):
        return x
    missing = x.isnan()
    holes = missing.any(1).nonzero()[:, 0]
    x, hidden = x.clone(), missing[holes]
    pull = torch.where(hidden, 0.0, x[holes] - mean).double() @ precision
    filled = _fill(precision[None], torch.zeros_like(holes), hidden, pull)
    x[holes] = torch.where(hidden, filled.to(x.dtype) + mean.to(x.dtype), x[holes])
    return x


def visible_distance(x: Tensor, which: Tensor, whitening: Tensor) -> Tensor:
    """Return the squared Mahalanobis distance of what rows (n, d) show, each under one of several zero-mean Gaussians.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        NaN = missing.
    which : Tensor of shape (n,), int
        The Gaussian of each row.
    whitening : Tensor of shape (Gaussians, d, d), float64
        A with A'A the precision.

    Returns
    -------
    Tensor of shape (n,), float64
        0 for rows that show nothing.
    """
    hidden = x.isnan()
    known = torch.where(hidden, 0.0, x).double()
    precision = whitening.mT @ whitening
    pull = torch.empty_like(known)
    for k in which.unique().tolist():
        own = which == k
        pull[own] = known[own] @ precision[k]
    # Filling what is hidden with its conditional mean takes this much off the distance of zeros there.
    filled = _fill(precision, which, hidden, pull)
    return (pull * (known + filled)).sum(1).clamp(min=0)


def _fill(precision: Tensor, which: Tensor, hidden: Tensor, pull: Tensor) -> Tensor:
    """Return what fills the hidden entries of rows (n, d), minus the mean, each under one of several precisions.

    Rows that hide the same share one solve; of the others, systems of about the same size are solved side by side.
    """
    result = torch.zeros_like(pull)
    few = torch.arange(len(hidden))
    if len(hidden) >= SHARED:
        kinds, group, count = torch.unique(
            torch.cat([which[:, None], hidden], 1), dim=0, return_inverse=True, return_counts=True
        )
        for g in (count >= SHARED).nonzero()[:, 0].tolist():
            members, entries = (group == g).nonzero(), kinds[g, 1:].nonzero()[:, 0]
            if len(entries):
                factor = torch.linalg.cholesky(precision[kinds[g, 0], entries[:, None], entries])
                result[members, entries] = -torch.cholesky_solve(pull[members, entries].mT, factor).mT
        few = (count[group] < SHARED).nonzero()[:, 0]
    size, order = hidden[few].sum(1).sort(descending=True)
    order = few[order[: int((size > 0).sum())]]
    while len(order):
        most = int(size[0])
        alike = min(max(1, SYSTEM_ENTRIES // most**2), int((size > 0.7 * most).sum()))
        part = order[:alike]
        result[part] = _side_by_side(precision, which[part], hidden[part], pull[part], most)
        size, order = size[alike:], order[alike:]
    return result


def _side_by_side(precision: Tensor, which: Tensor, hidden: Tensor, pull: Tensor, most: int) -> Tensor:
    # Stable: hidden entries first, in order.
    entries = hidden.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    real = hidden.gather(1, entries)
    system = precision[which[:, None, None], entries[:, :, None], entries[:, None]]
    system = torch.where(real[:, :, None] & real[:, None], system, torch.eye(most, dtype=system.dtype))
    wanted = torch.where(real, pull.gather(1, entries), 0.0)[..., None]
    answer = -torch.cholesky_solve(wanted, torch.linalg.cholesky(system))[..., 0]
    return torch.zeros_like(pull).scatter_(1, entries, answer)
