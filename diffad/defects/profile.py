"""The profile of an image: how rough it is all over, and how bright its channels are beside each other.

Other evidence is relative to an image's own brightness and contrast, and large alone is strange to it.  A blank or a
blurred image leaves nothing over and would be the most normal of all; noise or another material looks like rough texture,
and a part in another colour like the right one.  What is measured is how the image differs from the mean image: what a
Gaussian leaves over of images that it was fitted to is too little as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Least standard deviation of an entry: lamps and sensors vary as much.
LEAST_SPREAD = 0.05
#: Least energy, in units of the contrast: logarithms end there.
LEAST_ENERGY = 1e-6


def profile_of(brightness: NDArray[np.floating], off: list[NDArray[np.floating]]) -> Array:
    """Return the profiles (n, entries) of images.

    Parameters
    ----------
    brightness : array (n, channels)
        In units of the usual contrast. Only differences count: light may change.
    off : list of array (n, height, width, channels)
        How the images, in units of their contrast, differ from the mean image: as they are, and under wider and wider
        blobs.
    """
    finest = off[0].astype(np.float64)
    # Of the same energy, a few large differences are another thing than many small ones.
    mild, wild = np.abs(finest).mean((1, 2, 3)) ** 2, np.sqrt((finest**4).mean((1, 2, 3)))
    steps = [(np.diff(finest, axis=axis) ** 2).mean((1, 2, 3)) for axis in (1, 2) if finest.shape[axis] > 1]
    energy = np.stack([*((o.astype(np.float64) ** 2).mean((1, 2, 3)) for o in off), mild, wild, *steps], 1)
    colour = brightness[:, 1:] - brightness[:, :1]
    return np.concatenate([colour, np.log(np.maximum(energy, LEAST_ENERGY))], 1)


@dataclass(frozen=True)
class Profile:
    """A Gaussian of the profiles of good images.

    Attributes
    ----------
    mean : array (entries,)
    precision : array (entries, entries)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> usual = Profile.fit(rng.standard_normal((200, 3)))
    >>> usual.distance(np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])).round(0)
    array([0., 9.])
    """

    mean: Array
    precision: Array

    @classmethod
    def fit(cls, profiles: Array) -> Self:
        """Learn from profiles (n, entries); few are shrunk to independent entries."""
        n, size = profiles.shape
        mean = profiles.mean(0)
        covariance = (profiles - mean).T @ (profiles - mean) / n
        alone = np.diag(covariance.diagonal())
        shrunk = (n * covariance + size * alone) / (n + size)
        return cls(mean, np.linalg.inv(shrunk + LEAST_SPREAD**2 * np.eye(size)))

    def distance(self, profiles: Array) -> Array:
        """Return the Mahalanobis distance (n,) of profiles (n, entries)."""
        off = profiles - self.mean
        return np.asarray(np.sqrt(((off @ self.precision) * off).sum(1)))
