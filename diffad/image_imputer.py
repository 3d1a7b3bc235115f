"""`ImageImputer`: fill, sharpen, denoise and generate images, with bands."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin, clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from diffad import tracking
from diffad.augmentation import Augmentation, check_augmentation
from diffad.base.arguments import check_count, check_share, check_within
from diffad.base.atomic import all_or_nothing
from diffad.base.defaults import pinned_defaults
from diffad.base.devices import device_of
from diffad.base.holds_parameters import HoldsParameters
from diffad.base.masked_arrays import unmasked
from diffad.base.telling import tell
from diffad.diffusion_vae import DiffusionVAE
from diffad.images.diffusion import ImageDiffusion
from diffad.images.fitting import calibrate, fit_prior, kinds_of
from diffad.images.input import (
    Images,
    centre_and_scale,
    check_guidance,
    check_shape,
    class_number,
    float_type,
    pixel_range,
    read_classes,
    read_images,
    refuse_empty,
)
from diffad.images.learning import learn_images
from diffad.images.tiles import Observed
from diffad.model import Sampler, as_sampler
from diffad.training import Training, check_training

Array = NDArray[np.floating]

PRIORS = ("gaussian", "field", None)
#: Images that a network needs to be trained, and judged on those held out.
LEAST_LEARNT = 8


class ImageImputer(TransformerMixin, HoldsParameters):
    """Fill holes in images, sharpen, denoise and generate them: one model, seen through what is known.

    1. Images are standardised per channel. The prior is a Gaussian: what the training images span, and
       a stationary field of what they leave over of each other.
    2. Hidden pixels, averages of pixels and noise are linear observations of it, so that the posterior
       mean, its spread and exact samples are closed forms.
    3. Given `training`, a U-Net learns what the prior leaves over of images it has not seen; held-out
       images decide per way of observing and noise level how much of it is admitted, possibly nothing.
    4. Bands are calibrated on held-out training images under holes, averages and noise.
    5. Images of another size than the training images share no position with them: they are covered by
       overlapping tiles under the stationary field, blended without seams.

    Parameters
    ----------
    prior : {"gaussian", "field", None}, default="gaussian"
        ``"gaussian"`` knows what is where in an image (up to 4,096 entries, 64 x 64 grey; beyond, it is
        the field). ``"field"`` knows only how pixels go together, at any place. None takes pixels to
        be independent.
    training : Training or None, default=None
        How to train a U-Net on what the prior leaves over of images of the training size; None is the
        prior alone. A step on 16 images of 64 x 64 takes about 0.3 s of one core, and a batch holds
        ``masks_per_batch * windows_per_mask`` images:
        ``Training(max_steps=300, masks_per_batch=4, evaluate_every=100)``.
    augmentation : Augmentation or None, default=None
        Altered copies that prior and network learn from as well; ``Augmentation(shift=1)`` for parts that
        never lie twice in the same place. Fitting takes two to three times as long with four copies.
    latent : bool or DiffusionVAE, default=False
        Draw new images (`generate`) by the latents of an autoencoder instead of pixel by pixel. True is a
        ``DiffusionVAE()`` with this estimator's sampler, device and seed; one that is fitted is reused as it was
        fitted (but not by `clone`, and so not by a grid search), another is trained, on X with its holes filled.
        As `latent_` it also encodes, decodes, interpolates between images and edits them. Filling and sharpening go
        by pixels.
    sampler : Sampler or str, default="angle"
        How to sample with a network; a string names the solver.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``; ``"auto"`` takes CUDA where it is.
    random_state : int, RandomState instance or None, default=0
        Seed of everything drawn; equal seeds repeat a run to the bit on one device.

    Attributes
    ----------
    model_ : ImageDiffusion
        Prior, network and gate.
    history_ : list of dict
        Step, seconds, training and held-out loss.
    network_gain_ : float
        Part of the held-out velocity error that the admitted network removes; 0 is the prior alone.
    classes_ : array
        Labels that `fit` was given.
    latent_ : DiffusionVAE or None
        The fitted autoencoder; None without `latent`.
    bands_ : Bands
        Calibration of `interval`.
    shape_ : tuple of int
        Height, width and channels of the training images.
    centre_, scale_ : array (channels,)
        Mean and standard deviation of the training pixels.
    lower_, upper_ : array (channels,)
        Between which values filled and denoised pixels and edges of bands are kept: black and white where training
        pixels pile up there, the range of whole numbers; else infinite. Draws may leave it, which cut would be too bright
        or too dark on the whole, and so may what has to agree with averages.
    flat_, dtype_ : bool, dtype
        Whether images came without an axis of channels, and the floats that they are given back in.
    seed_ : int
        Of everything random that comes after `fit`.

    Notes
    -----
    Calibrating bands solves systems of all pixels, whatever the number of images: 64 x 64 grey pixels take one or
    two minutes on two cores, and 2 GB. Beyond 4,096 entries the field alone is quicker. Bands are those of images of
    the training size; at other sizes they may hold less (.85 to .87 of scattered pixels and averages of a random field
    by ``"gaussian"``, by ``"field"`` .90). Scattered pixels, holes and averages of 2, 4 and 8 pixels a side have bands
    of their own; other factors take the nearest.

    References
    ----------
    Rue and Held (2005), "Gaussian Markov random fields"; Rasmussen and Williams (2006), "Gaussian
    processes for machine learning"; Lei et al. (2018), "Distribution-free predictive inference".

    Examples
    --------
    >>> import numpy as np
    >>> from diffad import ImageImputer
    >>> rng = np.random.default_rng(0)
    >>> waves = np.sin(np.arange(16) / 3 + 6 * rng.random((60, 1, 1)))
    >>> images = waves + np.cos(np.arange(16) / 4)[:, None] + 0.01 * rng.standard_normal((60, 16, 16))
    >>> imputer = ImageImputer().fit(images[:50])
    >>> holes = images[50:].copy()
    >>> holes[:, 4:10, 4:10] = np.nan
    >>> bool(np.abs(imputer.transform(holes) - images[50:]).max() < 0.1)
    True
    >>> imputer.super_resolve(images[50:, ::2, ::2], factor=2).shape, imputer.generate(3).shape
    ((10, 16, 16), (3, 16, 16))
    """

    stands_for: ClassVar = {
        "training": lambda _: Training(),
        "augmentation": lambda _: Augmentation(horizontal=True),
        "sampler": as_sampler,
    }

    def __init__(
        self,
        prior: str | None = "gaussian",
        training: Training | None = None,
        augmentation: Augmentation | None = None,
        latent: bool | DiffusionVAE = False,
        sampler: Sampler | str = "angle",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.prior = prior
        self.training = training
        self.augmentation = augmentation
        self.latent = latent
        self.sampler = sampler
        self.device = device
        self.random_state = random_state

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also of parameter objects; ``latent__beta`` where `latent` is True is of what it stands for.

        Parameters
        ----------
        **params
            By name.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For parameters of `latent` where it is False.
        """
        inner = {name: params.pop(name) for name in list(params) if name.startswith("latent__")}
        super().set_params(**params)
        if not inner:
            return self
        if self.latent is False:
            raise ValueError(f"{sorted(inner)} are parameters of an autoencoder, and latent is False; set latent=True")
        if self.latent is not True:
            return super().set_params(**inner)
        own = {name.removeprefix("latent__"): value for name, value in inner.items()}
        self.latent = self._usual_autoencoder().set_params(**own)
        return self

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from images that may have missing pixels themselves.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
            Float or integer; NaN is a missing pixel. In the order of taking: it tells which images may be alike, as
            frames of a film or several pictures of a part are, and must not judge each other. Where near-copies
            are shuffled, bands are too narrow for anything new.
        y : array-like of shape (n,), optional
            Class of each image, for `generate`; without a network it changes nothing.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For infinity, an image or a channel without any pixel, an unknown prior, or fewer images than an
            autoencoder needs.
        """
        if self.prior not in PRIORS:
            raise ValueError(f"prior must be one of {list(PRIORS)}, got {self.prior!r}")
        check_augmentation(self.augmentation)
        training = check_training(self.training)
        if not isinstance(self.latent, bool | DiffusionVAE):
            raise ValueError(f"latent must be True, False or a DiffusionVAE, got {self.latent!r}")
        images = read_images(X)
        refuse_empty(images)
        as_sampler(self.sampler)
        self.classes_, labels = read_classes(y, len(images))
        n_classes = len(self.classes_)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        device = device_of(self.device)
        with tracking.run_of(self, X) as on_progress, pinned_defaults(), torch.no_grad():
            self.shape_, self.seed_ = images.shape[1:], seed
            self.flat_, self.dtype_ = np.ndim(X) == 3, float_type(np.asarray(X).dtype)
            self.centre_, self.scale_ = centre_and_scale(images)
            self.lower_, self.upper_ = pixel_range(images, np.asarray(X).dtype)
            standard = torch.from_numpy(self._standardise(images))
            copies = self.augmentation
            model = ImageDiffusion(fit_prior(standard, self.prior, device, copies))
            self.model_ = model  # the prior fills holes before anything is learnt on top
            self.latent_ = self._autoencoder(X, images, y) if self.latent else None
            self.history_: list[dict[str, float]] = []
            self.network_gain_ = 0.0
            if training is not None and len(images) < LEAST_LEARNT:
                tell(f"no network was trained: X has {len(images)} images, training needs at least {LEAST_LEARNT}")
                training = None
            if training is not None:
                self.history_, self.network_gain_ = learn_images(
                    model, standard, labels, n_classes, self.prior, training, seed, on_progress, copies
                )
            self.bands_ = calibrate(model, standard, self.prior, seed, copies)
        return self

    def transform(self, X: Any) -> Array:
        """Return X with every missing pixel replaced by its posterior mean; seen pixels stay as they are.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
            Of any height and width.

        Returns
        -------
        array of X's shape
            float64 where X is, or holds whole numbers of more than 16 bits; else float32.
        """
        filled = self._mean(self._observed(X, 1, 0.0))
        return self._close(_keep_seen(filled, X), X)

    def super_resolve(self, X: Any, factor: int = 2) -> Array:
        """Return the expected images whose averages over ``factor x factor`` pixels are X.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
            NaN is an unknown average.
        factor : int, default=2

        Returns
        -------
        array of shape (n, height * factor, width * factor[, channels])
        """
        check_count(factor, "factor")
        return self._close(self._mean(self._observed(X, factor, 0.0)), X)

    def denoise(self, X: Any, sigma: float) -> Array:
        """Return the expected images behind X, which holds white noise; missing pixels are filled.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
        sigma : float
            Standard deviation of the noise, in X's units.

        Returns
        -------
        array of X's shape
            Of the dtype that `transform` gives.
        """
        check_within(sigma, "sigma", 0)
        return self._close(self._mean(self._observed(X, 1, sigma)), X)

    def sample(self, X: Any, n_samples: int = 20, factor: int = 1, sigma: float = 0.0) -> Array:
        """Draw images that agree with what is known.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
            NaN is unknown.
        n_samples : int, default=20
        factor : int, default=1
            X holds averages of ``factor x factor`` pixels, as in `super_resolve`.
        sigma : float, default=0.0
            X holds white noise of this standard deviation, as in `denoise`.

        Returns
        -------
        array of shape (n_samples, n, height * factor, width * factor[, channels])
            Pixels that are known without noise are repeated unchanged.
        """
        check_count(n_samples, "n_samples")
        observed = self._observed(X, factor, sigma)
        draws = np.empty((n_samples, len(observed.values), *observed.shape), np.float32)
        with pinned_defaults(), torch.no_grad():
            seen: Counter[bytes] = Counter()
            for i, one in enumerate(_each(observed)):
                digest = hashlib.sha256(one.values.numpy().tobytes()).digest()
                generator = self._generator(digest, seen[digest])
                seen[digest] += 1
                draws[:, i] = self.model_.sample(one, n_samples, as_sampler(self.sampler), generator).numpy()
        result = self._restore(draws)
        return self._close(_keep_seen(result, X) if observed.exact else result, X)

    def interval(self, X: Any, coverage: float = 0.9, factor: int = 1, sigma: float = 0.0) -> tuple[Array, Array]:
        """Return the lower and upper edge of calibrated bands; they close on pixels known without noise.

        Parameters
        ----------
        X, factor, sigma
            As in `sample`.
        coverage : float, default=0.9
            Share of the pixels that the band is to hold.

        Returns
        -------
        lower, upper : array of the shape and dtype of one of the images that `sample` draws
        """
        check_share(coverage, "coverage")
        observed = self._observed(X, factor, sigma)
        with pinned_defaults(), torch.no_grad():
            centre, scale = self.model_.mean(observed, with_scale=True)
        assert scale is not None
        kind = kinds_of(self.model_.prior, observed, scale)
        edges = []
        for q in ((1 - coverage) / 2, (1 + coverage) / 2):
            edge = self._restore(centre.numpy() + scale.numpy() * self.bands_.quantile(q, kind))
            edge = edge if factor > 1 else self._in_range(edge)
            edges.append(self._close(_keep_seen(edge, X) if observed.exact else edge, X))
        return edges[0], edges[1]

    def generate(self, n: int = 1, shape: tuple[int, int] | None = None, y: Any = None, guidance: float = 1.0) -> Array:
        """Draw new images.

        Parameters
        ----------
        n : int, default=1
        shape : (height, width), optional
            Instead of the training images'; then positions mean nothing, only textures do.
        y : label, optional
            Class of the images, one of `classes_`; only a network knows classes, with `latent` that of its latents.
        guidance : float, default=1.0
            How much more than the class says is done for it (classifier-free guidance).

        Returns
        -------
        array of shape (n, height, width[, channels])
            float64 where the training images were, or had numbers of more than 16 bits, else float32.
        """
        check_is_fitted(self)
        check_count(n, "n")
        if shape is not None and np.shape(shape) != (2,):
            raise ValueError(f"shape must be (height, width) in pixels, got {shape!r}")
        height, width = self.shape_[:2] if shape is None else shape
        for side in (height, width):
            check_count(side, "shape")
        check_guidance(guidance)
        if self.latent_ is not None:
            if (height, width) != self.latent_.shape_[:2]:
                raise ValueError(f"latents are of images of {self.latent_.shape_[:2]} pixels, got shape={shape!r}")
            drawn = self.latent_.generate(n, y, guidance).reshape(n, *self.shape_).astype(self.dtype_)
            return drawn[..., 0] if self.flat_ else drawn
        with pinned_defaults(), torch.no_grad():
            nothing = Observed(torch.full((1, height, width, self.shape_[2]), torch.nan))
            generator = torch.Generator().manual_seed(self.seed_)
            label = None if y is None else class_number(self.classes_, y)
            if y is not None:
                self.model_.warn_if_classless()
            images = self.model_.sample(nothing, n, as_sampler(self.sampler), generator, label, guidance).numpy()
        images = self._restore(images).astype(self.dtype_)
        return images[..., 0] if self.flat_ else images

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _usual_autoencoder(self) -> DiffusionVAE:
        return DiffusionVAE(sampler=self.sampler, device=self.device, random_state=self.random_state)

    def _autoencoder(self, X: Any, images: Images, y: Any) -> DiffusionVAE:
        given = self.latent
        if isinstance(given, bool):
            given = self._usual_autoencoder()
        if hasattr(given, "network_"):
            check_shape(images, given.shape_, "autoencoder")
            if y is not None and not np.array_equal(given.classes_, self.classes_):
                raise ValueError(
                    f"y has the classes {self.classes_.tolist()}, the autoencoder in latent was fitted on "
                    f"{given.classes_.tolist()}; leave y out, or give one that is not fitted"
                )
            self.classes_ = given.classes_
            return copy(given)  # a later fit of the caller's must not change this one
        return clone(given).fit(self.transform(X) if np.isnan(images).any() else X, y)

    def _open(self, X: Any) -> Images:
        check_is_fitted(self)
        images = read_images(X, self.shape_[2])
        if images.shape[3] != self.shape_[2]:
            raise ValueError(f"X has {images.shape[3]} channels, the imputer was fitted on {self.shape_[2]}")
        return images

    def _observed(self, X: Any, factor: int, sigma: float) -> Observed:
        check_count(factor, "factor")
        check_within(sigma, "sigma", 0)
        values = torch.from_numpy(self._standardise(self._open(X)))
        return Observed(values, int(factor), torch.from_numpy(sigma / self.scale_) if sigma else None)

    def _mean(self, observed: Observed) -> NDArray[np.float64]:
        with pinned_defaults(), torch.no_grad():
            mean = self._restore(self.model_.mean(observed)[0].numpy())
        # Clipped, averages would no longer be those observed.
        return mean if observed.factor > 1 else self._in_range(mean)

    def _standardise(self, images: Images) -> Images:
        return ((images - self.centre_) / self.scale_).astype(np.float32)

    def _restore(self, standard: NDArray[Any]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = standard * self.scale_ + self.centre_
        return result

    def _in_range(self, images: NDArray[Any]) -> NDArray[Any]:
        return images.clip(self.lower_, self.upper_)

    def _close(self, images: NDArray[Any], X: Any) -> Array:
        """Give images (..., channels) the float dtype that holds X's values and, where X has none, no channel axis."""
        return (images[..., 0] if np.ndim(X) == 3 else images).astype(float_type(np.asarray(X).dtype))

    def _generator(self, digest: bytes, turn: int) -> torch.Generator:
        """Return the randomness of one image: it depends on the image, not on those beside it; equals take turns."""
        return torch.Generator().manual_seed((self.seed_ + turn + int.from_bytes(digest[:7], "big")) % 2**63)


def _each(observed: Observed) -> Iterator[Observed]:
    for i in range(len(observed.values)):
        yield Observed(observed.values[i : i + 1], observed.factor, observed.noise)


def _keep_seen(images: NDArray[Any], X: Any) -> NDArray[Any]:
    """Return images (..., n, height, width, channels) with the pixels that X shows, to the bit."""
    given = np.asarray(unmasked(X)).reshape(images.shape[-4:])
    return np.where(np.isnan(given), images, given)
