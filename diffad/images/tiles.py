"""Conditioning images of any size on what was observed of them: hidden pixels, averages, noise.

Images of the training size are solved as a whole.  Others are covered by overlapping tiles, each solved by
itself; solutions are blended with weights that fall to the tiles' edges, so that no seam shows.  Samples
are draws from the prior *of the whole image*, corrected tile by tile for what they got wrong (Matheron's
rule): neighbouring tiles correct the same draw, so that samples have no seam either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffad.images.prior import DENSE_LIMIT, TILE_ENTRIES, ImagePrior
from diffad.priors.linear import Averages, LinearGaussian, Pixels, Posterior


@dataclass(frozen=True)
class Observed:
    """What is known of images.

    Attributes
    ----------
    values : Tensor of shape (n, height, width, channels)
        Standardised pixels or, with a factor, averages; NaN is unknown.
    factor : int
        Each value is the average of ``factor x factor`` pixels.
    noise : Tensor of shape (channels,) or None
        Standard deviation of white noise on the values.
    """

    values: Tensor
    factor: int = 1
    noise: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images behind."""
        _, height, width, channels = self.values.shape
        return height * self.factor, width * self.factor, channels

    @property
    def exact(self) -> bool:
        """Whether a known value is the pixel itself."""
        return self.factor == 1 and self.noise is None

    def of(self, images: Tensor) -> Tensor:
        """Observe other images (n, height, width, channels) in the same way, without noise."""
        if self.factor == 1:
            return images
        return images.unflatten(2, (-1, self.factor)).unflatten(1, (-1, self.factor)).mean((2, 4))

    def posterior(self, prior: LinearGaussian, seen: Tensor) -> Posterior:
        """Condition a prior on the values of one image or tile with `seen` (height, width, channels) true."""
        flat = seen.flatten().to(prior.mean.device)
        noise = None if self.noise is None else self.noise.expand(seen.shape)[seen].to(flat.device)
        if self.factor == 1:
            return prior.observe(Pixels(flat), noise)
        height, width, channels = seen.shape
        fine = (height * self.factor, width * self.factor, channels)
        return prior.observe(Averages(fine, self.factor, flat), noise)


def mean(prior: ImagePrior, observed: Observed, with_scale: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return the posterior mean and, on request, the standard deviation of every pixel: (n, h, w, c), float64."""
    centre = _centre(prior, observed)
    solved, scale = _explain(prior, observed, observed.values.double() - observed.of(centre), with_scale)
    return centre + solved, scale


def sample(prior: ImagePrior, observed: Observed, n_samples: int, generator: torch.Generator) -> Tensor:
    """Draw from the posterior of one image: (n_samples, height, width, channels), float64."""
    centre, _, deviations = moments(prior, observed, n_samples, generator)
    return centre + deviations


def moments(
    prior: ImagePrior, observed: Observed, n_draws: int, generator: torch.Generator, with_scale: bool = False
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return posterior means of images that are all observed alike, and draws of deviations from them.

    Returns
    -------
    mean : Tensor of shape (n, height, width, channels), float64
    scale : Tensor of shape (height, width, channels) or None
    deviations : Tensor of shape (n_draws, height, width, channels)
        Whatever the values: each mean plus any of them is a sample.
    """
    centre = _centre(prior, observed)
    draws = prior.draw(n_draws, *observed.shape[:2], generator)
    echo = -observed.of(draws)
    if observed.noise is not None:
        echo = echo - observed.noise * torch.randn(echo.shape, generator=generator, dtype=torch.float64)
    echo = torch.where(observed.values[:1].isnan(), torch.nan, echo)
    wrong = torch.cat([observed.values.double() - observed.of(centre), echo])
    solved, scale = _explain(prior, observed, wrong, with_scale)
    n = len(observed.values)
    return centre + solved[:n], None if scale is None else scale[0], draws + solved[n:]


def explain(prior: ImagePrior, observed: Observed, wrong: Tensor) -> Tensor:
    """Return the expected change of images whose observed values are off by `wrong`."""
    return _explain(prior, observed, wrong, False)[0]


def _centre(prior: ImagePrior, observed: Observed) -> Tensor:
    shape = (1, *observed.shape)
    return prior.mean.view(shape) if _whole(prior, observed) else torch.zeros(shape, dtype=torch.float64)


def _whole(prior: ImagePrior, observed: Observed) -> bool:
    return prior.whole_fits(*observed.shape[:2])


def _explain(prior: ImagePrior, observed: Observed, wrong: Tensor, with_scale: bool) -> tuple[Tensor, Tensor | None]:
    """Return the posterior mean, for a prior of mean 0, of images observed as `wrong` (n, h, w, c), NaN unknown."""
    f = observed.factor
    n = len(wrong)
    if _whole(prior, observed):
        tile, gaussian = observed.shape[:2], prior.whole
    else:
        tile = _tile_size(observed)
        gaussian = prior.tile(*tile)
    total = torch.zeros(n, *observed.shape, dtype=torch.float64)
    spread = torch.zeros_like(total) if with_scale else None
    weights = torch.zeros(*observed.shape[:2], 1, dtype=torch.float64)
    window = _window(tile[0], f)[:, None, None] * _window(tile[1], f)[None, :, None]
    starts = [(y, x) for y in _starts(observed.shape[0], tile[0], f) for x in _starts(observed.shape[1], tile[1], f)]
    for y, x in starts:
        weights[y : y + tile[0], x : x + tile[1]] += window
    for members in _equal_masks(wrong, starts, (tile[0] // f, tile[1] // f), f):
        parts = torch.stack([part for _, _, part in members])
        seen = ~parts[0].isnan()
        if observed.exact and bool(seen.all()):
            solved, scale = parts, torch.zeros_like(parts[0])
        else:
            given = observed.posterior(gaussian, seen)
            solved = given.explain(parts[:, seen].to(prior.device)).cpu().view(len(parts), *tile, -1)
            scale = given.scale.cpu().view(solved.shape[1:]) if with_scale else torch.zeros(())
        for (i, (y, x), _), one in zip(members, solved, strict=True):
            total[i, y : y + tile[0], x : x + tile[1]] += window * one
            if spread is not None:
                spread[i, y : y + tile[0], x : x + tile[1]] += window * scale
    return total / weights, None if spread is None else spread / weights


def _equal_masks(
    wrong: Tensor, starts: list[tuple[int, int]], size: tuple[int, int], factor: int
) -> Iterator[list[tuple[int, tuple[int, int], Tensor]]]:
    """Yield lists of (image, start, values) of tiles that are observed alike: one posterior serves them."""
    groups: dict[bytes, list[tuple[int, tuple[int, int]]]] = {}
    masks = wrong.isnan().numpy()
    for i in range(len(wrong)):
        for y, x in starts:
            mask = masks[i, y // factor : y // factor + size[0], x // factor : x // factor + size[1]]
            groups.setdefault(mask.tobytes(), []).append((i, (y, x)))
    for members in groups.values():
        yield [
            (i, (y, x), wrong[i, y // factor : y // factor + size[0], x // factor : x // factor + size[1]])
            for i, (y, x) in members
        ]


def _tile_size(observed: Observed) -> tuple[int, int]:
    height, width, channels = observed.shape
    f = observed.factor
    # A multiple of twice the factor, so that half a tile is whole averages.
    side = max(1, int((TILE_ENTRIES / channels) ** 0.5) // (2 * f)) * 2 * f
    tile = min(side, height), min(side, width)
    if f > 1 and tile[0] * tile[1] * channels > DENSE_LIMIT:
        raise ValueError(
            f"factor must be at most {int((DENSE_LIMIT / channels) ** 0.5) // 2} for images of {channels} channels and not "
            f"of the training size, got {f}: averages are solved two by two; go there in several steps"
        )
    return tile


def _starts(length: int, tile: int, factor: int) -> list[int]:
    """Return where tiles of a row start: half a tile apart, the last one at the end."""
    step = max(factor, tile // 2 // factor * factor)
    return [*range(0, length - tile, step), length - tile]


def _window(length: int, factor: int) -> Tensor:
    """Return weights that rise from the edges to the middle of a tile and nowhere vanish.

    Pixels of one average have one weight: blended solutions keep the average that each of them has.
    """
    place = (torch.arange(length // factor, dtype=torch.float64) + 0.5) * factor / length
    return (torch.sin(torch.pi * place) ** 2).repeat_interleave(factor)
