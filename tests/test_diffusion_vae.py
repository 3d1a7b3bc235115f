"""`DiffusionVAE` reconstructs, its samples look like the images, and its latents can be walked and edited."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from diffad import DiffusionVAE, ImageImputer, Training

TINY = Training(max_steps=300, masks_per_batch=4, windows_per_mask=8, evaluate_every=150)


def stripes(n, seed):
    """Return 8 x 8 images of one wave, upright or lying, with any phase, and which it is."""
    rng = np.random.default_rng(seed)
    lying, phase = rng.integers(0, 2, n), rng.uniform(0, 2 * np.pi, (n, 1, 1))
    wave = np.sin(np.arange(8) * 0.9 + phase) + np.zeros((n, 8, 1))
    images = np.where(lying[:, None, None], wave.transpose(0, 2, 1), wave)
    return 5 + 2 * images + 0.05 * rng.standard_normal(images.shape), lying


@pytest.fixture(scope="module")
def fitted():
    return DiffusionVAE(training=TINY, device="cpu").fit(*stripes(200, 0))


def lies(images):
    """Return which images vary more along their height than along their width."""
    return (np.diff(images, axis=1) ** 2).mean((1, 2)) > (np.diff(images, axis=2) ** 2).mean((1, 2))


def test_new_images_are_reconstructed(fitted):
    images, _ = stripes(50, 1)
    again = fitted.decode(fitted.encode(images))
    assert ((again - images) ** 2).mean() < 0.15 * images.var()
    np.testing.assert_array_equal(fitted.inverse_transform(fitted.transform(images)), again)


def test_images_far_from_zero_keep_their_digits():
    images = stripes(40, 0)[0] + 1e8
    model = DiffusionVAE(training=Training(max_steps=20, masks_per_batch=2), device="cpu").fit(images)
    latents = model.encode(images)
    for made in (model.decode(latents), model.generate(2), model.interpolate(images[0], images[1], 3)):
        assert made.dtype == np.float64 and len(np.unique(made[0])) > 32
    assert DiffusionVAE(training=Training(max_steps=1)).fit(stripes(9, 0)[0].astype(np.uint8)).generate().dtype == "f4"


def test_generated_images_have_the_moments_of_the_images(fitted):
    images, made = stripes(200, 0)[0], fitted.generate(200)
    assert made.shape == (200, 8, 8)
    assert made.mean() == pytest.approx(images.mean(), abs=0.3)
    assert 0.5 < made.std() / images.std() < 1.3
    assert 0.2 < lies(made).mean() < 0.8


def test_interpolation_starts_and_ends_at_the_reconstructions(fitted):
    images, _ = stripes(2, 1)
    path = fitted.interpolate(*images, n=7)
    again = fitted.decode(fitted.encode(images))
    np.testing.assert_allclose(path[[0, -1]], again, atol=1e-4)
    steps = np.abs(np.diff(path, axis=0)).mean((1, 2))
    assert steps.max() < 0.6 * np.abs(again[1] - again[0]).mean() + 0.1, "the way is taken in steps, not in a jump"


def test_interpolation_between_equal_images_stays(fitted):
    image = stripes(1, 1)[0][0]
    path = fitted.interpolate(image, image, 3)
    np.testing.assert_allclose(path, np.broadcast_to(path[0], path.shape), atol=1e-4)


def test_interpolation_reads_nothing_that_is_masked(fitted):
    images = stripes(2, 1)[0]
    hidden = np.ma.array(images[0], mask=images[0] > 6)
    with pytest.raises(ValueError, match=r"images \[0\] miss pixels"):
        fitted.interpolate(hidden, images[1])
    whole = np.ma.array(images[0], mask=False)
    np.testing.assert_array_equal(fitted.interpolate(whole, images[1], 3), fitted.interpolate(*images, 3))


def test_an_edit_along_the_classes_direction_moves_brightness():
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, 120)
    images = stripes(120, 0)[0] + 4 * bright[:, None, None]
    model = DiffusionVAE(training=TINY, device="cpu").fit(images, bright)
    dark = images[bright == 0][:20]
    direction = model.direction(0, 1)
    np.testing.assert_allclose(model.edit(dark, direction, 0.0), model.decode(model.encode(dark)), atol=1e-5)
    moved = model.edit(dark, direction).mean() - model.edit(dark, direction, 0.0).mean()
    assert 2 < moved < 6, f"classes differ by 4, the edit moved by {moved:.1f}"


def test_a_critic_brings_back_grain():
    rng = np.random.default_rng(0)
    grainy = rng.standard_normal((80, 8, 8)) + 3 * rng.standard_normal((80, 1, 1))
    few = Training(max_steps=60, masks_per_batch=4, evaluate_every=30)

    def grain(adversarial):
        model = DiffusionVAE(latent=1, training=few, adversarial=adversarial, device="cpu").fit(grainy)
        again = model.decode(model.encode(grainy))
        np.testing.assert_array_equal(again, model.decode(model.encode(grainy)))
        return np.diff(again, axis=2).std()

    assert 1.1 * grain(0.0) < grain(1.0) < np.diff(grainy, axis=2).std()


def test_a_critic_reads_images_of_two_pixels_a_side_and_none_those_of_one():
    few = Training(max_steps=2, masks_per_batch=2)
    images = stripes(20, 0)[0]
    assert DiffusionVAE(training=few, adversarial=0.1).fit(images[:, :2, :2]).generate().shape == (1, 2, 2)
    assert DiffusionVAE(training=few).fit(images[:, :1, :1]).generate().shape == (1, 1, 1)


def test_latents_can_be_diffused():
    images, lying = stripes(64, 0)
    few = Training(max_steps=4, masks_per_batch=2, evaluate_every=2)
    model = DiffusionVAE(training=few, diffusion=few, sampler="dpmpp_2m", device="cpu").fit(images, lying)
    assert [line["step"] for line in model.latent_history_] == [2, 4]
    assert model.generate(3, y=1).shape == (3, 8, 8)


def test_channels_and_odd_sizes():
    images = np.random.default_rng(0).random((20, 9, 7, 3)).astype(np.float32)
    model = DiffusionVAE(training=Training(max_steps=2), device="cpu").fit(images)
    assert model.encode(images).shape == (20, 3, 2, 4)
    assert model.generate(2).shape == (2, 9, 7, 3)


def test_repeats_to_the_bit_and_survives_pickling(fitted):
    expected = fitted.generate(2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).generate(2), expected)
    again = DiffusionVAE(training=TINY, device="cpu").fit(*stripes(200, 0))
    np.testing.assert_array_equal(again.generate(2), expected)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda x: np.where(x > x.mean(), np.nan, x), "miss pixels"),
        (lambda x: x[:7], "at least 8"),
        (lambda x: x[0], "(n, height, width)"),
    ],
)
def test_bad_images_are_refused(change, word):
    with pytest.raises(ValueError, match=word.replace("(", r"\(").replace(")", r"\)")):
        DiffusionVAE(training=TINY).fit(change(stripes(20, 0)[0]))


def test_other_mistakes_are_refused(fitted):
    images, _ = stripes(20, 0)
    for call, word in [
        (lambda: fitted.encode(np.zeros((2, 9, 8))), "resize"),
        (lambda: fitted.direction(0, 5), "target must be one of"),
        (lambda: DiffusionVAE(beta=-1).fit(images), "beta"),
        (lambda: DiffusionVAE(adversarial=np.nan).fit(images), "adversarial"),
        (lambda: DiffusionVAE(beta="1").fit(images), "beta must be a number, 0 or more, got '1'"),
        (lambda: DiffusionVAE(beta=np.inf).fit(images), "beta must be a number"),
        (lambda: DiffusionVAE(adversarial=None).fit(images), "adversarial must be a number"),
        (lambda: DiffusionVAE(adversarial=0.1).fit(images[:, :1]), r"at least 2 pixels .* \(1, 8\); use adversarial=0"),
        (lambda: DiffusionVAE(adversarial=0.1).fit(images[:, :, :1]), r"\(8, 1\); use adversarial=0"),
        (lambda: DiffusionVAE(training=Training(max_steps=1)).fit(images).direction(0, 1), "source must be one of"),
        (lambda: DiffusionVAE(training=Training(max_steps=0)).fit(images), "max_steps of at least 1"),
    ]:
        with pytest.raises(ValueError, match=word):
            call()
    with pytest.raises(NotFittedError):
        DiffusionVAE().generate()


@pytest.mark.parametrize(
    ("change", "strength", "words"),
    [
        (lambda d: d[0, 0], 1.0, r"direction must have the shape \(2, 2, 4\) .* got shape \(4,\)"),
        (lambda d: d[:, :1], 1.0, r"got shape \(2, 1, 4\)"),
        (lambda d: np.stack([d] * 5), 1.0, r"got shape \(5, 2, 2, 4\)"),
        (lambda _: "b", 1.0, "got 'b'"),
        (lambda d: d, np.arange(4.0), "strength must be a finite number"),
        (lambda d: d, np.nan, "strength must be a finite number"),
        (lambda d: d, "1", "strength must be a finite number"),
    ],
)
def test_edits_that_would_spread_over_latents_of_another_shape_are_refused(fitted, change, strength, words):
    images, _ = stripes(1, 0)
    direction = np.ones((2, 2, 4), np.float32)
    assert fitted.edit(images, direction).shape == images.shape
    with pytest.raises(ValueError, match=words):
        fitted.edit(images, change(direction), strength)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: z[0], r"latents must have the shape \(n, 2, 2, 4\) that encode gives, got \(2, 2, 4\)"),
        (lambda z: z[..., :3], r"\(n, 2, 2, 4\) .* got \(5, 2, 2, 3\)"),
        (lambda z: z.repeat(2, 1), r"\(n, 2, 2, 4\) .* got \(5, 4, 2, 4\)"),
        (lambda z: np.where(z > 0, np.nan, z), "latents hold NaN or infinity"),
        (lambda z: z * np.float32(np.inf), "latents hold NaN or infinity"),
        (lambda z: np.ma.array(z, mask=z > 0), "latents hold NaN or infinity"),
    ],
)
def test_latents_that_are_none_are_refused(fitted, change, words):
    latents = fitted.encode(stripes(5, 1)[0])
    with pytest.raises(ValueError, match=words):
        fitted.decode(change(latents))
    assert fitted.decode(latents[:0]).shape == (0, 8, 8)


def test_a_checkpoint_of_other_latents_is_refused(tmp_path):
    X = np.random.default_rng(0).random((40, 8, 8))
    training = Training(max_steps=4, masks_per_batch=2, evaluate_every=2, checkpoint=str(tmp_path / "c"))
    DiffusionVAE(training=training).fit(X)
    with pytest.raises(ValueError, match="checkpoint"):
        DiffusionVAE(latent=3, training=training).fit(X)


# `ImageImputer(latent=...)` draws by latents, and fills by pixels as without.

BRIEF = Training(max_steps=200, masks_per_batch=4, windows_per_mask=8, evaluate_every=100)
AUTOENCODER = DiffusionVAE(training=BRIEF, device="cpu")


def holed(images):
    """Return a copy with a hole of 3 x 3 pixels in each image."""
    copy = images.copy()
    for i, image in enumerate(copy):
        image[i % 5 : i % 5 + 3, i % 4 : i % 4 + 3] = np.nan
    return copy


@pytest.fixture(scope="module")
def imputer():
    return ImageImputer(latent=AUTOENCODER, device="cpu").fit(holed(stripes(200, 0)[0]), stripes(200, 0)[1])


def test_new_images_are_decoded_latents(imputer):
    images, made = stripes(200, 0)[0], imputer.generate(200)
    np.testing.assert_array_equal(made, imputer.latent_.generate(200))
    assert made.shape == (200, 8, 8) and made.mean() == pytest.approx(images.mean(), abs=0.3)
    assert 0.5 < made.std() / images.std() < 1.3 and 0.2 < lies(made).mean() < 0.8


def test_holes_are_filled_before_the_autoencoder_learns(imputer):
    images, _ = stripes(50, 1)
    again = imputer.latent_.decode(imputer.latent_.encode(images))
    assert ((again - images) ** 2).mean() < 0.2 * images.var()
    assert imputer.latent_.classes_.tolist() == [0, 1], "labels reach the autoencoder"


def test_filling_goes_by_pixels_as_without(imputer):
    images, lying = stripes(200, 0)
    plain = ImageImputer(device="cpu").fit(holed(images), lying)
    assert plain.latent_ is None
    new = holed(stripes(5, 1)[0])
    np.testing.assert_array_equal(imputer.transform(new), plain.transform(new))
    np.testing.assert_array_equal(imputer.interval(new), plain.interval(new))
    assert not np.array_equal(imputer.generate(2), plain.generate(2))


def test_a_fitted_autoencoder_is_reused(imputer):
    images = stripes(40, 2)[0]
    again = ImageImputer(latent=imputer.latent_, device="cpu").fit(images)
    assert again.latent_.network_ is imputer.latent_.network_
    with pytest.raises(ValueError, match="the autoencoder was fitted on"):
        again.fit(images[:, :6])
    assert again.generate(2).shape == (2, 8, 8), "a fit that fails leaves it as it was"


def test_a_later_fit_of_the_autoencoder_changes_no_imputer():
    few = Training(max_steps=3, masks_per_batch=2)
    vae = DiffusionVAE(latent=1, training=few, device="cpu").fit(stripes(12, 0)[0])
    drawing = ImageImputer(latent=vae, device="cpu").fit(stripes(12, 0)[0])
    before = drawing.generate(2)
    vae.fit(np.random.default_rng(0).random((12, 12, 12)))
    np.testing.assert_array_equal(drawing.generate(2), before)


def test_parameters_of_the_autoencoder_are_reached(imputer):
    other = clone(imputer).set_params(latent__beta=0.5)
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


def test_too_few_images_and_other_sizes_are_refused(imputer):
    with pytest.raises(ValueError, match="fit needs at least 8"):
        ImageImputer(latent=True).fit(stripes(7, 0)[0])
    with pytest.raises(ValueError, match=r"images of \(8, 8\) pixels, got shape=\(16, 8\)"):
        imputer.generate(2, shape=(16, 8))
    assert imputer.generate(2, shape=(8, 8)).shape == (2, 8, 8)


def test_drawn_images_have_the_shape_and_dtype_of_those_fitted_on(fitted):
    images = stripes(40, 2)[0]
    grey = ImageImputer(latent=fitted, device="cpu").fit(images[..., None].astype(np.float32))
    assert grey.generate(2).shape == (2, 8, 8, 1) and grey.generate().dtype == np.float32
    assert ImageImputer(latent=fitted, device="cpu").fit(images).generate().dtype == np.float64


def test_classes_of_a_fitted_autoencoder_are_those_of_the_imputer(fitted):
    images, lying = stripes(40, 2)
    again = ImageImputer(latent=fitted, device="cpu")
    with pytest.raises(ValueError, match=r"y has the classes \['a', 'b'\], the autoencoder in latent was fitted on"):
        again.fit(images, np.array(["a", "b"])[lying])
    assert again.fit(images).classes_.tolist() == fitted.classes_.tolist()


def test_parameters_of_what_true_stands_for_are_reached():
    imputer = ImageImputer(latent=True, sampler="heun", random_state=3).set_params(latent__beta=0.5)
    assert (imputer.latent.beta, imputer.latent.sampler, imputer.latent.random_state) == (0.5, "heun", 3)
    assert clone(imputer).set_params(latent__training__max_steps=7, latent=True).latent.training.max_steps == 7


def test_classes_of_a_fitted_autoencoder_teach_the_pixels_nothing(fitted):
    images, training = stripes(24, 2)[0], Training(max_steps=2, masks_per_batch=1)
    with_latents, plain = (
        ImageImputer(latent=latent, training=training, device="cpu").fit(images) for latent in (fitted, False)
    )
    assert [step["loss"] for step in with_latents.history_] == [step["loss"] for step in plain.history_]


def test_parameters_of_latents_that_are_off_are_refused():
    imputer = ImageImputer()
    with pytest.raises(ValueError, match="latent is False; set latent=True"):
        imputer.set_params(latent__beta=0.5)
    with pytest.raises(ValueError, match="latent is False; set latent=True"):
        imputer.set_params(latent=False, latent__beta=0.5)
    both = imputer.set_params(latent=True, latent__beta=0.5, random_state=5)
    assert (both.latent.beta, both.latent.random_state) == (0.5, 5), "all that is said in one call counts"
    unchanged = ImageImputer(latent=True)
    with pytest.raises(ValueError, match="nonsense"):
        unchanged.set_params(latent__nonsense=1)
    assert unchanged.latent is True
