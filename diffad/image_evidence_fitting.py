"""Fitting the evidence of images: cross-fitted residuals, their normal size, and what a second look adds.

Whether shifted training images join the prior is decided by defects drawn into good images that it has not
seen: where parts lie a pixel to the side from image to image they help, where all images are spanned already
they make it blind.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from diffad.augmentation import Augmentation
from diffad.contrast import Contrast
from diffad.defects import inject
from diffad.image_evidence import BLOBS, SHIFTS, WIDEST, ImageModel, Images, Priors, Recipe, blur, residual_of, seen
from diffad.second_look import SecondLook
from diffad.tails import LogTail

#: Folds for cross-fitting: with few, images are judged by a model of much fewer images.
FOLDS = 10
#: Contiguous blocks of a fold. Neighbours may show the same part, and must not judge each other; nor must a fold
#: hold all images of a kind of part, as its only block could where pictures are sorted.
BLOCKS = 5
#: Folds, and images of each, that a second look is calibrated on: it costs a solve an image.
LOOKED_FOLDS, LOOKED = 4, 25
#: Parts of the images, every other of which judges whether shifted images help; defects drawn into each image of
#: theirs; and what shifts must win in area under the ROC curve.
GATE_PARTS, GATE_DRAWN, GATE_WORTH = 4, 5, 0.015


def fold_of(n: int) -> NDArray[np.int64]:
    """Return the fold of each of n images, for cross-fitting: blocks of neighbours, dealt out in turn."""
    folds = min(FOLDS, n)
    return np.asarray(np.arange(n) // max(1, n // (folds * BLOCKS)) % folds)


def fit_images(
    images: Images, device: torch.device, augmentation: Augmentation | None = None
) -> tuple[ImageModel, NDArray[np.float64]]:
    """Fit to good images (n, height, width, channels) and score each by a model that has not seen it."""
    contrast = Contrast.fit(images)
    recipe = Recipe(device, augmentation)
    recipe = replace(recipe, shifts=_shifts_help(contrast, images, recipe))
    fold = fold_of(len(images))
    n_folds = int(fold.max()) + 1
    residual = np.empty(images.shape, np.float32)
    for f in range(n_folds):
        inside = fold == f
        train = images[~inside] if n_folds > 1 else images
        residual[inside] = residual_of(contrast, Priors.fit(contrast, train, recipe), images[inside])
    model = ImageModel(contrast, Priors.fit(contrast, images, recipe), _scales(residual))
    tails = LogTail.fit(model.evidence(residual, seen(images)))
    model = replace(model, look=_second_look(model, images, fold, recipe), tails=tails)
    return model, model.scores(residual, seen(images))


def _scales(residual: Images) -> dict[float, Images]:
    """Return the root mean square (height, width, channels) of residuals under each blob that images have room for."""
    scales = {}
    for blob in [b for b in BLOBS if b <= max(1.0, WIDEST * min(residual.shape[1:3]))]:
        size = np.sqrt((blur(residual, blob) ** 2).mean(0))
        # Neighbouring pixels have similar residuals; a few hundred images leave the estimate rough.
        smooth = gaussian_filter(size, (2, 2, 0))
        scales[blob] = np.maximum(smooth, 1e-3 * max(float(smooth.max()), 1e-6)).astype(np.float32)
    return scales


def _shifts_help(contrast: Contrast, images: Images, recipe: Recipe) -> bool:
    """Return whether defects in images that the priors have not seen stand out more with shifted images."""
    if (1 + len(SHIFTS)) * len(images) > images[0].size:
        return False  # they would span whatever an image can show
    part, rng = np.arange(len(images)) * GATE_PARTS // len(images), np.random.default_rng(0)
    # In training a missing pixel counts as average.
    images = np.where(np.isnan(images), contrast.moments(images)[0], images)
    gains = []
    for held in range(0, GATE_PARTS, 2):
        train, good = images[part != held], images[part == held]
        drawn, _, _ = inject(np.concatenate([good] * GATE_DRAWN), rng, pool=train)
        priors = Priors.fit(contrast, train, recipe)
        still, moved = (_separation(contrast, replace(priors, moved=p), good, drawn) for p in vars(priors).values())
        gains.append(moved - still)
    return float(np.mean(gains)) > GATE_WORTH


def _separation(contrast: Contrast, priors: Priors, good: Images, drawn: Images) -> float:
    """Return the area under the ROC curve of drawn defects against good images."""
    residual = residual_of(contrast, priors, good)
    model = ImageModel(contrast, priors, _scales(residual))
    places = [model.evidence(residual, seen(good))[:, 0], model.evidence(model.residual(drawn), seen(drawn))[:, 0]]
    return float(roc_auc_score(np.repeat([0, 1], [len(p) for p in places]), np.concatenate(places)))


def _second_look(model: ImageModel, images: Images, fold: NDArray[np.int64], recipe: Recipe) -> SecondLook:
    """Calibrate on good images of several folds, each seen by a prior that was fitted without its fold."""
    looks = []
    for f in np.unique(np.linspace(0, fold.max(), LOOKED_FOLDS).round()):
        unseen = replace(model, priors=Priors.fit(model.contrast, images[fold != f], recipe))
        some = images[fold == f][:LOOKED]
        filled = unseen.completed(some)[0]
        looks.append(unseen.looks(unseen.left_over(filled, some), filled, seen(some)))
    heat, surprise = zip(*looks, strict=True)
    return SecondLook.fit(np.concatenate(heat), np.concatenate(surprise))
