"""`ImageDetector`: defects in images of parts, learnt from good ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from diffad import tracking
from diffad.augmentation import Augmentation, check_augmentation
from diffad.base.atomic import all_or_nothing
from diffad.base.defaults import pinned_defaults
from diffad.base.devices import device_of
from diffad.base.telling import tell
from diffad.defects.evidence import ImageModel, judged, seen
from diffad.defects.features import FeatureModel, Features, feature_scores, fit_features
from diffad.defects.fitting import fit_images
from diffad.detection import Detector
from diffad.images.input import Images, check_shape, float_type, read_images, refuse_empty
from diffad.tails import LogTail
from diffad.thresholds import TRIMMING, NormalScores, Threshold

Scores = NDArray[np.float64]

#: Half a 90 % band, in standard deviations.
BAND = 1.645


@dataclass(frozen=True)
class ImageExplanation:
    """Where images are strange; arrays are of the images' shape, in their units.

    Attributes
    ----------
    heat : array (n, height, width)
        Squared residual in units of normal ones times its surprise at a second look, or what the texture's filters
        answer; larger = stranger, about 1 on average over good images, comparable between images, 0 where pixels are
        missing.
    expected : array
        What each pixel should have shown, given all others.
    lower, upper : array
        90 % band around it.
    """

    heat: NDArray[np.float32]
    expected: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]


class ImageDetector(Detector):
    """Find defects in images after seeing good ones, with a heat map of each.

    1. Each image is brought to mean 0 and a standard deviation near 1 (that of images without contrast is not
       stretched to it); missing pixels are filled by their conditional mean and are no evidence.
    2. The Gaussian of all good images (one n x n solve) says what each pixel should be given all
       others; the residual is filtered with blobs of several widths. Where defects drawn into held-out
       good images say that it helps, images shifted by a pixel belong to the Gaussian as well: no camera
       sees a part twice at the same place.
    3. Residuals are measured in units of cross-fitted normal ones. The hottest 1 % of the pixels, relative to
       the image's own texture, are evidence of a defect, all pixels together evidence of another part
       altogether, as is, of small images, the distance to the nearest good one, and, where no training image has
       missing pixels, how rough an image is all over and how bright its channels are beside each other: too quiet,
       as a blank or blurred image, is strange as well. All become minus log probabilities, whose squares are added.
       Brightness of all channels together is no evidence.
    4. Of cloth, wood or ground metal no two images share what lies where. Where drawn defects say so, matched filters
       in one Gaussian of all patches (texture) join scores and maps, or take over.
    5. Heat maps take a second look: the hottest places and their surroundings are hidden, and compared with
       what the rest of the image alone lets expect there, so that a defect cannot explain itself away.
    6. With `features`, a Gaussian at each position of their maps (PaDiM) scores the image as well; both scores
       become minus log probabilities by their cross-fitted normal ones and are added as squares.
    7. The cross-fitted scores set the threshold and give conformal p-values.

    Parameters
    ----------
    threshold : FalseAlarmRate or None, default=None
        When to alarm; None is ``FalseAlarmRate(0.01)`` or, with `contamination`, the score that this share of the
        training images exceeds for models that have not seen them; for the final one, which has, fewer of them do.
    contamination : float, default=0.0
        Share of the training images that may be defective: the strangest are left out of the fit. Defects that are
        alike and in one place are a kind of part, and stay.
    features : callable or torch module, default=None
        Turns a tensor (n, channels, height, width) of images, each of mean 0 and standard deviation 1, into
        maps (n, features, height, width) of any height and width, or a list of such maps. Grey images
        are repeated to three channels for a module whose first convolution wants them; a plain
        callable gets them as they are. Of more than 100 features 100 are drawn. The Gaussian of its
        maps is further evidence beside the pixels'. To be stored with pickle it must not be a lambda.
    augmentation : Augmentation or None, default=None
        Altered copies that the Gaussian of the pixels learns from as well; for images without a right way
        up. Memory and time grow with their number as with that of the images.
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
    shown_ : array (height, width, channels), bool
        Pixels that at least one training image shows.
    model_ : ImageModel
        Evidence of the pixels.
    extractor_, tails_ : FeatureModel and LogTail, or None
        Evidence of `features`, and how normal images are spread over both; None without.

    References
    ----------
    Defard et al. (2021), "PaDiM: a patch distribution modeling framework for anomaly detection and
    localization".

    Notes
    -----
    Memory and time grow with the square of the number of training images and linearly with their
    pixels: 2,000 images of 64 x 64 take half a minute on two cores, images with missing pixels two to three times as
    long.

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

    model_: ImageModel
    extractor_: FeatureModel | None
    tails_: LogTail | None

    stands_for: ClassVar = Detector.stands_for | {"augmentation": lambda _: Augmentation(horizontal=True)}
    # With 20 images three times as many alarm as asked for, with 40 hardly more.
    few: ClassVar = 40
    unit: ClassVar = "images"

    def __init__(
        self,
        threshold: Threshold | None = None,
        contamination: float = 0.0,
        features: Features | None = None,
        augmentation: Augmentation | None = None,
        device: str = "auto",
    ) -> None:
        self.threshold = threshold
        self.contamination = contamination
        self.features = features
        self.augmentation = augmentation
        self.device = device

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from good images.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
            Float or integer; NaN is a missing pixel. One that no image shows counts as missing later, too. In the order
            of taking: it tells which images may be alike, as frames of a film or several pictures of a part are, and
            must not judge each other. Where near-copies are shuffled, most of what is new alarms.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For fewer than 8 images, infinity, an image or a channel without any pixel, or `features` that give no
            maps.

        Warns
        -----
        UserWarning
            Below 40 images: more may alarm than asked for, with 20 about three times as many.
        """
        self._check_decision()
        if self.features is not None and not callable(self.features):
            raise ValueError(f"features must be a callable, a torch module or None, got {self.features!r}")
        check_augmentation(self.augmentation)
        images = read_images(X)
        if len(images) < 8:
            raise ValueError(f"X holds {len(images)} images; fit needs at least 8 good ones")
        refuse_empty(images)
        self._warn_of_few(len(images))
        self.shape_, self.shown_ = images.shape[1:], ~np.isnan(images).all(0)
        device = device_of(self.device)
        with tracking.run_of(self, X), pinned_defaults(), torch.no_grad():
            kept = np.ones(len(images), bool)
            for _ in range(TRIMMING if self.contamination else 0):
                # A defect that stays in explains its like: those dropped free the view on the rest.
                cross_fitted = self._fit_evidence(images[kept], device)
                strange = self._scores(images)
                strange[kept] = cross_fitted
                kept = strange <= np.quantile(strange, 1 - self.contamination)
            normal = self._fit_evidence(images[kept], device)
            training = self._scores(images) if self.contamination and self.threshold is None else None
            if training is not None:
                # Images look more normal to what was fitted to them than new ones will.
                training[kept] = normal
            self._decide(NormalScores.of_blocks([normal]), training)
        return self

    def explain(self, X: Any) -> ImageExplanation:
        """Say where each image is strange, and what it should have shown.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)

        Returns
        -------
        ImageExplanation
        """
        images = self._open(X)
        with pinned_defaults(), torch.no_grad():
            found = judged(self.model_.contrast, self.model_.priors, images)
            heat = self.model_.heat(found)
            expected, deviation = self.model_.expected(found)
            if self.extractor_ is not None:
                # Both are about 1 for good images.
                further = self.extractor_.heat(self._complete(images))
                heat = ((heat + np.where(seen(images), further, 0)) / 2).astype(np.float32)
        half = BAND * deviation
        shape = np.shape(X)
        bands = (expected, expected - half, expected + half)
        kind = float_type(np.asarray(X).dtype)
        return ImageExplanation(heat, *(band.reshape(shape).astype(kind) for band in bands))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def _shown(self, X: Any) -> NDArray[np.bool_]:
        return np.asarray(seen(self._open(X)).any((1, 2)))

    def _open(self, X: Any) -> Images:
        check_is_fitted(self)
        images = read_images(X, self.shape_[2])
        check_shape(images, self.shape_, "detector")
        # Of what no good image shows nobody knows what is normal.
        return images if self.shown_.all() else np.where(self.shown_, images, np.nan)

    def _fit_evidence(self, images: Images, device: torch.device) -> Scores:
        """Fit pixels and features; return cross-fitted scores."""
        self.model_, normal = fit_images(images, device, self.augmentation)
        self.extractor_, self.tails_ = None, None
        if self.features is None:
            return normal
        extractor, of_features = fit_features(self.features, self._complete(images), seen(images), device)
        both = np.stack([normal, of_features], 1)
        self.extractor_, self.tails_ = extractor, LogTail.fit(both)
        return _combined(self.tails_, both)

    def _complete(self, images: Images) -> Images:
        return np.concatenate([self.model_.completed(i)[0] for i in np.array_split(images, len(images))])

    def _scores(self, images: Images) -> Scores:
        with pinned_defaults(), torch.no_grad():
            of_pixels = self.model_.scores(images)
            if self.extractor_ is None or self.tails_ is None:
                return of_pixels
            of_features = feature_scores(self.extractor_.distance(self._complete(images)), seen(images))
            return _combined(self.tails_, np.stack([of_pixels, of_features], 1))

    def _strangeness(self, X: Any) -> Scores:
        images = self._open(X)
        empty = np.flatnonzero(~seen(images).any((1, 2)))
        if len(empty):
            tell(
                f"images {empty.tolist()[:10]} show no pixel in all channels: nothing of them is hot, and they pass as normal"
            )
        return self._scores(images)


def _combined(tails: LogTail, evidence: Scores) -> Scores:
    """Return the root of the sum of squares of minus log probabilities."""
    return np.asarray(np.sqrt((tails(evidence).astype(np.float64) ** 2).sum(1)))
