"""A covariance of windows that few rows can carry: channels of their own rhythm, coupled by their innovations.

Windows at every offset overlap, so a recording of a few thousand rows holds only some dozens of independent
ones: far too few for a covariance of time steps times channels.  A stationary one has a few numbers per
channel and lag and one per pair of channels.  Mixing both is the shrinkage of Ledoit and Wolf (2004) with a
target that keeps what neighbours in time know of each other (structured targets: Schaefer and Strimmer 2005).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffad.priors.covariance import eigh

#: Smallest eigenvalue of a channel's own covariance, as a part of its largest.
FLOOR = 1e-4


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
