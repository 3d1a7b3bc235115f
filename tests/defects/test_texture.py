"""Texture: filters equal their definition, gaps are no evidence, and the gate looks at it where it tells something."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffad import ImageDetector
from diffad.defects.texture import WIDTHS, Texture, side_of
from diffad.thresholds import FalseAlarmRate

CPU = torch.device("cpu")


def cloth(n, seed, size=48, channels=1):
    """Threads in two directions that lie elsewhere in every image."""
    rng = np.random.default_rng(seed)

    def field(*width):
        noise = rng.standard_normal((n, size, size, channels))
        smooth = gaussian_filter(noise, (0, *width, 0), mode="wrap")
        return smooth / smooth.std()

    return (field(1, 3) + field(3, 1) + 0.2 * rng.standard_normal((n, size, size, channels))).astype(np.float32)


def whole(images):
    return np.ones(images.shape[:3], bool)


@pytest.fixture(scope="module")
def filters():
    return Texture.fit(torch.from_numpy(cloth(40, 0)), CPU)


@pytest.fixture(scope="module")
def detector():
    return ImageDetector(threshold=FalseAlarmRate(0.05), device="cpu").fit(cloth(60, 0)[..., 0])


@pytest.mark.parametrize("channels", [1, 2])
def test_answers_are_matched_filters_of_variance_one(channels):
    texture = Texture.fit(torch.from_numpy(cloth(40, 0, channels=channels)), CPU)
    new = cloth(20, 1, channels=channels)
    ((_, answers),) = texture.answers(new, whole(new))
    assert answers.shape == (*new.shape[:3], len(WIDTHS), channels)
    inside = answers[:, 10:-10, 10:-10]
    np.testing.assert_allclose((inside**2).mean((0, 1, 2)), 1, atol=0.25)


def test_an_answer_equals_the_definition(filters):
    side = filters.kernels.shape[-1]
    rng = np.random.default_rng(0)
    training = cloth(40, 0)
    at = rng.integers(0, 48 - side + 1, (6000, 2))
    which = rng.integers(0, 40, 6000)
    patches = np.stack([training[i, y : y + side, x : x + side, 0] for i, (y, x) in zip(which, at, strict=True)])
    flat = patches.reshape(len(patches), -1).astype(float)
    covariance = np.cov(flat.T) + 1e-3 * flat.var() * np.eye(side**2)
    row = np.arange(side) - side // 2
    spot = np.exp(-(row[:, None] ** 2 + row**2) / (2 * 1.5**2)).ravel()
    kernel = np.linalg.solve(covariance, spot)
    kernel /= np.sqrt(kernel @ spot)
    new = cloth(1, 2)
    ((_, answers),) = filters.answers(new, whole(new))
    half = side // 2
    expected = [
        (new[0, y - half : y + half + 1, x - half : x + half + 1, 0].ravel() - flat.mean()) @ kernel
        for y in range(15, 33, 3)
        for x in range(15, 33, 3)
    ]
    found = answers[0, 15:33:3, 15:33:3, WIDTHS.index(1.5), 0].ravel()
    # Other patches were drawn: the estimates of one covariance differ.
    assert np.corrcoef(expected, found)[0, 1] > 0.95
    assert np.std(found) == pytest.approx(np.std(expected), rel=0.1)


def test_a_spot_answers_most_to_its_own_width(filters):
    row = np.arange(48) - 24
    for width in (0.7, 3.0):
        spot = np.exp(-(row[:, None] ** 2 + row**2) / (2 * width**2)).astype(np.float32)[None, ..., None]
        ((_, answers),) = filters.answers(spot, whole(spot))
        assert WIDTHS[int(answers[0, 24, 24, :, 0].argmax())] == width


@pytest.mark.parametrize("lost", [(slice(None), slice(24, 48)), (slice(10, 22), slice(5, 30))])
def test_what_is_missing_is_no_evidence(filters, lost):
    new = cloth(10, 3)
    visible = whole(new)
    visible[:, *lost] = False
    garbage = new.copy()
    garbage[:, *lost] = 50.0
    ((_, answers),) = filters.answers(garbage, visible)
    assert not answers[:, *lost].any()
    ((_, complete),) = filters.answers(new, whole(new))
    assert (answers[visible] ** 2).mean() < 1.15 * (complete[visible] ** 2).mean()
    # Far from the hole nothing changes but by how far the neighbours of the neighbours are known.
    np.testing.assert_allclose(answers[:, 40:, :3], complete[:, 40:, :3], atol=0.5)


def test_missing_pixels_are_filled_by_their_conditional_mean():
    # Of an autoregression every pixel is known from its neighbours: hidden ones are half way between those.
    rng = np.random.default_rng(0)
    images = np.cumsum(rng.standard_normal((60, 40, 40, 1)), 2) * 0.1
    images = (images - images.mean((1, 2), keepdims=True)).astype(np.float32)
    texture = Texture.fit(torch.from_numpy(images), CPU)
    visible = whole(images)
    visible[:, :, 20] = False
    expected, _ = texture.expected(np.where(visible[..., None], images, 7.0), visible)
    between = (images[:, :, 19] + images[:, :, 21]) / 2
    np.testing.assert_allclose(expected[:, 5:35, 20], between[:, 5:35], atol=0.06)


def test_defects_in_cloth_are_found_and_their_place_told(detector):
    assert detector.model_.texture is not None
    good = cloth(60, 1)[..., 0]
    bad = good.copy()
    bad[:, 30:33, 20:23] += 3
    assert (detector.predict(good) < 0).mean() < 0.15
    assert (detector.predict(bad) < 0).mean() > 0.9
    heat = detector.explain(bad).heat.reshape(60, -1)
    y, x = np.divmod(heat.argmax(1), 48)
    assert (np.hypot(y - 31, x - 21) < 4).mean() > 0.9


@pytest.mark.parametrize("lost", ["scattered", "half"])
def test_incomplete_images_of_cloth_raise_no_more_alarms(detector, lost):
    good = cloth(60, 2)[..., 0]
    good[np.random.default_rng(0).random(good.shape) < 0.2 if lost == "scattered" else np.s_[:, :, 24:]] = np.nan
    assert (detector.predict(good) < 0).mean() < 0.15


def test_bands_hold_nine_of_ten_pixels_of_cloth(detector):
    assert detector.model_.texture.shows[0] == 0
    new = cloth(20, 4)[..., 0]
    told = detector.explain(new)
    assert ((new >= told.lower) & (new <= told.upper)).mean() == pytest.approx(0.9, abs=0.02)
    assert np.abs(new - told.expected).mean() < 0.3 * np.abs(new).mean()
    new[:, 10:20, 10:20] = np.nan
    told = detector.explain(new)
    assert np.isfinite(told.expected).all()
    assert not told.heat[:, 10:20, 10:20].any()


def test_heat_is_about_one_though_training_images_lack_pixels():
    images = cloth(90, 5)[..., 0]
    images[np.random.default_rng(0).random(images.shape) < 0.3] = np.nan
    heat = ImageDetector(device="cpu").fit(images[:60]).explain(images[60:]).heat
    lost = np.isnan(images[60:])
    assert not heat[lost].any()
    assert heat[~lost].mean() == pytest.approx(1, abs=0.2)


def test_texture_is_left_alone_where_places_tell_more():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    parts = np.sin(6 * y) + np.cos(9 * x * y) + 0.1 * rng.standard_normal((60, 32, 32))
    assert ImageDetector(device="cpu").fit(parts).model_.texture is None


@pytest.mark.parametrize(("shape", "side"), [((9, 64, 64, 1), 21), ((9, 30, 64, 1), 9), ((9, 64, 64, 3), 15)])
def test_patches_are_odd_and_of_bounded_size(shape, side):
    assert side_of(shape) == side


def test_small_images_have_no_texture():
    assert ImageDetector(device="cpu").fit(cloth(40, 0, 8)[..., 0]).model_.texture is None
