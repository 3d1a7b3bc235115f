"""`DiffusionVAE`: a variational autoencoder of images and a diffusion model of its latents."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diffad import tracking
from diffad.base.arguments import check_count, check_within, is_number
from diffad.base.atomic import all_or_nothing
from diffad.base.defaults import pinned_defaults
from diffad.base.devices import device_of
from diffad.base.holds_parameters import HoldsParameters
from diffad.base.masked_arrays import unmasked
from diffad.images.autoencoding import learn_autoencoder
from diffad.images.diffusion import ImageDiffusion
from diffad.images.fitting import fit_prior
from diffad.images.input import (
    Images,
    centre_and_scale,
    check_guidance,
    check_shape,
    class_number,
    float_type,
    read_classes,
    read_images,
    refuse_empty,
)
from diffad.images.learning import learn_images
from diffad.images.tiles import Observed
from diffad.model import Sampler, as_sampler
from diffad.training import Training, check_training

Array = NDArray[np.float32]
Decoded = NDArray[np.floating]

#: How the autoencoder is trained unless told otherwise.
VAE_TRAINING = Training(max_steps=1500, masks_per_batch=4, windows_per_mask=4)
#: Images that pass the autoencoder at once.
CHUNK = 256


class DiffusionVAE(TransformerMixin, HoldsParameters):
    """Generate, interpolate and edit images in the latent space of an autoencoder.

    1. A small convolutional autoencoder is trained on standardised images, with the divergence of its
       latents from N(0, 1) as a light penalty.
    2. Its latents are images of few pixels: the model of :class:`ImageImputer` learns them, the Gaussian
       of all training latents at once (of up to 4,096 entries: images of 128 x 128; beyond, a field that knows no
       place) and, given `diffusion`, a U-Net on top.
    3. New images are decoded samples of it; between two images lie the decoded points of an arc between
       their latents; the difference of two classes' mean latents is a direction to edit along.

    Parameters
    ----------
    latent : int, default=4
        Channels of a latent; it has a quarter of the height and width of an image, rounded up.
    beta : float, default=1e-3
        Weight of the divergence: more makes latents more normal and images blurred.
    adversarial : float, default=0.0
        Weight of passing for real before a network that learns to tell patches of images from decoded ones.
        On magnetic tiles .1 brought back a third of the grain that decoding loses, at a tenth more error; a
        step takes longer. 0 trains no such network.
    training : Training or "auto", default="auto"
        How to train the autoencoder; ``"auto"`` is ``Training(max_steps=1500, masks_per_batch=4,
        windows_per_mask=4, learning_rate=2e-3)``: 16 images a step.
    diffusion : Training or None, default=None
        How to train a network on the latents; None leaves them to the Gaussian.
    sampler : Sampler or str, default="angle"
        How to sample latents with a network.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``; ``"auto"`` takes CUDA where it is.
    random_state : int, RandomState instance or None, default=0
        Seed of training and sampling.

    Attributes
    ----------
    network_ : VAE
    latents_ : ImageDiffusion
        Model of the standardised latents.
    history_, latent_history_ : list of dict
        Step, seconds, training and held-out loss of the autoencoder and of the network on its latents.
    network_gain_ : float
        Part of the held-out velocity error that the network on latents removes; 0 is the Gaussian alone.
    classes_ : array
        Labels that `fit` was given.
    shape_ : tuple of int
        Height, width and channels of the images.
    centre_, scale_ : array (channels,)
        Mean and standard deviation of the training pixels.
    latent_centre_, latent_scale_ : array (latent,)
        The same of the latents.
    class_means_ : list of array
        Mean latent of each class.
    flat_, dtype_ : bool, dtype
        Whether images came without an axis of channels, and the floats that they are given back in.
    seed_ : int
        Of everything random that comes after `fit`.

    References
    ----------
    Kingma and Welling (2014), "Auto-encoding variational Bayes"; Goodfellow et al. (2014), "Generative adversarial
    nets"; Rombach et al. (2022), "High-resolution
    image synthesis with latent diffusion models".

    Examples
    --------
    >>> import numpy as np
    >>> from diffad import DiffusionVAE, Training
    >>> images = np.sin(np.arange(8) / 3 + 6 * np.random.default_rng(0).random((40, 8, 1)))
    >>> model = DiffusionVAE(training=Training(max_steps=5, masks_per_batch=2)).fit(images)
    >>> model.encode(images[:3]).shape, model.generate(2).shape, model.interpolate(images[0], images[1], 5).shape
    ((3, 2, 2, 4), (2, 8, 8), (5, 8, 8))
    """

    stands_for: ClassVar = {
        "training": lambda _: VAE_TRAINING,
        "diffusion": lambda _: Training(),
        "sampler": as_sampler,
    }

    def __init__(
        self,
        latent: int = 4,
        beta: float = 1e-3,
        adversarial: float = 0.0,
        training: Training | str = "auto",
        diffusion: Training | None = None,
        sampler: Sampler | str = "angle",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.latent = latent
        self.beta = beta
        self.adversarial = adversarial
        self.training = training
        self.diffusion = diffusion
        self.sampler = sampler
        self.device = device
        self.random_state = random_state

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from complete images.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
        y : array-like of shape (n,), optional
            Class of each image, for `generate` and `direction`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For missing pixels, fewer than 8 images, or parameters out of range.
        """
        training = check_training(self.training, default=VAE_TRAINING)
        if training is None:
            raise ValueError(
                "training must be 'auto' or a Training with max_steps of at least 1: an autoencoder is nothing without, "
                f"got {self.training!r}"
            )
        check_training(self.diffusion, "diffusion")
        check_count(self.latent, "latent")
        check_within(self.beta, "beta", 0)
        check_within(self.adversarial, "adversarial", 0)
        images = read_images(X)
        refuse_empty(images)
        self._refuse_missing(images)
        if len(images) < 8:
            raise ValueError(f"X holds {len(images)} images; fit needs at least 8")
        if self.adversarial and min(images.shape[1:3]) < 2:
            raise ValueError(
                f"adversarial compares patches, for which images must be at least 2 pixels high and wide, got "
                f"(height, width) {images.shape[1:3]}; use adversarial=0"
            )
        as_sampler(self.sampler)
        self.classes_, labels = read_classes(y, len(images))
        self.shape_, self.flat_ = images.shape[1:], np.ndim(X) == 3
        self.dtype_ = float_type(np.asarray(X).dtype)
        self.centre_, self.scale_ = centre_and_scale(images)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with tracking.run_of(self, X, training) as on_progress, pinned_defaults():
            x = self._tensor(images, device_of(self.device))
            self.network_, self.history_ = learn_autoencoder(
                x, self.latent, self.beta, self.adversarial, training, seed, on_progress
            )
            self._fit_latents(self.encode(X), labels, seed)
        return self

    def _fit_latents(self, latents: Array, labels: Tensor, seed: int) -> None:
        self.latent_centre_, self.latent_scale_ = latents.mean((0, 1, 2)), latents.std((0, 1, 2)) + 1e-6
        self.class_means_ = [latents[labels.numpy() == c].mean(0) for c in range(len(self.classes_))]
        self.seed_ = seed
        with pinned_defaults(), torch.no_grad():
            z = torch.from_numpy((latents - self.latent_centre_) / self.latent_scale_)
            model = ImageDiffusion(fit_prior(z, "gaussian", device_of(self.device)))
            self.latent_history_: list[dict[str, float]] = []
            self.network_gain_ = 0.0
            if (diffusion := check_training(self.diffusion, "diffusion")) is not None:
                n_classes = len(self.classes_)
                self.latent_history_, self.network_gain_ = learn_images(
                    model, z, labels, n_classes, "gaussian", diffusion, seed
                )
            self.latents_ = model

    def encode(self, X: Any) -> Array:
        """Return the latents (n, height / 4, width / 4, latent) of complete images.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
            Complete images of the size fitted on.

        Returns
        -------
        array of shape (n, height / 4, width / 4, latent), float32
            In their own units: means of `class_means_`, as `decode` takes them.
        """
        check_is_fitted(self, "network_")
        images = read_images(X, self.shape_[2])
        check_shape(images, self.shape_, "autoencoder")
        self._refuse_missing(images)
        with pinned_defaults(), torch.no_grad():
            parts = [self.network_.encode(part)[0] for part in self._tensor(images, self._device).split(CHUNK)]
        return np.asarray(torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy())

    def decode(self, latents: Any) -> Decoded:
        """Return the images of latents.

        Parameters
        ----------
        latents : array of shape (n, height / 4, width / 4, latent)

        Returns
        -------
        array of shape (n, height, width) or (n, height, width, channels)
            As the training images were: float64 where they were, or had numbers of more than 16 bits, else float32.
        """
        check_is_fitted(self, "network_")
        z = torch.from_numpy(self._read_latents(latents)).permute(0, 3, 1, 2).to(self._device)
        with pinned_defaults(), torch.no_grad():
            parts = [self.network_.decode(part, *self.shape_[:2]) for part in z.split(CHUNK)]
        images = torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy() * self.scale_ + self.centre_
        return (images[..., 0] if self.flat_ else images).astype(self.dtype_)

    def transform(self, X: Any) -> Array:
        """Return the latents of X; the same as `encode`."""
        return self.encode(X)

    def inverse_transform(self, latents: Any) -> Decoded:
        """Return the images of latents; the same as `decode`."""
        return self.decode(latents)

    def generate(self, n: int = 1, y: Any = None, guidance: float = 1.0) -> Decoded:
        """Draw n new images, of class `y` if the latents have a network that was trained with classes.

        Parameters
        ----------
        n : int, default=1
        y : label, optional
            One of `classes_`.
        guidance : float, default=1.0
            How much more than the class says is done for it (classifier-free guidance).

        Returns
        -------
        array of shape (n, height, width) or (n, height, width, channels)
            As `decode` gives them; the same at every call.
        """
        check_is_fitted(self)
        check_guidance(guidance)
        check_count(n, "n")
        if y is not None:
            self.latents_.warn_if_classless()
        label = None if y is None else class_number(self.classes_, y)
        with pinned_defaults(), torch.no_grad():
            nothing = Observed(torch.full((1, *self.latents_.prior.shape), torch.nan))
            generator = torch.Generator().manual_seed(self.seed_)
            z = self.latents_.sample(nothing, n, as_sampler(self.sampler), generator, label, guidance)
        return self.decode(z.numpy() * self.latent_scale_ + self.latent_centre_)

    def interpolate(self, a: Any, b: Any, n: int = 8) -> Decoded:
        """Return n images from a to b, along an arc between their latents.

        Parameters
        ----------
        a, b : array of shape (height, width) or (height, width, channels)
        n : int, default=8

        Returns
        -------
        array of shape (n, height, width) or (n, height, width, channels)
            As `decode` gives them; the first and last reconstruct a and b.
        """
        check_count(n, "n")
        first, last = self.encode(np.stack([np.asarray(unmasked(image)) for image in (a, b)]))
        centre = self.latent_centre_
        u, v = first - centre, last - centre
        cosine = float((u * v).sum() / max(float(np.linalg.norm(u) * np.linalg.norm(v)), 1e-12))
        omega = np.arccos(np.clip(cosine, -1, 1))
        t = np.linspace(0, 1, n)[:, None, None, None]
        if omega < 1e-3 or omega > np.pi - 1e-3:
            return self.decode(centre + (1 - t) * u + t * v)
        # Shoemake (1985): points of a straight line would be too near the mean.
        return self.decode(centre + (np.sin((1 - t) * omega) * u + np.sin(t * omega) * v) / np.sin(omega))

    def direction(self, source: Any, target: Any) -> Array:
        """Return the latent direction from one class's mean to another's.

        Parameters
        ----------
        source, target : label
            Two of `classes_`.

        Returns
        -------
        array of shape (height / 4, width / 4, latent)
        """
        check_is_fitted(self)
        named = {"source": source, "target": target}
        start, end = (self.class_means_[class_number(self.classes_, label, name)] for name, label in named.items())
        return np.asarray(end - start)

    def edit(self, X: Any, direction: Any, strength: float = 1.0) -> Decoded:
        """Return images moved along a latent direction; 0 reconstructs them.

        Parameters
        ----------
        X : array of shape (n, height, width) or (n, height, width, channels)
        direction : array of shape (height / 4, width / 4, latent)
            As `direction` gives it.
        strength : float, default=1.0
            How far; 1 is the whole way between the classes' means.

        Returns
        -------
        array of shape (n, height, width) or (n, height, width, channels)
            As `decode` gives them.

        Raises
        ------
        ValueError
            For a direction of another shape, or a strength that is no number: one of each moves all images.
        """
        latents = self.encode(X)
        step = np.asarray(unmasked(direction))
        if step.dtype.kind not in "biuf" or step.shape != latents.shape[1:]:
            got = f"shape {step.shape}" if step.dtype.kind in "biuf" else repr(direction)
            raise ValueError(f"direction must have the shape {latents.shape[1:]} that direction() gives, got {got}")
        if not is_number(strength) or not np.isfinite(float(strength)):
            raise ValueError(f"strength must be a finite number, got {strength!r}")
        return self.decode(latents + float(strength) * step.astype(np.float32))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    @property
    def _device(self) -> torch.device:
        return next(self.network_.parameters()).device

    def _tensor(self, images: Images, device: torch.device) -> Tensor:
        standard = ((images - self.centre_) / self.scale_).astype(np.float32)
        return torch.from_numpy(standard).permute(0, 3, 1, 2).to(device)

    def _read_latents(self, latents: Any) -> Array:
        z = np.asarray(unmasked(latents), np.float32)
        shape = tuple(self.latents_.prior.shape)
        if z.shape[1:] != shape:
            raise ValueError(
                f"latents must have the shape (n, {', '.join(map(str, shape))}) that encode gives, got {z.shape}"
            )
        if not np.isfinite(z).all():
            raise ValueError("latents hold NaN or infinity; decode what encode returned, or finite numbers like it")
        return z

    @staticmethod
    def _refuse_missing(images: Images) -> None:
        holes = np.flatnonzero(np.isnan(images).any((1, 2, 3)))
        if len(holes):
            raise ValueError(
                f"images {holes.tolist()[:10]} miss pixels, which an autoencoder cannot read; fill them first: "
                "ImageImputer().fit_transform(X)"
            )
