"""Stationary Gaussian fields on a grid: covariance from lag alone, estimated by FFT, and a level of their own.

The autocovariance is the biased estimate (sums over pairs divided by all pixels), which is positive
semidefinite; missing pixels are left out of the sums and the spectrum is clipped at zero, so that
every covariance matrix made of it is one (circulant embedding; Dietrich and Newsam 1997).  It fades
with the lag, and would take half the variance off what is alike in all of a field; the level is apart
for that.  Filling by the conditional mean is what biharmonic filling is for the field of squared Laplacians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

#: Share of the variance within images that the noise of their means may be.
MOST_NOISE = 0.9


@dataclass(frozen=True)
class StationaryField:
    """A centred Gaussian field: a level, the same everywhere, plus what varies from place to place.

    Parameters
    ----------
    lags : Tensor of shape (channels, channels, 2 * height, 2 * width)
        From :func:`autocovariance`; beyond its largest lag only the level is shared.
    level : Tensor of shape (channels, channels)
        Covariance of the levels.

    Examples
    --------
    >>> field = StationaryField.of(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 4, 4, 1))
    >>> round(float(field.covariance(9, 9)[0, -1]), 6)
    1.0
    """

    lags: Tensor
    level: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Self:
        """Estimate from centred images (n, height, width, channels), NaN = missing."""
        seen = (~images.isnan()).double().flatten(1, 2)
        known = seen.mean(1)
        levels = images.double().nanmean((1, 2)).nan_to_num()
        # A level of few pixels says little, and what it says is in part the noise of these.
        weight = (known.T @ known).clamp(min=1e-12)
        raw = (known * levels).T @ (known * levels) / weight
        noise = ((seen.mT @ seen).sum(0) / seen.shape[1] ** 2 / weight).clamp(max=MOST_NOISE)
        inside = autocovariance(images - levels[:, None, None])[:, :, 0, 0]
        root = _root(raw - noise / (1 - noise) * inside)
        level = root @ root.mT
        true = (level.diagonal() / raw.diagonal().clamp(min=1e-300)).clamp(0.0, 1.0)
        lags = autocovariance(images - (true * levels)[:, None, None]).clone()
        lags[:, :, 0, 0] += torch.diag((1 - true) * level.diagonal())
        return cls(lags, level)

    @classmethod
    def without_level(cls, lags: Tensor) -> Self:
        """Return the field of an autocovariance alone."""
        return cls(lags, lags.new_zeros(lags.shape[:2]))

    @property
    def variance(self) -> Tensor:
        """Variance of a pixel, (channels,)."""
        return (self.lags[:, :, 0, 0] + self.level).diagonal()

    def covariance(self, height: int, width: int) -> Tensor:
        """Return the covariance (d, d) of the entries of a field of any size, channels last."""
        varying = covariance_matrix(self.lags, height, width)
        pairs = (height * width, len(self.level)) * 2
        return (varying.view(pairs) + self.level.to("cpu")[:, None, :]).view(varying.shape)

    def sample(self, n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw n fields of any size: (n, height, width, channels), float64, with a generator on the CPU."""
        varying = sample_field(self.lags, n, height, width, generator)
        weight = torch.randn(n, len(self.level), generator=generator, dtype=torch.float64)
        return varying + (weight @ _root(self.level).to("cpu").mT)[:, None, None]


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


def _root(covariance: Tensor) -> Tensor:
    """Return R (c, c) with ``R R'`` the covariance, without its negative part: counts of pairs may differ."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0.0).sqrt()
