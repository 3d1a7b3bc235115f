"""Shrunk covariance of incomplete rows (Ledoit and Wolf 2004), from pairwise complete entries."""

from __future__ import annotations

import torch
from torch import Tensor

#: Least eigenvalue of a covariance of incomplete rows, in parts of the mean one.
FLOOR = 1e-4


def ledoit_wolf(x: Tensor, known: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor, float]:
    """Return mean, shrunk covariance and the shrinkage weight.

    On complete rows this equals ``sklearn.covariance.ledoit_wolf``.  With missing entries every
    moment is taken over the rows that know both columns, and the result is made positive definite
    by clipping eigenvalues.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows; values where ``known`` is false are ignored.
    known : Tensor of shape (n, d), bool
        True where the value was observed.
    chunk : int
        Rows that are held in float64 at a time.

    Returns
    -------
    mean : Tensor of shape (d,), float64
    covariance : Tensor of shape (d, d), float64
    shrinkage : float in [0, 1]
    """
    mean, sample, noise = moments(x, known, chunk)
    size = sample.diagonal().mean()
    shrinkage = shrinkage_towards(size * torch.eye(len(sample), dtype=torch.float64), sample, noise)
    shrunk = (1 - shrinkage) * sample
    shrunk.diagonal().add_(shrinkage * size)
    return mean, positive(shrunk) if not bool(known.all()) else shrunk, shrinkage


def moments(x: Tensor, known: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor, float]:
    """Return mean (d,), covariance (d, d) over pairwise complete entries, and the summed variance of its entries.

    The last is what Ledoit and Wolf (2004, lemma 3.4) call b squared, of rows that know nothing of each other.
    """
    d = x.shape[1]
    zeros = torch.zeros(d, d, dtype=torch.float64)
    count, second, fourth = zeros.clone(), zeros.clone(), zeros.clone()
    mean = _column_means(x, known, chunk)
    for rows, seen in zip(x.split(chunk), known.split(chunk), strict=True):
        weight = seen.double()
        centred = torch.where(seen, rows.double() - mean, 0.0)
        count += weight.T @ weight
        second += centred.T @ centred
        fourth += (centred**2).T @ (centred**2)
    count = count.clamp(min=1)
    sample = second / count
    return mean, sample, float(((fourth / count - sample**2).clamp(min=0) / count).sum())


def shrinkage_towards(target: Tensor, sample: Tensor, noise: float) -> float:
    """Return how far a sample covariance is best shrunk towards a target, 0 to 1 (Ledoit and Wolf 2004, eq. 14)."""
    distance = float(((sample - target) ** 2).sum())
    return min(noise / distance, 1.0) if distance > 0 else 1.0


def _column_means(x: Tensor, known: Tensor, chunk: int) -> Tensor:
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    count = torch.zeros_like(total)
    for rows, seen in zip(x.split(chunk), known.split(chunk), strict=True):
        total += torch.where(seen, rows.double(), 0.0).sum(0)
        count += seen.sum(0)
    return total / count.clamp(min=1)


def positive(covariance: Tensor) -> Tensor:
    """Clip eigenvalues below `FLOOR`."""
    values, vectors = eigh(covariance)
    return (vectors * values.clamp(min=FLOOR * float(values.mean()))) @ vectors.T


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric eigendecomposition that survives the driver's rare failure to converge.

    LAPACK's divide and conquer gives up on some matrices with many equal eigenvalues; a jitter far
    below the matrix's own rounding separates them.
    """
    matrix = (matrix + matrix.mT) / 2
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        d = matrix.shape[-1]
        jitter = torch.linspace(1, 2, d, dtype=matrix.dtype, device=matrix.device)
        size = matrix.diagonal(dim1=-2, dim2=-1).abs().mean()
        return torch.linalg.eigh(matrix + torch.diag(1e-9 * size * jitter))
