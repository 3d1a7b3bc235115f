"""A covariance of windows that few rows can carry: channels of their own rhythm, coupled by their innovations.

Windows at every offset overlap, so a recording of a few thousand rows holds only some dozens of independent
ones: far too few for a covariance of time steps times channels.  A stationary one has a few numbers per
channel and lag and one per pair of channels.  Mixing both is the shrinkage of Ledoit and Wolf (2004) with a
target that keeps what neighbours in time know of each other (structured targets: Schaefer and Strimmer 2005).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffad.priors.covariance import eigh, moments, positive, shrinkage_towards
from diffad.priors.gaussian import NUGGET, GaussianPrior

#: Smallest eigenvalue of a channel's own covariance, as a part of its largest.
FLOOR = 1e-4
#: How far few windows are shrunk at most: what holds exactly between channels some steps apart shows in a few.
MOST = 0.9


def gaussian_of_few(windows: Tensor) -> GaussianPrior:
    """Fit a Gaussian to windows of a recording that is short beside what one window holds.

    The sample covariance is shrunk towards a stationary one as far as its noise says (Ledoit and Wolf 2004, with
    the target of :func:`stationary_covariance` for the identity, which would tell neighbours in time apart by white
    noise).  Windows that overlap repeat each other: their noise is that of `length` times fewer (shrinkage of
    dependent data: Sancetta 2008).

    Parameters
    ----------
    windows : Tensor of shape (n, length, channels)
        At every offset; NaN = missing.

    Returns
    -------
    GaussianPrior over length * channels entries

    Examples
    --------
    >>> rows = torch.sin(torch.arange(60) / 5.0)
    >>> prior = gaussian_of_few(rows.unfold(0, 8, 1)[..., None])
    >>> between = prior.condition(torch.arange(8)[None] != 4, torch.arange(8)[None] == 4)
    >>> float((between.explain(rows[None, None, :8])[0, 0, 4] - rows[4]).abs()) < 0.01
    True
    """
    length, channels = windows.shape[1:]
    x = windows.flatten(1)
    mean, sample, noise = moments(x, ~x.isnan())
    if bool(x.isnan().any()):
        # Before it is shrunk: what contradicts itself would be taken for noise.
        sample = positive(sample)
    sample.diagonal().add_(NUGGET)
    target = stationary_covariance(sample, length, channels)
    share = min(shrinkage_towards(target, sample, length * noise), MOST)
    return GaussianPrior(mean, (1 - share) * sample + share * target)


def stationary_covariance(covariance: Tensor, length: int, channels: int) -> Tensor:
    """Return a covariance of windows whose channels are stationary, each as in the one given.

    A channel's own covariance depends on the lag only; with its Cholesky factor ``L_i`` and the correlation
    ``R`` of what the factors leave over, the block of channels i and j is ``R_ij L_i L_j'``.

    Parameters
    ----------
    covariance : Tensor of shape (length * channels, length * channels)
        Of windows (length, channels), flattened; symmetric, positive variances.
    length, channels : int

    Returns
    -------
    Tensor of the same shape, positive definite

    Examples
    --------
    >>> lag = (torch.arange(3)[:, None] - torch.arange(3)).abs()
    >>> shared = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    >>> covariance = torch.kron(0.9**lag, shared)
    >>> bool((stationary_covariance(covariance, 3, 2) - covariance).abs().max() < 1e-9)
    True
    """
    blocks = covariance.double().view(length, channels, length, channels).permute(1, 3, 0, 2)
    factor = torch.linalg.cholesky(_toeplitz(blocks.diagonal(dim1=0, dim2=1).permute(2, 0, 1)))
    white = torch.linalg.solve_triangular(factor[:, None], blocks, upper=False)
    white = torch.linalg.solve_triangular(factor.mT[None], white, upper=True, left=False)
    left_over = white.diagonal(dim1=2, dim2=3).mean(2)
    values, vectors = eigh(left_over)
    left_over = (vectors * values.clamp(min=FLOOR)) @ vectors.T
    root = left_over.diagonal().sqrt()
    correlation = left_over / root[:, None] / root
    return torch.einsum("ilk,ij,jmk->limj", factor, correlation, factor).reshape(covariance.shape)


def _toeplitz(own: Tensor) -> Tensor:
    """Average covariances (channels, length, length) along their diagonals; keep them positive definite."""
    length = own.shape[1]
    lags = torch.stack([own.diagonal(k, 1, 2).mean(1) for k in range(length)], 1)
    step = torch.arange(length, device=own.device)
    even = lags[:, (step[:, None] - step).abs()]
    values, vectors = torch.linalg.eigh(even)
    values = values.clamp(min=FLOOR * values[:, -1:])
    return (vectors * values[:, None]) @ vectors.mT
