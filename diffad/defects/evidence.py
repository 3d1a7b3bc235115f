"""Evidence that a place in an image is not normal: what the Gaussian of all good images leaves over.

Residual ``r P (x - mean)`` -> blob filters (the matched filters of small spots) -> in units of
cross-fitted normal residuals, per pixel -> squared, smoothed, the largest of all blobs: a heat map, which a
second look at its hottest places sharpens (:mod:`diffad.defects.second_look`).  Where images share a texture and not what
lies where, its matched filters (:mod:`diffad.defects.texture`) join in.  The image's score is the top per cent
of a finer map that is taken relative to the texture around and to the image's own; its constants were
chosen by defects drawn into held-out good images.  What is strange all over is taken for texture there, so
the whole image's residual is evidence of its own, and so is how rough it is, too little as well
(:mod:`diffad.defects.profile`); all become minus log probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from diffad.augmentation import Augmentation, enlarged
from diffad.defects.contrast import Contrast
from diffad.defects.profile import Profile, profile_of
from diffad.defects.second_look import SecondLook, surprises
from diffad.defects.texture import Texture
from diffad.priors.span import SpanPrior
from diffad.tails import LogTail

Images = NDArray[np.floating]

#: Widths of the blob filters, in pixels, and the part of an image's shorter side that the widest may have.
BLOBS, WIDEST = (0.0, 1.0, 2.0, 4.0, 8.0), 1 / 8
#: How many of them make an image's score, and tell what is worth a second look: the wider answer to shading, and
#: good images are shaded as well.
SHARP, FINE = 2, 3
#: Width over which the squared residual is averaged: for the image's score; for maps, where a wide blob's is as wide
#: as this part of it (found by defects drawn into held-out good images, as the scales of maps were).
SMOOTH_SCORE, SMOOTH, SMOOTH_WIDE = 1.0, 1.5, 0.75
#: How far a map is divided by the image's own median: rough images are strange everywhere.
RELATIVE = 0.6
#: How far a map is divided by the texture around, the unfiltered squared residual averaged over this width:
#: a defect stands out from noise in the filtered residuals, where a rough place is rough in all.
LOCAL, AROUND = 0.8, 5.0
#: What minus the log probability of the whole image's residual counts beside that of its hottest places.
WHOLE = 0.25
#: What that of its profile counts.
PROFILE = 0.25
#: Least weight of the distance to the nearest good image.
SMALL = 0.1
#: Least texture around, in units of normal ones.
CALM = 0.1
#: Share of an image's pixels that make its score.
TOP = 0.01
#: Evidence below which nothing is strange, where good images have about 1.
NOTHING = 0.1
#: Distance from a good image, in its contrast, below which there is none.
RESOLVED = 1e-3
#: Shifts by which a good image stays good, in pixels: no camera sees a part twice at the same place. Training
#: images so shifted span images as well, much like the tangents of Simard et al. (1993).
SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))
#: Training images that are shifted, evenly spread: cost grows with the square of the rows.
MOST_SHIFTED = 500
#: Folds for cross-fitting: with few, images are judged by a model of much fewer images.
FOLDS = 10
#: Images that pass at once.
CHUNK = 256


@dataclass(frozen=True)
class ImageRecipe:
    """How to fit priors.

    Attributes
    ----------
    device : torch.device
    augmentation : Augmentation or None
        Altered copies that are as good as their originals.
    shifts : bool
        Shifted images span as well.
    """

    device: torch.device
    augmentation: Augmentation | None
    shifts: bool = True


def learnt_from(contrast: Contrast, images: Images, recipe: ImageRecipe) -> torch.Tensor:
    """Return images as priors and texture learn from them, and altered copies."""
    return enlarged(torch.from_numpy(contrast.plain(images)), recipe.augmentation)


@dataclass(frozen=True)
class Priors:
    """Gaussians of what good images span.

    Attributes
    ----------
    still : SpanPrior
        Of the images as they are: fills missing pixels and looks twice, which cost a solve of its rows an image.
    moved : SpanPrior
        Of the images and, where that helps, of shifted ones: what it leaves over is evidence.
    """

    still: SpanPrior
    moved: SpanPrior

    @classmethod
    def fit(cls, contrast: Contrast, images: Images, recipe: ImageRecipe) -> Priors:
        """Fit to good images (n, height, width, channels) and altered copies of them."""
        x = learnt_from(contrast, images, recipe)
        still = SpanPrior.fit(x.flatten(1).to(recipe.device))
        if np.isnan(images).any() and locality(images.shape[1:3]):
            # What is missing counted as average so far: drawn given what is seen it varies as it does in whole images.
            # The distance to the nearest good image, which counts for small ones, would be one to draws.
            x = enlarged(torch.from_numpy(contrast.drawn(still, images)), recipe.augmentation)
            still = SpanPrior.fit(x.flatten(1).to(recipe.device))
        if not recipe.shifts:
            return cls(still, still)
        some = x[torch.linspace(0, len(x) - 1, min(len(x), MOST_SHIFTED)).long()]
        both = torch.cat([x, *(_shifted(some, *offset) for offset in SHIFTS)])
        # An image and its shifted copies count once.
        ridge = still.ridge / (1 + len(SHIFTS))
        return cls(still, SpanPrior.fit(both.flatten(1).to(recipe.device), ridge))


class Judged(NamedTuple):
    """Images and what priors make of them.

    Attributes
    ----------
    images : array (n, height, width, channels)
    filled : array (n, height, width, channels)
        In units of their contrast, missing pixels filled.
    residual : array (n, height, width, channels)
        What the priors leave over; missing pixels are 0.
    centre, scale : array (n, 1, 1, channels)
        Of the images: ``filled * scale + centre`` is in their units.
    distance : array (n,)
        Root mean square of what is seen from the nearest good image; 0 where images are too large for it to tell
        anything.
    """

    images: Images
    filled: Images
    residual: Images
    centre: Images
    scale: Images
    distance: NDArray[np.float64]


def judged(contrast: Contrast, priors: Priors, images: Images) -> Judged:
    """Hold images against priors."""
    filled, centre, scale = contrast.completed(priors.still, images)
    x = torch.from_numpy(filled.reshape(len(filled), -1)).to(priors.still.mean.device)
    left = priors.moved.residual(x).cpu().numpy().reshape(filled.shape)
    distance = np.zeros(len(images))
    if _small(images.shape[1:3]):
        visible = torch.from_numpy(~np.isnan(images).reshape(len(images), -1)).to(x.device)
        distance = priors.still.distance(x, visible).cpu().numpy()
    left = np.where(np.isnan(images), 0, left).astype(np.float32)
    return Judged(images, filled, left, centre, scale, distance)


@dataclass(frozen=True)
class OfTexture:
    """Matched filters, the normal size of their answers, and how they are used.

    Attributes
    ----------
    filters : Texture
    units : array (height, width, widths, channels)
        Root mean square of normal answers.
    says : (float, float)
        What the hottest places of residual and of texture count in an image's score.
    shows : (float, float)
        Powers of the heat of either in a map.
    level : float
        Mean of the heat of good images.
    """

    filters: Texture
    units: Images
    says: tuple[float, float] = (1.0, 1.0)
    shows: tuple[float, float] = (0.5, 0.5)
    level: float = 1.0

    def evidence(self, plain: Images, visible: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return how strange the hottest places of images (n,) are."""
        maps = [e.mean(3) for _, e in self.filters.energies(plain, visible, self.units)]
        return top(np.concatenate(maps), visible)

    def heat(self, plain: Images, visible: NDArray[np.bool_]) -> Images:
        """Return heat maps (n, height, width), about 1 on average over good images."""
        maps = [e.max(3) for _, e in self.filters.energies(plain, visible, self.units)]
        return np.asarray(np.concatenate(maps) * visible / self.level, np.float32)


@dataclass(frozen=True)
class ImageModel:
    """Priors, contrast and the normal size of residuals.

    Attributes
    ----------
    contrast : Contrast
    priors : Priors
    scales : dict of float to array (height, width, channels)
        Root mean square of normal residuals per pixel, by width of the blob.
    texture : OfTexture or None
    profile : Profile or None
        None where good images had missing pixels.
    look : SecondLook
    tails : LogTail or None
        Of normal `evidence`; None before it is calibrated.
    """

    contrast: Contrast
    priors: Priors
    scales: dict[float, Images]
    texture: OfTexture | None = None
    profile: Profile | None = None
    look: SecondLook = field(default_factory=SecondLook)
    tails: LogTail | None = None

    def completed(self, images: Images) -> tuple[Images, Images, Images]:
        """Return images in units of their contrast, missing pixels filled, with their centre and scale."""
        return self.contrast.completed(self.priors.still, images)

    def evidence(self, judged: Judged) -> NDArray[np.float64]:
        """Return how strange the hottest places of images are, relative to texture, and the whole of them; (n, kinds).

        Of small images the distance to the nearest good one is evidence, too, as is the profile of whole ones; last come
        the hottest places of the texture, where it is looked at.
        """
        images, residual = judged.images, judged.residual
        visible = seen(images)
        energies = self._energies(residual, SHARP)
        maps = sum(_smoothed(e, SMOOTH_SCORE) for e in energies) / SHARP
        # Missing pixels say nothing of the texture around.
        near = _smoothed(visible, AROUND)
        around = _smoothed(energies[0] * visible, AROUND) / np.maximum(near, 1e-3)
        local = locality(visible.shape[1:])
        # Nor is there a texture to compare with where no pixel is seen near.
        relative = np.where(near > 1e-3, maps / (around + CALM) ** (local * LOCAL), 0).astype(np.float32)
        whole = (energies[0] * visible).sum((1, 2)) / np.maximum(visible.sum((1, 2)), 1)
        hottest = top(relative_to_texture(relative, visible, local * RELATIVE), visible)
        # Where all training images are the same, nothing but rounding must tell one more of them from these.
        kinds = [np.maximum(hottest, NOTHING), np.maximum(whole, NOTHING)]
        if _small(visible.shape[1:]):
            kinds.append(np.maximum(judged.distance, RESOLVED))
        if self.profile is not None:
            # What fills missing pixels is quiet: images that have some would be strange for it.
            whole_images = visible.all((1, 2))
            kinds.append(
                np.where(whole_images, np.maximum(self.profile.distance(self.profiles(judged)), NOTHING), NOTHING)
            )
        if self.texture is not None:
            kinds.append(np.maximum(self.texture.evidence(self.contrast.plain(images), visible), NOTHING))
        return np.stack(kinds, 1)

    def profiles(self, judged: Judged) -> NDArray[np.float64]:
        """Return how rough images are and how bright their channels beside each other, (n, entries)."""
        middle, size = self.contrast.typical
        # A channel that is constant as a rule is no measure of light.
        varies = size > 0
        brightness = (judged.centre[:, 0, 0] - middle)[:, varies] / size[varies]
        mean = self.priors.still.mean.cpu().numpy().reshape(judged.filled.shape[1:])
        return profile_of(brightness, [blur(judged.filled - mean, width) for width in self.scales])

    def says(self, of_residual: float, of_texture: float) -> list[float]:
        """Return what each kind of `evidence` counts, given what the hottest places of residual and texture do."""
        small = _small(self.scales[0.0].shape[:2])
        beside = [*[small] * (small > 0), *[PROFILE] * (self.profile is not None)]
        return [of_residual, WHOLE, *beside, *[of_texture] * (self.texture is not None)]

    def scores(self, images: Images) -> NDArray[np.float64]:
        """Return how strange images (n,) are, all in all."""
        chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
        return self.together(np.concatenate([self.evidence(judged(self.contrast, self.priors, c)) for c in chunks]))

    def together(self, evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the root of the sum of squared minus log probabilities of all evidence (n, kinds)."""
        assert self.tails is not None, "evidence is not calibrated"
        says = self.says(*(self.texture.says if self.texture else (1.0, 0.0)))
        return np.asarray(np.linalg.norm(self.tails(evidence).astype(np.float64) * says, axis=1))

    def heat(self, judged: Judged) -> Images:
        """Return heat maps (n, height, width) of images."""
        visible = seen(judged.images)
        of_residual, of_texture = self.texture.shows if self.texture else (1.0, 0.0)
        heat = np.ones(visible.shape, np.float32)
        if of_residual:
            heat *= self.look(*self.looks(judged)) ** of_residual
        if self.texture and of_texture:
            heat *= self.texture.heat(self.contrast.plain(judged.images), visible) ** of_texture
        return np.asarray(heat * visible)

    def expected(self, judged: Judged) -> tuple[Images, Images]:
        """Return what pixels should show given all others, and by how much normal ones differ from it.

        By the texture where maps are of the texture alone.
        """
        images = judged.images
        if self.texture is not None and not self.texture.shows[0]:
            middle, size = self.contrast.moments(images)
            found, deviation = self.texture.filters.expected(self.contrast.plain(images), seen(images))
            return found * size + middle, deviation * self.texture.units[:, :, 0] * size
        alone = self.priors.moved.singled_out.cpu().numpy().reshape(images.shape[1:])
        expected = (judged.filled - judged.residual / alone) * judged.scale + judged.centre
        return expected, self.scales[0] / alone * judged.scale

    def looks(self, judged: Judged) -> tuple[Images, Images]:
        """Return the heat at first sight and the surprise at a second look, (n, height, width) each."""
        visible, energies = seen(judged.images), self._energies(judged.residual)
        fine: Images = np.mean([_smoothed(e, SMOOTH) for e in energies[:FINE]], 0)
        hot = relative_to_texture(fine, visible)
        # A defect has the scale at which it stands out most (Lindeberg 1998).  Not relative to anything: inside
        # a large one the texture around is the defect's own.
        widths = [max(SMOOTH, SMOOTH_WIDE * blob) for blob in self.scales]
        heat: Images = np.max([_smoothed(e, width) for e, width in zip(energies, widths, strict=True)], 0)
        return heat, surprises(self.priors.still, judged.filled, visible, hot)

    def _energies(self, residual: Images, n_blobs: int = len(BLOBS)) -> list[Images]:
        some = list(self.scales.items())[:n_blobs]
        return [((blur(residual, b) / s) ** 2).mean(3) for b, s in some]


def locality(shape: tuple[int, ...]) -> float:
    """Return how far an image is larger than what lies around a place, 0 to 1: without surroundings no texture."""
    return 1 - min(1.0, (2 * AROUND / min(shape)) ** 2)


def _small(shape: tuple[int, ...]) -> float:
    """Return what the distance to the nearest good image counts; of large images it tells nothing about a spot."""
    small = 1 - locality(shape)
    return small if small >= SMALL else 0.0


def relative_to_texture(maps: Images, visible: NDArray[np.bool_], relative: float = RELATIVE) -> Images:
    """Divide maps (n, height, width) by a power of their own median over visible pixels."""
    # An image without any pixel has no texture: its map is 0 anyway.
    middle = np.array([np.median(m[s]) if s.any() else 1.0 for m, s in zip(maps, visible, strict=True)])
    return np.asarray(maps / np.maximum(middle[:, None, None], 1e-6) ** relative, dtype=np.float32)


def top(maps: Images, visible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of the hottest places of each map, as many as `TOP` of its visible pixels."""
    flat = maps.reshape(len(maps), -1)
    count = np.maximum(1, (TOP * visible.reshape(len(maps), -1).sum(1)).astype(int))
    ordered = -np.sort(-flat, axis=1)[:, : count.max(initial=1)]
    first = np.arange(ordered.shape[1]) < count[:, None]
    return np.asarray((ordered * first).sum(1) / count, dtype=np.float64)


def _shifted(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Move images (n, height, width, channels) by whole pixels; edges are repeated."""
    rows, columns = (torch.arange(n) for n in images.shape[1:3])
    moved = images[:, (rows + down).clamp(0, len(rows) - 1)]
    return moved[:, :, (columns + right).clamp(0, len(columns) - 1)]


def _smoothed(maps: NDArray[Any], width: float) -> Images:
    return blur(np.asarray(maps, np.float32)[..., None], width)[..., 0]


def share_seen(visible: NDArray[np.bool_], width: float) -> Images:
    """Return which part of the energy of a blob's answer visible pixels (n, height, width) have, at least a tenth."""
    if visible.all():
        return np.ones(visible.shape, np.float32)
    return np.asarray(np.maximum(_smoothed(visible, width / 2**0.5), 0.1))


def blur(images: Images, width: float) -> Images:
    """Smooth images (n, height, width, channels) by a Gaussian of `width` pixels; 0 leaves them."""
    return np.asarray(gaussian_filter(images, (0, width, width, 0))) if width else images


def seen(images: Images) -> NDArray[np.bool_]:
    """Return which pixels of images (n, height, width, channels) were observed in all channels."""
    return np.asarray(~np.isnan(images).any(3))
