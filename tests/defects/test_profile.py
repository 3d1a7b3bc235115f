"""The profile of an image tells too quiet from normal, and one colour from another, but not light from dark."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from diffad import FalseAlarmRate, ImageDetector
from diffad.defects.profile import Profile, profile_of

SIZE = 32


def fields(n, seed, width=2):
    """Return smooth textures under a little noise: nothing has a place."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.standard_normal((SIZE, SIZE)), width, mode="wrap") for _ in range(n)])
    return smooth / smooth.std() + 0.1 * rng.standard_normal(smooth.shape)


def found(detector, images):
    return float((detector.predict(images) == -1).mean())


@pytest.fixture(scope="module")
def detector():
    return ImageDetector(threshold=FalseAlarmRate(0.05)).fit(fields(120, 0))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.zeros_like(x),
        lambda x: np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape),
        lambda x: np.full_like(x, x.max()),
        lambda x: 0.1 * x,
        lambda x: gaussian_filter(x, (0, 3, 3)),
        lambda x: np.random.default_rng(0).standard_normal(x.shape),
    ],
    ids=["black", "mean", "white", "faint", "blurred", "noise"],
)
def test_images_that_show_less_or_something_else_are_strange(detector, change):
    new = fields(40, 1)
    assert found(detector, change(new)) > 0.9
    assert found(detector, new) < 0.25, "and these are not"


def test_light_may_change(detector):
    new = fields(40, 1)
    np.testing.assert_allclose(detector.score_samples(new + 5), detector.score_samples(new), rtol=1e-2)


def test_images_with_holes_are_no_quieter_for_them(detector):
    new = fields(40, 1)
    new[:, 8:20, 8:20] = np.nan
    assert found(detector, new) < 0.25


def colours(n, seed):
    """Return fields in three channels that are nearly the same."""
    grey, rng = fields(n, seed, width=1), np.random.default_rng(seed + 50)
    return np.stack([grey + 0.1 * rng.standard_normal(grey.shape) for _ in range(3)], 3)


def test_colour_is_judged_where_light_is_not_and_defects_are_seen_that_all_channels_show():
    """The differences of the channels, which vary least, are blind to what is in all of them."""
    detector = ImageDetector(threshold=FalseAlarmRate(0.05)).fit(colours(80, 0))
    new = colours(40, 1)
    assert found(detector, new + np.array([0, 2, 0])) > 0.9
    assert found(detector, new - 2) < 0.25
    new[:, 14, 5:25] += 2
    assert found(detector, new) > 0.9


def test_whole_images_are_normal_to_what_learnt_from_incomplete_ones():
    train = fields(80, 0)
    train[np.random.default_rng(1).random(train.shape) < 0.5] = np.nan
    detector = ImageDetector(threshold=FalseAlarmRate(0.05)).fit(train)
    new = fields(100, 2)
    assert found(detector, new) < 0.15
    new[:, 14:18, 14:18] += 4
    assert found(detector, new) > 0.8


def test_images_fitted_on_are_normal():
    """A Gaussian leaves less over of them than of new ones: too little, to whom takes that for roughness."""
    train = fields(80, 0)
    assert found(ImageDetector(threshold=FalseAlarmRate(0.05)).fit(train), train) < 0.05
    assert 0 < (ImageDetector(contamination=0.1).fit_predict(train) == -1).mean() <= 0.1


def test_a_channel_may_be_missing_in_half_of_the_images():
    train = colours(60, 0)
    train[:30, ..., 1] = np.nan
    detector = ImageDetector(threshold=FalseAlarmRate(0.05)).fit(train)
    assert np.isfinite(detector.score_samples(colours(10, 1))).all()


def test_what_no_training_image_shows_is_not_judged():
    train, new = fields(80, 0), fields(100, 1)
    train[:, 10:16, 10:16] = np.nan
    detector = ImageDetector(threshold=FalseAlarmRate(0.05)).fit(train)
    told = detector.explain(new)
    assert not told.heat[:, 10:16, 10:16].any() and np.isfinite(told.lower).all()
    score = detector.score_samples(new)
    new[:, 12:14, 12:14] += 9
    np.testing.assert_array_equal(detector.score_samples(new), score)
    assert (score < detector.offset_).mean() < 0.2


def test_profiles_do_not_depend_on_light():
    rng = np.random.default_rng(0)
    residuals, brightness = [rng.standard_normal((4, 8, 8, 2))], rng.standard_normal((4, 2))
    np.testing.assert_allclose(profile_of(brightness + 3, residuals), profile_of(brightness, residuals))


def test_few_profiles_still_have_a_distance():
    profiles = np.random.default_rng(0).standard_normal((3, 8))
    distance = Profile.fit(profiles).distance(profiles)
    assert np.isfinite(distance).all() and (distance < 8**0.5).all()
