"""Reading images: arrays (n, height, width[, channels]) checked once, for every image estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffad.base.arguments import is_number
from diffad.base.masked_arrays import unmasked

Images = NDArray[np.floating]

#: Share of a channel's pixels at the least or the greatest value from which on nothing lies beyond it: black, saturated.
AT_THE_END = 0.02
#: How many times as many they must be as the pixels at the next value.
PILED = 2


def read_images(X: Any, channels: int | None = None) -> Images:
    """Return images as floats (n, height, width, channels); NaN is a missing pixel.

    What single precision does not hold, float64 and integers of more than 16 bits, comes as float64: it is cast only
    after it was centred.

    Parameters
    ----------
    X : array-like of shape (n, height, width) or (n, height, width, channels)
        Float, integer or bool.
    channels : int, optional
        How many are expected; images of as many have them last, however small they are.

    Raises
    ------
    ValueError
        For images of different sizes, channels that come first, other shapes, no pixel, no numbers, infinity.

    Examples
    --------
    >>> read_images(np.zeros((2, 8, 9), np.uint8)).shape
    (2, 8, 9, 1)
    """
    try:
        array = np.asarray(unmasked(X))
    except ValueError:
        array = np.empty(0, object)
    if array.dtype == object:
        raise ValueError("X holds images of different sizes, or no numbers; resize them to one height and width")
    if array.ndim not in (3, 4):
        raise ValueError(f"X must have the shape (n, height, width) or (n, height, width, channels), got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"X must hold numbers, got dtype {array.dtype}")
    if not array.size:
        raise ValueError(f"X holds no pixel, its shape is {array.shape}")
    images = array.astype(float_type(array.dtype)).reshape(*array.shape[:3], -1)
    if images.shape[3] != channels and images.shape[1] < images.shape[3] and images.shape[1] <= 4:
        raise ValueError(f"X seems to have channels first, shape {array.shape}; put them last: X.transpose(0, 2, 3, 1)")
    if np.isinf(images).any():
        raise ValueError(
            "X holds infinity; replace it by NaN (a missing pixel) or by the largest value that is possible"
        )
    return images


def float_type(given: np.dtype) -> np.dtype:
    """Return the float dtype that holds the values of pixels: float32 up to 16 bits.

    Examples
    --------
    >>> float_type(np.dtype("uint16")), float_type(np.dtype("int32"))
    (dtype('float32'), dtype('float64'))
    """
    return min(np.result_type(given, np.float32), np.dtype(np.float64), key=lambda kind: kind.itemsize)


def refuse_empty(images: Images) -> None:
    """Raise ValueError for images or channels without any pixel, which nothing can be learnt from."""
    empty = np.flatnonzero(np.isnan(images).all((1, 2, 3)))
    if len(empty):
        raise ValueError(f"images {empty.tolist()[:10]} hold no pixel at all; leave them out")
    dead = np.flatnonzero(np.isnan(images).all((0, 1, 2)))
    if len(dead):
        raise ValueError(f"channels {dead.tolist()} hold no pixel at all; leave them out")


def check_shape(images: Images, shape: tuple[int, int, int], fitted: str) -> None:
    """Raise ValueError unless images have the height, width and channels that `fitted` was fitted on."""
    if images.shape[1:] != shape:
        raise ValueError(
            f"X holds images of height, width and channels {images.shape[1:]}, the {fitted} was fitted on "
            f"{shape}; resize them"
        )


def read_classes(y: Any, n: int) -> tuple[NDArray[Any], Tensor]:
    """Return the classes of n images, sorted, and each image's as a number; no class at all where y is None."""
    if y is None:
        return np.empty(0), torch.from_numpy(np.zeros(n, np.int64))
    given = np.asarray(y)
    if given.shape != (n,):
        raise ValueError(f"y must hold one class for each of the {n} images, its shape is {given.shape}")
    # numpy makes a string of NaN among strings.
    missing = np.flatnonzero(pd.isna(np.asarray(y, object)))
    if len(missing):
        raise ValueError(f"y misses the class of images {missing.tolist()[:10]}; name one for each, or leave them out")
    try:
        classes, index = np.unique(given, return_inverse=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in given})
        raise ValueError(f"y must hold classes of one type, got {', '.join(kinds)}; make all of them strings") from None
    return classes, torch.from_numpy(index.astype(np.int64))


def class_number(classes: NDArray[Any], y: Any, name: str = "y") -> int:
    """Return the number of a class, given as the parameter of a name."""
    found = np.flatnonzero(classes == y)
    if len(found) != 1:
        raise ValueError(f"{name} must be one of the classes {classes.tolist()} given to fit, got {y!r}")
    return int(found[0])


def check_guidance(guidance: float) -> None:
    """Raise ValueError unless guidance is a finite number."""
    if not is_number(guidance) or not np.isfinite(float(guidance)):
        raise ValueError(f"guidance must be a finite number, got {guidance!r}")


def pixel_range(images: Images, given: np.dtype) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return between which values the pixels of each channel lie, (channels,) and (channels,); infinite where unknown.

    Parameters
    ----------
    images : array (n, height, width, channels)
        NaN = missing.
    given : dtype
        Of the images as they were given: whole numbers have its range at most.

    Examples
    --------
    >>> images = np.zeros((2, 8, 8, 1))
    >>> images[0, 0, 0] = 7.0
    >>> pixel_range(images, np.dtype(float))
    (array([0.]), array([inf]))
    """
    bounds = {"b": (0, 1), "f": (-np.inf, np.inf)}.get(given.kind) or (np.iinfo(given).min, np.iinfo(given).max)
    ends = [_ends(channel[~np.isnan(channel)], *bounds) for channel in np.moveaxis(images, 3, 0)]
    lower, upper = np.array(ends, np.float64).T
    return lower, upper


def _ends(pixels: Images, lower: float, upper: float) -> tuple[float, float]:
    """Return the least and the greatest pixel where so many rest there that it is an end, else what is given."""
    least, most = pixels.min(), pixels.max()
    if least == most:
        return lower, upper
    after, before = pixels[pixels > least].min(), pixels[pixels < most].max()
    at_least, at_after, at_before, at_most = (int((pixels == value).sum()) for value in (least, after, before, most))
    enough = AT_THE_END * pixels.size
    # A histogram that merely ends falls towards its end.
    return (
        float(least) if at_least >= max(enough, PILED * at_after) else lower,
        float(most) if at_most >= max(enough, PILED * at_before) else upper,
    )


def centre_and_scale(images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the standard deviation of each channel (channels,) of images, NaN = missing.

    A constant channel has so small a scale that what models add in its units is lost in rounding.
    """
    centre = np.asarray(np.nanmean(images, (0, 1, 2), dtype=np.float64))
    # One channel at a time in double precision: squares of 1e20 are infinite in single, and nanstd casts too late.
    spread = np.array([np.nanstd(channel.astype(np.float64)) for channel in np.moveaxis(images, 3, 0)])
    least = 1e-6 * np.maximum(np.abs(centre), spread.max())
    varies = spread > 1e-12 * np.abs(centre)
    return centre, np.where(varies, spread, np.where(least > 0, least, 1.0))
