"""Brightness and contrast of images, and what their missing pixels show: each is known once the other is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import root

from diffad.priors.span import SpanPrior

Images = NDArray[np.floating]
Array = NDArray[np.float64]

#: Part of a typical image's standard deviation below which contrast is not stretched further.
FLOOR = 0.2
#: Rounds of filling missing pixels and measuring contrast, before the rest is solved for.
ROUNDS = 3
#: Logarithm of what the solution may change in contrast: beyond, the rounds are believed.
MOST_CHANGE = 1.5


@dataclass(frozen=True)
class Contrast:
    """Brings images to mean 0 and standard deviation about 1, each by itself; NaN is left out.

    Attributes
    ----------
    floor : array (channels,)
        Added to the standard deviation.
    typical : (array (channels,), array (channels,))
        Centre and standard deviation of training images: of images that show nothing themselves.
    """

    floor: Array
    typical: tuple[Array, Array]

    @classmethod
    def fit(cls, images: Images) -> Contrast:
        """Learn the floor and what is typical from images (n, height, width, channels)."""
        count, centre, spread = _measured(images)
        # What varies less is rounding.
        spread = np.where(spread > 1e-12 * np.abs(centre), spread, 0)
        middle, size = (np.ma.median(np.ma.array(m, mask=count == 0), (0, 1, 2)).filled(0) for m in (centre, spread))
        # Channels may have units of their own. One that is constant as a rule has none: the finest of the others.
        floor = FLOOR * size
        positive = floor[floor > 0]
        return cls(np.where(floor > 0, floor, positive.min() if positive.size else 1.0), (middle, size))

    def moments(self, images: NDArray[np.floating], doubt: NDArray[np.floating] | float = 0.0) -> tuple[Array, Array]:
        """Return centre and scale (n, 1, 1, channels); those of a channel without any pixel are typical ones.

        `doubt` is the variance of pixels that were filled: what fills them is too smooth.
        """
        count, centre, spread = _measured(images, doubt)
        middle, size = self.typical
        return np.where(count > 0, centre, middle), np.where(count > 0, spread, size) + self.floor

    def plain(self, images: Images) -> Images:
        """Return images in units of the contrast of what they show; a missing pixel counts as average."""
        centre, scale = self.moments(images)
        return np.nan_to_num((images - centre) / scale).astype(np.float32)

    def completed(self, prior: SpanPrior, images: Images) -> tuple[Images, Images, Images]:
        """Return images in units of their contrast, with missing pixels filled, and their centre and scale."""
        centre, scale = self.moments(images)
        result = ((images - centre) / scale).astype(np.float32)
        for i in np.flatnonzero(np.isnan(images).any((1, 2, 3))):
            fillings = Fillings.of(prior, result[i])
            c, s = self._of_whole(fillings, images[i], centre[i], scale[i])
            filled = fillings.at(scale[i] / s, (c - centre[i]) / s)
            result[i] = np.where(np.isnan(images[i]), filled, (images[i] - c) / s)
            centre[i], scale[i] = c, s
        return result, centre, scale

    def drawn(self, prior: SpanPrior, images: Images) -> Images:
        """Return images in units of their contrast, with missing pixels drawn given the others.

        A draw of everything is moved by what the visible pixels make of its being off (Hoffman and Ribak 1991).
        """
        result = self.completed(prior, images)[0]
        for i in np.flatnonzero(np.isnan(images).any((1, 2, 3))):
            hidden = np.isnan(images[i]).ravel()
            generator = torch.Generator().manual_seed(int(i))
            weight = torch.randn(len(prior.rows), generator=generator) @ prior.rows.cpu()
            noise = prior.ridge**0.5 * torch.randn(hidden.size, generator=generator)
            draw = (prior.mean.cpu() + weight + noise).to(prior.mean)
            off = (draw - prior.given(torch.from_numpy(~hidden).to(draw.device))(draw)).cpu().numpy()
            result[i].reshape(-1)[hidden] += off[hidden]
        return result

    def _of_whole(self, fillings: Fillings, image: Images, centre: Images, scale: Images) -> tuple[Array, Array]:
        """Return centre and scale (1, 1, channels) of an image once filled, from those of its visible part.

        They are the fixed point of filling and measuring.
        """
        missing, size = np.isnan(image), centre.size
        nothing = missing.all((0, 1))

        def split(place: Array) -> tuple[Array, Array]:
            return place[:size].reshape(centre.shape), np.exp(place[size:]).reshape(scale.shape)

        def moved(place: Array) -> Array:
            c, s = split(place)
            whole = np.where(missing, fillings.at(scale / s, (c - centre) / s) * s + c, image)
            found, spread = self.moments(whole[None], fillings.doubt * s**2)
            # What fills a whole channel goes with any brightness and contrast.
            found, spread = np.where(nothing, centre, found), np.where(nothing, scale, spread)
            return np.concatenate([found.ravel(), np.log(spread.ravel())]).astype(np.float64)

        place = np.concatenate([centre.ravel(), np.log(scale.ravel())]).astype(np.float64)
        for _ in range(ROUNDS):
            place = moved(place)
        # Large holes leave much to go: their rounds would be hundreds.
        # Differences wide enough for single precision.
        found = root(lambda p: moved(p) - p, place, options={"xtol": 1e-5, "eps": 1e-3})
        solved = bool(np.abs(found.fun).max() < 1e-3)
        near = solved and bool((np.abs(found.x - place)[size:] < MOST_CHANGE).all())
        return split(found.x if near else place)


def _measured(images: Images, doubt: NDArray[np.floating] | float = 0.0) -> tuple[NDArray[np.int64], Array, Array]:
    """Return how many pixels images show, their mean and their standard deviation, (n, 1, 1, channels) each."""
    seen = ~np.isnan(images)
    shown = seen.sum((1, 2), keepdims=True)
    count = np.maximum(shown, 1)
    # Far from 0 the sums of single precision would drown what varies, and it does not hold the squares of 1e20.
    filled = np.where(seen, images, 0).astype(np.float64)
    centre = filled.sum((1, 2), keepdims=True) / count
    squared = np.where(seen, (filled - centre) ** 2 + doubt, 0).sum((1, 2), keepdims=True)
    return shown, centre, np.sqrt(squared / count)


@dataclass(frozen=True)
class Fillings:
    """What a prior puts into the holes of one image, at any brightness and contrast.

    What fills is affine in what is visible: pictures filled once are added up.

    Attributes
    ----------
    of_nothing : array (height, width, channels)
        Filled where all that is visible is 0.
    of_visible, of_white : array (height, width, channels, channels)
        What the visible pixels of each channel, and ones in their place, add to it.
    doubt : array (height, width, channels)
        Variance of what fills.
    """

    of_nothing: Array
    of_visible: Array
    of_white: Array
    doubt: Array

    @classmethod
    def of(cls, prior: SpanPrior, image: Images) -> Self:
        """Fill an image (height, width, channels), NaN = missing, in units of the prior."""
        device = prior.mean.device
        seen = torch.from_numpy(~np.isnan(image).ravel()).to(device)
        fill = prior.given(seen)

        def filled(visible: Images) -> Array:
            x = torch.from_numpy(np.broadcast_to(visible, image.shape).astype(np.float32).ravel())
            return fill(x.to(device)).cpu().numpy().reshape(image.shape).astype(np.float64)

        nothing = filled(np.zeros_like(image))
        channels = np.eye(image.shape[2], dtype=bool)
        visible = [filled(np.where(channel, image, 0)) - nothing for channel in channels]
        white = [filled(np.where(channel, np.ones_like(image), 0)) - nothing for channel in channels]
        doubt = prior.doubt(seen).cpu().numpy().reshape(image.shape)
        return cls(nothing, np.stack(visible, -1), np.stack(white, -1), doubt)

    def at(self, gain: Array, offset: Array) -> Array:
        """Return what fills the holes where visible values v are ``gain * v - offset``, each (1, 1, channels)."""
        return self.of_nothing + self.of_visible @ gain.ravel() - self.of_white @ offset.ravel()
