"""Stationary Gaussian fields on a grid: covariance from lag alone, estimated by FFT.

The autocovariance is the biased estimate (sums over pairs divided by all pixels), which is positive
semidefinite; missing pixels are left out of the sums and the spectrum is clipped at zero, so that
every covariance matrix made of it is one (circulant embedding; Dietrich and Newsam 1997).  Filling by
its conditional mean is what biharmonic filling is for the field of squared Laplacians.
"""

from __future__ import annotations

import torch
from torch import Tensor


def autocovariance(residuals: Tensor) -> Tensor:
    """Estimate the autocovariance of centred fields.

    Parameters
    ----------
    residuals : Tensor of shape (n, height, width, channels)
        NaN is missing.

    Returns
    -------
    Tensor of shape (channels, channels, 2 * height, 2 * width)
        Entry ``[a, b, dy, dx]`` is the covariance of channel a at a place and channel b at that place
        plus the lag; negative lags wrap around.

    Examples
    --------
    >>> round(float(autocovariance(torch.ones(3, 4, 4, 1))[0, 0, 0, 0]), 6)
    1.0
    """
    height, width = residuals.shape[1:3]
    size = (2 * height, 2 * width)
    known = ~residuals.isnan()
    x = torch.where(known, residuals, 0.0).double().permute(0, 3, 1, 2)
    ones = torch.fft.rfft2(known.double().permute(0, 3, 1, 2), s=size)
    waves = torch.fft.rfft2(x, s=size)
    sums = torch.fft.irfft2(torch.einsum("nauv,nbuv->abuv", waves.conj(), waves), s=size)
    pairs = torch.fft.irfft2(torch.einsum("nauv,nbuv->abuv", ones.conj(), ones), s=size)
    full = torch.fft.rfft2(torch.ones(height, width, dtype=torch.float64), s=size)
    overlap = torch.fft.irfft2(full.abs() ** 2, s=size)
    covariance = sums / pairs.round().clamp(min=1.0) * overlap / (height * width)
    return _positive(covariance) if not bool(known.all()) else covariance


def covariance_matrix(lags: Tensor, height: int, width: int) -> Tensor:
    """Return the covariance (d, d) of an image's entries, d = height * width * channels, channels last.

    Parameters
    ----------
    lags : Tensor
        From :func:`autocovariance`; beyond its largest lag pixels are uncorrelated.
    height, width : int
        Any size.
    """
    channels, _, high, wide = lags.shape
    dy = torch.arange(height)[None, :] - torch.arange(height)[:, None]
    dx = torch.arange(width)[None, :] - torch.arange(width)[:, None]
    rows = lags.to("cpu")[:, :, dy % high][..., dx % wide]  # (a, b, y, y', x, x')
    inside = (dy.abs() < high // 2)[:, :, None, None] & (dx.abs() < wide // 2)
    rows = torch.where(inside, rows, 0.0)
    d = height * width * channels
    return rows.permute(2, 4, 0, 3, 5, 1).reshape(d, d)


def _positive(covariance: Tensor) -> Tensor:
    """Clip negative eigenvalues of the spectrum, a (channels, channels) matrix per frequency."""
    spectrum = torch.fft.fft2(covariance).permute(2, 3, 0, 1)
    values, vectors = torch.linalg.eigh((spectrum + spectrum.mH) / 2)
    clipped = (vectors * values.clamp(min=0.0)[..., None, :]) @ vectors.mH
    return torch.fft.ifft2(clipped.permute(2, 3, 0, 1)).real


def sample_field(lags: Tensor, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw fields of any size, exactly, by circulant embedding.

    Parameters
    ----------
    lags : Tensor
        From :func:`autocovariance`.
    n, height, width : int
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor of shape (n, height, width, channels), float64
    """
    channels, _, high, wide = lags.shape
    # Large enough that lags from both sides do not meet.
    rows, columns = height + high // 2, width + wide // 2
    torus = torch.zeros(channels, channels, max(rows, high), max(columns, wide), dtype=torch.float64)
    dy = torch.arange(-(high // 2) + 1, high // 2)
    dx = torch.arange(-(wide // 2) + 1, wide // 2)
    source = lags.to("cpu", torch.float64)
    torus[:, :, dy[:, None] % torus.shape[2], dx % torus.shape[3]] = source[:, :, dy[:, None] % high, dx % wide]
    values, vectors = torch.linalg.eigh(torch.fft.fft2(torus).permute(2, 3, 0, 1))
    root = vectors * values.clamp(min=0.0).sqrt()[..., None, :]
    white = torch.randn(2, n, *root.shape[:2], channels, generator=generator, dtype=torch.float64)
    noise = torch.complex(white[0], white[1])
    waves = torch.einsum("uvab,nuvb->nuva", root.conj(), noise)
    field = torch.fft.ifft2(waves, dim=(1, 2)).real * (torus.shape[2] * torus.shape[3]) ** 0.5
    return field[:, :height, :width]
