"""`ImageDetector`: defects in images of parts, learnt from good ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from diffad import tracking
from diffad.defaults import pinned_defaults
from diffad.detection import Detector
from diffad.image_evidence import fit_images, seen
from diffad.image_input import Images, check_shape, read_images, refuse_empty
from diffad.series_input import device_of
from diffad.thresholds import NormalScores, Threshold

Scores = NDArray[np.float64]

#: Rounds of leaving out the strangest images where `contamination` says that there are some.
TRIMMING = 2
#: Half a 90 % band, in standard deviations.
BAND = 1.645


@dataclass(frozen=True)
class ImageExplanation:
    """Where images are strange; arrays are of the images' shape, in their units.

    Attributes
    ----------
    heat : array (n, height, width)
        Squared residual in units of normal ones, larger = stranger, comparable between images.
    expected : array
        What the good images make of the image.
    lower, upper : array
        90 % band around it.
    """

    heat: NDArray[np.float32]
    expected: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]


class ImageDetector(Detector):
    """Find defects in images after seeing good ones, with a heat map of each.

    1. Each image is brought to mean 0 and standard deviation 1; missing pixels are filled by their
       conditional mean and are no evidence.
    2. The Gaussian of all good images (one n x n solve) says what each pixel should be given all
       others; the residual is filtered with blobs of several widths.
    3. Residuals are measured in units of cross-fitted normal ones and relative to the image's own
       texture; the hottest 1 % of the pixels make the score.
    4. The cross-fitted scores set the threshold and give conformal p-values.

    Parameters
    ----------
    threshold : FalseAlarmRate or None, default=None
        When to alarm; None is ``FalseAlarmRate(0.01)``, or the share `contamination` of the
        training images.
    contamination : float, default=0.0
        Share of the training images that may be defective: the strangest are left out of the fit.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``; ``"auto"`` takes CUDA where it is.

    Attributes
    ----------
    offset_ : float
        Threshold on `score_samples`.
    normal_ : NormalScores
        Cross-fitted scores of the training images.
    shape_ : tuple of int
        Height, width and channels of the images.

    Notes
    -----
    Memory and time grow with the square of the number of training images and linearly with their
    pixels: 2,000 images of 64 x 64 take seconds.

    Examples
    --------
    >>> import numpy as np
    >>> from diffad import ImageDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.random((60, 1, 1)) + 0.1 * rng.standard_normal((60, 16, 16))
    >>> detector = ImageDetector().fit(good[:50])
    >>> bad = good[50:].copy()
    >>> bad[:, 6:9, 6:9] += 1
    >>> bool(detector.score_samples(bad).max() < detector.score_samples(good[50:]).min())
    True
    >>> np.unravel_index(detector.explain(bad[:1]).heat[0].argmax(), (16, 16))
    (np.int64(7), np.int64(7))
    """

    def __init__(self, threshold: Threshold | None = None, contamination: float = 0.0, device: str = "auto") -> None:
        self.threshold = threshold
        self.contamination = contamination
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from good images.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
            Float or integer; NaN is a missing pixel.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For fewer than 8 images, infinity, or an image without any pixel.
        """
        self._check_decision()
        images = read_images(X)
        if len(images) < 8:
            raise ValueError(f"X holds {len(images)} images; fit needs at least 8 good ones")
        refuse_empty(images)
        self.shape_, self.period_ = images.shape[1:], None
        device = device_of(self.device)
        with tracking.run_of(self, X), pinned_defaults(), torch.no_grad():
            kept = np.ones(len(images), bool)
            for _ in range(TRIMMING if self.contamination else 0):
                # A defect that stays in explains its like: those dropped free the view on the rest.
                self.model_, cross_fitted = fit_images(images[kept], device)
                strange = self._scores(images)
                strange[kept] = cross_fitted
                kept = strange <= np.quantile(strange, 1 - self.contamination)
            self.model_, normal = fit_images(images[kept], device)
            training = self._scores(images) if self.contamination and self.threshold is None else None
        self._decide(NormalScores.of_blocks([normal]), training)
        return self

    def explain(self, X: Any) -> ImageExplanation:
        """Say where each image is strange, and what it should have shown."""
        images = self._open(X)
        with pinned_defaults(), torch.no_grad():
            residual = self.model_.residual(images)
            heat = self.model_.heat(residual, seen(images))
        filled, centre, scale = self.model_.completed(images)
        filled = filled * scale + centre
        expected = filled - residual * scale
        half = BAND * self.model_.scales[0] * scale
        shape = np.shape(X)
        return ImageExplanation(heat, *(a.reshape(shape) for a in (expected, expected - half, expected + half)))

    def _open(self, X: Any) -> Images:
        check_is_fitted(self)
        images = read_images(X)
        check_shape(images, self.shape_, "detector")
        return images

    def _scores(self, images: Images) -> Scores:
        with pinned_defaults(), torch.no_grad():
            return self.model_.scores(self.model_.residual(images), seen(images))

    def _strangeness(self, X: Any) -> Scores:
        return self._scores(self._open(X))
