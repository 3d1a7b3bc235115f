"""A second look at what stands out in an image: hide it, and ask the rest of the image what belongs there.

The prior takes a visible defect for evidence and explains a part of it, most of all its inside.  So the
hottest places and what lies around them are hidden at once; the surprise is their squared difference from
what the other pixels alone let expect.  It sharpens heat maps.  Image scores do without it: every image has
a hottest place, and scores that took the surprise into account found fewer of the defects drawn into
held-out good images, by which all constants here were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from diffad.priors.span import SpanPrior

Images = NDArray[np.floating]

#: Squared residual, in units of normal ones and relative to the image's texture, from which a pixel is hidden.
HOT = 3.5
#: Pixels around hot ones that are hidden with them: heat is smooth, a defect may end a little further out.
MARGIN = 3
#: Largest part of an image that is hidden; of less than the rest nothing is expected.
MOST_HIDDEN = 0.7
#: Width over which surprise is averaged.
SMOOTH = 1.0
#: What counts as surprise where nothing is hidden, in units of that at the hot places of good images.
CALM = 0.6


@dataclass(frozen=True)
class SecondLook:
    """Sharpens heat maps by surprise.

    Attributes
    ----------
    unit : float
        Mean surprise at the hot places of good images.
    level : float
        Mean of the sharpened maps of good images.
    """

    unit: float = 1.0
    level: float = 1.0

    @classmethod
    def fit(cls, heat: Images, surprise: Images, visible: NDArray[np.bool_]) -> SecondLook:
        """Learn from maps (n, height, width) of good images that the prior has not seen."""
        hidden = surprise > 0
        unit = float(surprise[hidden].mean()) if hidden.any() else 1.0
        # Constant training images have no heat at all.
        return cls(unit, float(cls(unit)(heat, surprise)[visible].mean()) or 1.0)

    def __call__(self, heat: Images, surprise: Images) -> Images:
        """Return heat times surprise, (n, height, width), about 1 on average over good images."""
        both = heat * (CALM + gaussian_filter(surprise, (0, SMOOTH, SMOOTH)) / self.unit)
        return np.asarray(both / self.level, np.float32)


def surprises(prior: SpanPrior, filled: Images, visible: NDArray[np.bool_], relative: Images) -> Images:
    """Return the surprise of every pixel (n, height, width); 0 where nothing is hidden or nothing was seen.

    Parameters
    ----------
    prior : SpanPrior
    filled : array (n, height, width, channels)
        Complete images in the prior's units.
    visible : array of bool (n, height, width)
    relative : array (n, height, width)
        Squared residuals in units of normal ones, relative to each image's texture.
    """
    result = np.zeros(relative.shape, np.float32)
    for k, image in enumerate(filled):
        hot = binary_dilation(relative[k] > HOT, iterations=MARGIN) & visible[k]
        # What is missing was filled by the defect's leave, so it is no witness.
        hidden = hot | ~visible[k]
        if hot.any() and hidden.mean() <= MOST_HIDDEN:
            result[k] = np.where(hot, _surprise(prior, image, hidden), 0)
    return result


def _surprise(prior: SpanPrior, image: Images, hidden: NDArray[np.bool_]) -> Images:
    unseen = torch.from_numpy(np.repeat(hidden[..., None], image.shape[2], axis=2).ravel())
    squared = torch.zeros(image.size)
    squared[unseen] = prior.surprise(torch.from_numpy(image.ravel()), unseen).cpu()
    return np.asarray(squared.numpy().reshape(image.shape).mean(2))
