"""Texture that is nowhere the same and everywhere alike: one Gaussian of all patches, wherever they lie.

The Gaussian of whole images knows what belongs at which place; of cloth, wood or ground metal no two images share
that.  With the mean ``m`` and the precision ``P`` of a patch, ``v' P (x - m) / sqrt(v' P v)`` is the matched filter
of a spot ``v`` at its middle (Kay 1998, "Fundamentals of statistical signal processing", volume 2, section 4.4): one
convolution, of variance 1 where the texture is normal. The middle row of ``P``, moved from pixel to pixel, is the
precision of a whole image; what is missing is filled such that it is no evidence, ``(P (x - m))`` is 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

Images = NDArray[np.floating]

#: Widths of the spots, in pixels; 0 is a single one.
WIDTHS = (0.0, 0.7, 1.5, 3.0, 5.0)
#: Longest side of a patch, the part of an image's shorter side it may have, and most of its entries.
SIDE, PART, ENTRIES = 21, 1 / 3, 700
#: Patches learnt from.
PATCHES = 20_000
#: Added to variances, as a part of their mean.
RIDGE = 1e-3
#: Width over which squared answers are averaged, in widths of the spot but at least one pixel.
SMOOTH = 1.0
#: Rounds in which missing pixels are solved for, and the part of what is wanted that may be left.
ROUNDS, SOLVED = 100, 1e-3
#: Least precision at any frequency, as a part of the largest.
LEAST = 1e-3
#: Entries of answers worked out at once; bounds memory.
ANSWERS = 2**24


@dataclass(frozen=True)
class Texture:
    """Matched filters of spots in one texture.

    Attributes
    ----------
    mean : Tensor of shape (channels,)
    kernels : Tensor of shape (widths * channels, channels, side, side)
        One spot along one principal direction of the channels each, narrow ones first.
    precision : Tensor of shape (channels, channels, side, side)
        Precision between the middle pixel and those around it.
    """

    mean: Tensor
    kernels: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, images: Tensor, device: torch.device) -> Self:
        """Learn from good images (n, height, width, channels) in units of their contrast, without NaN."""
        n, height, width, channels = images.shape
        side = side_of(images.shape)
        each = -(-PATCHES // n)
        rng = np.random.default_rng(0)
        top, left = (rng.integers(0, size - side + 1, (n, each)) for size in (height, width))
        windows = np.lib.stride_tricks.sliding_window_view(images.numpy(), (side, side), (1, 2))
        patches = torch.from_numpy(windows[np.arange(n)[:, None], top, left].reshape(n * each, -1)).to(device)
        mean = patches.view(len(patches), channels, -1).mean((0, 2))
        x = (patches.view(len(patches), channels, -1) - mean[:, None]).flatten(1).double()
        covariance = x.mT @ x / len(x)
        covariance.diagonal().add_(RIDGE * covariance.diagonal().mean() + 1e-9)
        factor = torch.linalg.cholesky(covariance)
        alone = torch.zeros(channels, channels, side * side).to(factor)
        alone[:, :, side * side // 2] = torch.eye(channels)
        middle = torch.cholesky_solve(alone.flatten(1).mT, factor).mT.view(channels, channels, side, side)
        precision = (middle + middle.transpose(0, 1).flip(2, 3)) / 2
        pixels = x.view(len(x), channels, -1)
        spots = _spots(side, torch.linalg.eigh(torch.einsum("ncp,ndp->cd", pixels, pixels)).eigenvectors.mT)
        filters = torch.cholesky_solve(spots.mT, factor).mT
        filters = filters / (filters * spots).sum(1, keepdim=True).sqrt()
        return cls(mean.float(), filters.float().view(-1, channels, side, side), precision.float())

    def answers(self, images: Images, visible: NDArray[np.bool_]) -> Iterator[tuple[slice, Images]]:
        """Yield chunks of answers (n, height, width, widths, channels) to images as `fit` takes them.

        What stands in pixels (n, height, width) that are not visible is replaced, and 0 in the answers.
        """
        n, height, width, channels = images.shape
        reach = self.kernels.shape[-1] // 2
        size = max(1, ANSWERS // (height * width * len(self.kernels)))
        for start in range(0, n, size):
            chunk = slice(start, start + size)
            part = (torch.from_numpy(images[chunk]).to(self.mean) - self.mean).permute(0, 3, 1, 2)
            shown = torch.from_numpy(visible[chunk]).to(self.mean.device)[:, None]
            padded = functional.pad(self._completed(part, shown), (reach,) * 4, mode="reflect")
            found = (functional.conv2d(padded, self.kernels) * shown).permute(0, 2, 3, 1).cpu().numpy()
            yield chunk, found.reshape(*found.shape[:3], len(WIDTHS), channels)

    def energies(self, images: Images, visible: NDArray[np.bool_], units: Images) -> Iterator[tuple[slice, Images]]:
        """Yield chunks of smoothed squared answers (n, height, width, widths), about 1 where all is normal.

        Parameters
        ----------
        images : array (n, height, width, channels)
            As `fit` takes them.
        visible : array of bool (n, height, width)
        units : array (height, width, widths, channels)
            Root mean square of normal answers.
        """
        for chunk, answers in self.answers(images, visible):
            squared = ((answers / units) ** 2).mean(4)
            for k, width in enumerate(WIDTHS):
                spread = SMOOTH * max(1.0, width)
                squared[..., k] = gaussian_filter(squared[..., k], (0, spread, spread))
            yield chunk, squared

    def expected(self, images: Images, visible: NDArray[np.bool_]) -> tuple[Images, NDArray[np.float32]]:
        """Return what pixels of images, as `fit` takes them, should show given all others; and their deviation (channels,).

        The deviation is that of a visible pixel among visible ones.
        """
        x = (torch.from_numpy(images).to(self.mean) - self.mean).permute(0, 3, 1, 2)
        shown = torch.from_numpy(visible).to(self.mean.device)[:, None]
        x = self._completed(x, shown)
        reach = self.precision.shape[-1] // 2
        own = self.precision[:, :, reach, reach].diagonal()
        left = functional.conv2d(functional.pad(x, (reach,) * 4, mode="reflect"), self.precision) / own[:, None, None]
        found = (x - left * shown).permute(0, 2, 3, 1) + self.mean
        return found.cpu().numpy(), own.rsqrt().cpu().numpy()

    def _completed(self, x: Tensor, shown: Tensor) -> Tensor:
        """Replace pixels of x (n, channels, height, width), mean 0, that are not shown (n, 1, height, width)."""
        holes = (~shown).flatten(1).any(1).nonzero()[:, 0]
        if not len(holes):
            return x
        x, hidden = x.clone(), (~shown[holes]).to(x)
        size = [next_fast_len(n + self.precision.shape[-1], real=True) for n in x.shape[2:]]
        spectrum = self._spectrum(size)

        def surprise(values: Tensor) -> Tensor:
            waves = torch.fft.rfft2(values, s=size)
            found = torch.fft.irfft2(torch.einsum("cdhw,ndhw->nchw", spectrum, waves), s=size)
            return found[:, :, : x.shape[2], : x.shape[3]] * hidden

        known = x[holes] * (1 - hidden)
        x[holes] = known + _solved(surprise, -surprise(known))
        return x

    def _spectrum(self, size: list[int]) -> Tensor:
        """Return the precision of whole images by frequency, (channels, channels, height, width // 2 + 1), positive definite.

        Cut off beyond a patch it may lose that; what is lost is put back.
        """
        side = self.precision.shape[-1]
        grid = self.precision.new_zeros(*self.precision.shape[:2], *size)
        grid[:, :, :side, :side] = self.precision
        waves = torch.fft.rfft2(grid.roll((-(side // 2), -(side // 2)), (2, 3))).conj()
        values, vectors = torch.linalg.eigh(waves.permute(2, 3, 0, 1))
        values = values.clamp(min=float(LEAST * values.max()))
        return ((vectors * values[..., None, :]) @ vectors.mH).permute(2, 3, 0, 1)


def _solved(operator: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """Solve ``operator(x) = wanted`` for each of n positive definite problems by conjugate gradients."""

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((1, 2, 3), keepdim=True)

    x, left = torch.zeros_like(wanted), wanted.clone()
    direction, size = left.clone(), inner(left, left)
    enough = SOLVED**2 * size
    for _ in range(ROUNDS):
        if not bool((size > enough).any()):
            break
        image = operator(direction)
        curvature = inner(direction, image)
        step = torch.where(size > enough, size / curvature.clamp(min=1e-30), 0.0)
        x, left = x + step * direction, left - step * image
        before, size = size, torch.where(step > 0, inner(left, left), size)
        direction = left + torch.where(step > 0, size / before.clamp(min=1e-30), 0.0) * direction
    return x


def side_of(shape: tuple[int, ...]) -> int:
    """Return the side of a patch in images of shape (n, height, width, channels), an odd number; below 5 is of no use."""
    longest = min(SIDE, int(PART * min(shape[1:3])), int((ENTRIES / shape[3]) ** 0.5))
    return longest - 1 + longest % 2


def _spots(side: int, directions: Tensor) -> Tensor:
    """Return spots of each width along directions (channels, channels), (widths * channels, channels * side * side).

    Along the principal ones: what is seen in all of channels that are alike is a spot in their sum, to which their
    differences are blind.
    """
    row = torch.arange(side) - side // 2
    squared = (row**2)[:, None] + row**2
    spots = [torch.exp(-squared / (2 * max(width, 1e-3) ** 2)).flatten() for width in WIDTHS]
    return torch.cat([torch.kron(directions, spot[None].to(directions)) for spot in spots])
