"""`ImageImputer(latent=...)` draws by the latents of an autoencoder, and fills by pixels as without."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from diffad import DiffusionVAE, ImageImputer, Training
from tests.test_diffusion_vae import lies, stripes

BRIEF = Training(max_steps=200, masks_per_batch=4, windows_per_mask=8, evaluate_every=100)
AUTOENCODER = DiffusionVAE(training=BRIEF, device="cpu")


def holed(images):
    """Return a copy with a hole of 3 x 3 pixels in each image."""
    copy = images.copy()
    for i, image in enumerate(copy):
        image[i % 5 : i % 5 + 3, i % 4 : i % 4 + 3] = np.nan
    return copy


@pytest.fixture(scope="module")
def fitted():
    return ImageImputer(latent=AUTOENCODER, device="cpu").fit(holed(stripes(200, 0)[0]), stripes(200, 0)[1])


def test_new_images_are_decoded_latents(fitted):
    images, made = stripes(200, 0)[0], fitted.generate(200)
    np.testing.assert_array_equal(made, fitted.latent_.generate(200))
    assert made.shape == (200, 8, 8) and made.mean() == pytest.approx(images.mean(), abs=0.3)
    assert 0.5 < made.std() / images.std() < 1.3 and 0.2 < lies(made).mean() < 0.8


def test_holes_are_filled_before_the_autoencoder_learns(fitted):
    images, _ = stripes(50, 1)
    again = fitted.latent_.decode(fitted.latent_.encode(images))
    assert ((again - images) ** 2).mean() < 0.2 * images.var()
    assert fitted.latent_.classes_.tolist() == [0, 1], "labels reach the autoencoder"


def test_filling_goes_by_pixels_as_without(fitted):
    images, lying = stripes(200, 0)
    plain = ImageImputer(device="cpu").fit(holed(images), lying)
    assert plain.latent_ is None
    new = holed(stripes(5, 1)[0])
    np.testing.assert_array_equal(fitted.transform(new), plain.transform(new))
    np.testing.assert_array_equal(fitted.interval(new), plain.interval(new))
    assert not np.array_equal(fitted.generate(2), plain.generate(2))


def test_a_fitted_autoencoder_is_reused(fitted):
    images = stripes(40, 2)[0]
    again = ImageImputer(latent=fitted.latent_, device="cpu").fit(images)
    assert again.latent_ is fitted.latent_
    with pytest.raises(ValueError, match="the autoencoder was fitted on"):
        again.fit(images[:, :6])
    assert again.generate(2).shape == (2, 8, 8), "a fit that fails leaves it as it was"


def test_parameters_of_the_autoencoder_are_reached(fitted):
    other = clone(fitted).set_params(latent__beta=0.5)
    assert other.latent.beta == 0.5 and AUTOENCODER.beta == 1e-3
    assert not hasattr(other.latent, "network_"), "the one given stays unfitted"


def test_true_is_an_autoencoder_with_the_seed_and_the_sampler_of_the_imputer(monkeypatch):
    monkeypatch.setattr("diffad.diffusion_vae.VAE_TRAINING", Training(max_steps=3, masks_per_batch=2))
    images = stripes(12, 0)[0]
    one, same, other = (
        ImageImputer(latent=True, sampler="heun", random_state=seed, device="cpu").fit(images) for seed in (0, 0, 1)
    )
    assert one.latent_.sampler == "heun" and one.latent_.device == "cpu"
    np.testing.assert_array_equal(one.generate(3), same.generate(3))
    assert not np.array_equal(one.generate(3), other.generate(3))


@pytest.mark.parametrize("latent", [None, 4, "vae", DiffusionVAE])
def test_other_latents_are_refused(latent):
    with pytest.raises(ValueError, match="latent must be True, False or a DiffusionVAE"):
        ImageImputer(latent=latent).fit(stripes(12, 0)[0])


def test_too_few_images_and_other_sizes_are_refused(fitted):
    with pytest.raises(ValueError, match="fit needs at least 8"):
        ImageImputer(latent=True).fit(stripes(7, 0)[0])
    with pytest.raises(ValueError, match=r"images of \(8, 8\) pixels, got shape=\(16, 8\)"):
        fitted.generate(2, shape=(16, 8))
    assert fitted.generate(2, shape=(8, 8)).shape == (2, 8, 8)
