"""Fitting the evidence of images: cross-fitted residuals, their normal size, and what a second look adds.

Whether shifted training images join the prior is decided by defects drawn into good images that it has not
seen: where parts lie a pixel to the side from image to image they help, where all images are spanned already
they make it blind. So is whether texture is looked at: of cloth it tells most, of parts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from diffad.augmentation import Augmentation
from diffad.base.gate import admitted
from diffad.defects.contrast import Contrast
from diffad.defects.drawn import draw_defects
from diffad.defects.evidence import (
    BLOBS,
    FOLDS,
    SHIFTS,
    WIDEST,
    ImageModel,
    ImageRecipe,
    Images,
    Judged,
    OfTexture,
    Priors,
    blur,
    judged,
    learnt_from,
    seen,
    share_seen,
)
from diffad.defects.profile import Profile
from diffad.defects.second_look import SecondLook
from diffad.defects.texture import Texture, side_of
from diffad.images.fitting import complete_images
from diffad.images.folds import fold_of
from diffad.tails import LogTail

#: Folds, and images of each, that a second look is calibrated on: it costs a solve an image.
LOOKED_FOLDS, LOOKED = 4, 25
#: Groups of folds whose texture is learnt from the others: it has few parameters.
TEXTURE_FOLDS = 4
#: Parts of the images, every other of which judges whether shifted images help; defects drawn into each image of
#: theirs; and what shifts or texture must win in area under the ROC curve.
GATE_PARTS, GATE_DRAWN, GATE_WORTH = 4, 5, 0.015
#: Images whose maps are judged.
GATE_MAPS = 60
#: What residual and texture may count in scores, and their powers in maps; the first is without texture.
Use: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
SAYS, SHOWS = ((1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))
#: Least normal size of residuals, in an image's contrast: what no camera resolves.
LEAST_UNIT = 1e-4
#: Images that must show a pixel, at least, for units of its own, and what counts for none.
LEAST_SHOWN, LEAST_COUNT = 0.5, 1e-3
#: Side of a patch below which there is no texture to speak of.
LEAST_SIDE = 5


def fit_images(
    images: Images, device: torch.device, augmentation: Augmentation | None = None
) -> tuple[ImageModel, NDArray[np.float64]]:
    """Fit to good images (n, height, width, channels) and score each by a model that has not seen it."""
    contrast = Contrast.fit(images)
    recipe = ImageRecipe(device, augmentation)
    shifts, use = _gates(contrast, images, recipe)
    recipe = replace(recipe, shifts=shifts)
    fold = fold_of(len(images), FOLDS)
    n_folds = int(fold.max()) + 1
    unseen = [
        judged(contrast, Priors.fit(contrast, images[fold != f], recipe), images[fold == f]) for f in range(n_folds)
    ]
    residual, visible = _in_order([found.residual for found in unseen], fold), seen(images)
    model = ImageModel(contrast, Priors.fit(contrast, images, recipe), _scales(residual, visible))
    # Each image in units of the other folds': a few would pull their own units up, and the hottest places are means
    # over many pixels, of little spread.
    by_fold = [replace(model, scales=_scales(residual[fold != f], visible[fold != f])) for f in range(n_folds)]
    if not np.isnan(images).any():
        profiles = _in_order([model.profiles(found) for found in unseen], fold)
        by_fold = [replace(m, profile=Profile.fit(profiles[fold != f])) for f, m in enumerate(by_fold)]
        model = replace(model, profile=Profile.fit(profiles))
    if use is not None:
        complete = _complete(contrast, images, device)
        textures, whole = _textures(contrast, images, complete, fold, recipe, use)
        by_fold = [replace(m, texture=textures[f % len(textures)]) for f, m in enumerate(by_fold)]
        model = replace(model, texture=whole)
    evidence = _in_order([judge.evidence(found) for judge, found in zip(by_fold, unseen, strict=True)], fold)
    if use is not None and complete is not images:
        plain, visible = contrast.plain(complete), seen(complete)
        parts = [textures[f % len(textures)].evidence(plain[fold == f], visible[fold == f]) for f in range(n_folds)]
        evidence[:, -1] = np.maximum(evidence[:, -1], _in_order(parts, fold))
    model = replace(model, look=_second_look(model, images, fold, recipe), tails=LogTail.fit(evidence))
    return model, model.together(evidence)


def _complete(contrast: Contrast, images: Images, device: torch.device) -> Images:
    """Return images with missing pixels drawn from the texture around: beside holes its filters answer less."""
    if not np.isnan(images).any():
        return images
    centre, scale = contrast.moments(images)
    x = torch.from_numpy(((images - centre) / scale).astype(np.float32))
    return (complete_images(x, device).numpy() * scale + centre).astype(images.dtype)


def _in_order(parts: list[NDArray[Any]], fold: NDArray[np.int64]) -> NDArray[Any]:
    """Put what belongs to the images of each fold at their places."""
    result = np.empty((len(fold), *parts[0].shape[1:]), parts[0].dtype)
    for f, part in enumerate(parts):
        result[fold == f] = part
    return result


def _textures(
    contrast: Contrast, images: Images, complete: Images, fold: NDArray[np.int64], recipe: ImageRecipe, use: Use
) -> tuple[list[OfTexture], OfTexture]:
    """Return filters and units for every `TEXTURE_FOLDS`-th fold, which have seen none of these, and of all images.

    They are learnt from the completed images; the level of heat is that of the images as they are.
    """
    plain, visible = contrast.plain(complete), seen(complete)
    groups = [fold % TEXTURE_FOLDS == g for g in range(min(TEXTURE_FOLDS, int(fold.max()) + 1))]
    filters = [Texture.fit(learnt_from(contrast, complete[~group], recipe), recipe.device) for group in groups]
    sums = [_squares(t, plain[group], visible[group]) for group, t in zip(groups, filters, strict=True)]
    total, count = (np.sum(part, 0) for part in zip(*sums, strict=True))
    of_others = [(total - s, count - c) for s, c in sums]
    by_group = [OfTexture(t, _units(*m), *use) for t, m in zip(filters, of_others, strict=True)]
    heat, pixels = 0.0, 0
    for group, texture in zip(groups, by_group, strict=True):
        some = images[np.flatnonzero(group)[:LOOKED]]
        heat += float(texture.heat(contrast.plain(some), seen(some)).sum())
        pixels += int(seen(some).sum())
    of_all = Texture.fit(learnt_from(contrast, complete, recipe), recipe.device)
    return by_group, OfTexture(of_all, _units(total, count), *use, heat / max(pixels, 1) or 1.0)


def _scales(residual: Images, visible: NDArray[np.bool_]) -> dict[float, Images]:
    """Return the root mean square (height, width, channels) of residuals under each blob that images have room for.

    Over the images that show a pixel.
    """
    scales = {}
    for blob in [b for b in BLOBS if b <= max(1.0, WIDEST * min(residual.shape[1:3]))]:
        squares = (blur(residual, blob) ** 2 * visible[..., None]).sum(0)
        scales[blob] = _units(squares, (share_seen(visible, blob) * visible).sum(0)[..., None])
    return scales


def _squares(texture: Texture, plain: Images, visible: NDArray[np.bool_]) -> tuple[Images, Images]:
    """Return the sum of squared answers (height, width, widths, channels) and how many there were."""
    total = np.sum([(answers**2).sum(0) for _, answers in texture.answers(plain, visible)], 0)
    return total, visible.sum(0)[..., None, None]


def _units(squares: Images, count: NDArray[Any]) -> Images:
    """Return the root of mean squares (height, width, ...) per pixel, from sums over so many images, which may be 0."""
    size = np.sqrt(squares / np.maximum(count, LEAST_COUNT))
    # Neighbouring pixels have similar residuals; a few hundred images leave the estimate rough.
    width = (2, 2, *[0] * (size.ndim - 2))
    count = np.broadcast_to(count, size.shape).astype(np.float64)
    near = gaussian_filter(count, width)
    smooth = gaussian_filter(size * count, width) / np.maximum(near, LEAST_COUNT)
    shown = near >= LEAST_SHOWN
    if not shown.all():
        smooth = np.where(shown, smooth, np.median(smooth[shown]) if shown.any() else 1.0)
    return np.maximum(smooth, max(1e-3 * float(smooth.max()), LEAST_UNIT)).astype(np.float32)


class Trial(NamedTuple):
    """Images to learn from, good ones not among them, and the same with defects drawn into them."""

    train: Images
    good: Images
    drawn: Images
    where: NDArray[np.bool_]


def _trials(contrast: Contrast, images: Images) -> Iterator[Trial]:
    part, rng = np.arange(len(images)) * GATE_PARTS // len(images), np.random.default_rng(0)
    missing = np.isnan(images)
    if missing.any():
        # Nothing can be drawn from what is missing; there it counts as average, as it does in training.
        images = np.where(missing, contrast.moments(images)[0], images).astype(images.dtype)
    for held in range(0, GATE_PARTS, 2):
        train, good, lost = images[part != held], images[part == held], missing[part == held]
        drawn, where, _ = draw_defects(np.concatenate([good] * GATE_DRAWN), rng, pool=train)
        lost_again = np.concatenate([lost] * GATE_DRAWN)
        good[lost], drawn[lost_again] = np.nan, np.nan
        yield Trial(train, good, drawn, where & ~lost_again.any(3))


def _gates(contrast: Contrast, images: Images, recipe: ImageRecipe) -> tuple[bool, Use | None]:
    """Return whether shifted images join the prior, and how texture is used, by defects drawn into unseen images."""
    still, moved = [], []
    shiftable = (1 + len(SHIFTS)) * len(images) <= images[0].size  # or they would span whatever an image can show
    for trial in _trials(contrast, images):
        priors = Priors.fit(contrast, trial.train, replace(recipe, shifts=shiftable))
        still.append(DefectTrial.of(contrast, replace(priors, moved=priors.still), trial))
        if shiftable:
            moved.append(DefectTrial.of(contrast, priors, trial))
    shifts = shiftable and _shifts_help(still, moved)
    return shifts, _use_of_texture(moved if shifts else still, recipe)


def _shifts_help(still: list[DefectTrial], moved: list[DefectTrial]) -> bool:
    """Return whether defects stand out more with shifted images."""
    gains = [m.separation(_only_hottest(m)) - s.separation(_only_hottest(s)) for s, m in zip(still, moved, strict=True)]
    return float(np.mean(gains)) > GATE_WORTH


def _only_hottest(judge: DefectTrial) -> list[float]:
    """Return weights of the hottest places of the residual alone."""
    return [1.0, *[0.0] * (judge.good_evidence.shape[1] - 1)]


def _use_of_texture(judges: list[DefectTrial], recipe: ImageRecipe) -> Use | None:
    """Return how texture joins scores and maps, where drawn defects stand out more by it; None if in neither."""
    if side_of(judges[0].trial.good.shape) < LEAST_SIDE:
        return None
    says, shows = [], []
    for judge in judges:
        train = _complete(judge.model.contrast, judge.trial.train, recipe.device)
        both = judge.with_texture(Texture.fit(learnt_from(judge.model.contrast, train, recipe), recipe.device))
        says.append([both.separation(both.model.says(*ways)) for ways in SAYS])
        shows.append(both.sharpness())
    use = admitted(SAYS, np.mean(says, 0), GATE_WORTH), admitted(SHOWS, np.mean(shows, 0), GATE_WORTH)
    return None if use == (SAYS[0], SHOWS[0]) else use


@dataclass
class DefectTrial:
    """How well defects drawn into images that nothing was fitted to stand out."""

    trial: Trial
    good: Judged
    damaged: Judged
    model: ImageModel

    @classmethod
    def of(cls, contrast: Contrast, priors: Priors, trial: Trial) -> Self:
        """Hold the images of a trial against priors."""
        good, damaged = (judged(contrast, priors, images) for images in (trial.good, trial.drawn))
        return cls(trial, good, damaged, ImageModel(contrast, priors, _scales(good.residual, seen(good.images))))

    def with_texture(self, texture: Texture) -> DefectTrial:
        """Return a judge that looks at texture as well."""
        squares, count = _squares(texture, self.model.contrast.plain(self.trial.good), seen(self.trial.good))
        of_texture = OfTexture(texture, _units(squares, count))
        return replace(self, model=replace(self.model, texture=of_texture))

    def separation(self, says: Sequence[float]) -> float:
        """Return the area under the ROC curve of images by evidence of these weights."""
        tails = LogTail.fit(self.good_evidence)
        weighted = [tails(e).astype(np.float64) * says for e in (self.good_evidence, self.drawn_evidence)]
        scores = [np.linalg.norm(w, axis=1) for w in weighted]
        return float(roc_auc_score(np.repeat([0, 1], [len(s) for s in scores]), np.concatenate(scores)))

    def sharpness(self) -> list[float]:
        """Return the average precision of the pixels of some images by heat maps, for each way of `SHOWS`."""
        assert self.model.texture is not None
        some = np.unique(np.linspace(0, len(self.damaged.images) - 1, GATE_MAPS).astype(int))
        damaged = Judged(*(part[some] for part in self.damaged))
        residual, texture = (
            replace(self.model, texture=replace(self.model.texture, shows=alone)).heat(damaged)
            for alone in ((1.0, 0.0), (0.0, 1.0))
        )
        seen_there = seen(damaged.images)
        truth = self.trial.where[some][seen_there]
        if not truth.any():
            return [0.0] * len(SHOWS)
        return [
            float(average_precision_score(truth, (residual**own * texture**further)[seen_there]))
            for own, further in SHOWS
        ]

    @cached_property
    def good_evidence(self) -> NDArray[np.float64]:
        """Evidence (n, kinds) of good images."""
        return self.model.evidence(self.good)

    @cached_property
    def drawn_evidence(self) -> NDArray[np.float64]:
        """Evidence (n, kinds) of images with defects."""
        return self.model.evidence(self.damaged)


def _second_look(model: ImageModel, images: Images, fold: NDArray[np.int64], recipe: ImageRecipe) -> SecondLook:
    """Calibrate on good images of several folds, each seen by a prior that was fitted without its fold."""
    looks = []
    for f in np.unique(np.linspace(0, fold.max(), LOOKED_FOLDS).round()):
        unseen = replace(model, priors=Priors.fit(model.contrast, images[fold != f], recipe))
        some = images[fold == f][:LOOKED]
        looks.append((*unseen.looks(judged(unseen.contrast, unseen.priors, some)), seen(some)))
    heat, surprise, visible = (np.concatenate(part) for part in zip(*looks, strict=True))
    return SecondLook.fit(heat, surprise, visible)
