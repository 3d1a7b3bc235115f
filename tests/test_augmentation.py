"""Altered copies: what they are, that they never judge their originals, and what they are good for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from diffad import Augmentation, ImageDetector, ImageImputer, Training
from diffad.images.prior import ImagePrior
from diffad.metrics import coverage

CPU = torch.device("cpu")


def images(n=3, height=6, width=5, channels=2, seed=0):
    return torch.randn(n, height, width, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("allowed", "axes"),
    [
        ({"horizontal": True}, [(2,)]),
        ({"vertical": True}, [(1,)]),
        ({"horizontal": True, "vertical": True}, [(2,), (1,), (1, 2)]),
    ],
)
def test_flips_are_those_of_numpy_each_once(allowed, axes):
    x = images()
    found = Augmentation(**allowed, copies=9)(x).numpy()
    expected = np.concatenate([x.numpy(), *(np.flip(x.numpy(), a) for a in axes)])
    np.testing.assert_array_equal(found, expected)


def test_a_shifted_copy_shows_the_same_pixels_elsewhere():
    x = images(n=20, height=12, width=12)
    found = Augmentation(shift=2)(x)[20:].numpy()
    padded = np.pad(x.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="symmetric")
    offsets = []
    for one, around in zip(found, np.concatenate([padded] * 4), strict=True):
        errors = {(i, j): np.abs(one - around[i : i + 12, j : j + 12]).max() for i in range(5) for j in range(5)}
        best = min(errors, key=errors.get)
        assert errors[best] < 1e-4, best
        offsets.append(best)
    # Each copy goes its own way, each image one or two pixels.
    down, up, right, left = (set(offsets[20 * i : 20 * i + 20]) for i in range(4))
    assert down == {(0, 2), (1, 2)} and up == {(3, 2), (4, 2)}
    assert right == {(2, 0), (2, 1)} and left == {(2, 3), (2, 4)}


def test_a_cropped_copy_is_an_enlarged_part():
    """On a ramp a part enlarged by z has a slope of z; nothing of it lies outside the image."""
    ramp = torch.linspace(0, 1, 16).view(1, 1, 16, 1).expand(30, 16, 16, 1)
    found = Augmentation(crop=0.5, copies=1)(ramp)[30:, 8, :, 0].numpy()
    slopes = np.diff(found, axis=1)[:, 4:-4] * 15
    assert (slopes.std(1) < 0.01).all()
    assert 0.5 <= slopes.mean(1).min() < 0.6 < 0.9 < slopes.mean(1).max() <= 1.0 + 1e-4
    assert found.min() >= 0 and found.max() <= 1


def test_equal_images_make_equal_copies():
    some = Augmentation(horizontal=True, shift=3, crop=0.8, copies=2)
    assert torch.equal(some(images()), some(images()))
    assert len(some(images())) == 9


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({}, "allow horizontal"),
        ({"shift": -1}, "shift must be an integer of at least 0, got -1"),
        ({"shift": 1.5}, "shift must be an integer of at least 0, got 1.5"),
        ({"shift": "1"}, "shift must be an integer of at least 0, got '1'"),
        ({"crop": 0.0, "horizontal": True}, "crop must be"),
        ({"crop": 1.5}, "crop must be"),
        ({"crop": "0.5"}, "crop must be"),
        ({"horizontal": True, "copies": 0}, "copies must be an integer of at least 1, got 0"),
        ({"horizontal": True, "copies": 2.5}, "copies must be an integer of at least 1, got 2.5"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        Augmentation(**wrong)


def test_numbers_of_numpy_are_as_good():
    assert Augmentation(shift=np.int64(1), copies=np.int32(2)) == Augmentation(shift=1, copies=2)


@pytest.mark.parametrize("estimator", [ImageDetector, ImageImputer])
def test_estimators_refuse_what_is_no_augmentation_and_reach_inside_one(estimator):
    with pytest.raises(ValueError, match="augmentation must be"):
        estimator(augmentation="flip").fit(np.random.default_rng(0).random((20, 8, 8)))
    changed = clone(estimator(augmentation=Augmentation(horizontal=True))).set_params(augmentation__shift=2)
    assert changed.augmentation == Augmentation(horizontal=True, shift=2)


def test_a_copy_never_explains_its_original():
    """Images that equal their flip: were one ever judged by a prior that saw its copy, nothing would be left over."""
    half = images(n=20, height=8, width=8, channels=1)
    symmetric = (half + half.flip(2)) / 2**0.5
    alone, beside = (
        ImagePrior.fit(symmetric, "gaussian", CPU, a) for a in (None, Augmentation(horizontal=True, copies=1))
    )
    assert len(beside.rows) == 2 * len(alone.rows)
    torch.testing.assert_close(beside.rest.lags, alone.rest.lags)
    assert float(alone.rest.variance) > 0.5


def sides(n, seed):
    """Return images of a bright spot anywhere, on the left half only."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:12, :12]
    row, column = rng.uniform(2, 10, (n, 1, 1)), rng.uniform(0, 5, (n, 1, 1))
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 6) + 0.02 * rng.standard_normal((n, 12, 12))


def test_an_imputer_knows_what_a_flip_would_show():
    """Spots on the right are filled better by who was told that left and right may be exchanged; bands still hold."""
    train, new = sides(60, 0), sides(60, 1)[:, :, ::-1].copy()
    holes = new.copy()
    holes[:, 4:8, 4:] = np.nan
    gap = np.isnan(holes)
    plain, told = (ImageImputer(augmentation=a).fit(train) for a in (None, Augmentation(horizontal=True)))
    error = [np.abs(model.transform(holes) - new)[gap].mean() for model in (plain, told)]
    assert error[1] < 0.7 * error[0], error
    lower, upper = told.interval(holes, 0.9)
    assert 0.8 < coverage(lower[gap], upper[gap], new[gap]) < 0.99


def test_a_detector_takes_what_a_flip_would_show_for_normal():
    train, mirrored, new = sides(80, 0), sides(60, 1)[:, :, ::-1].copy(), sides(60, 2)
    plain, told = (ImageDetector(augmentation=a).fit(train) for a in (None, Augmentation(horizontal=True)))
    heat = [model.explain(mirrored).heat.mean() for model in (plain, told)]
    assert heat[1] < 0.1 * heat[0], heat
    strange = np.r_[np.ones(60), np.zeros(60)]
    found = [roc_auc_score(strange, -m.score_samples(np.concatenate([mirrored, new]))) for m in (plain, told)]
    assert found[0] > 0.95 and found[1] < 0.85, found


def test_a_network_learns_from_copies_and_is_judged_without():
    train = sides(32, 0)
    training = Training(max_steps=4, masks_per_batch=2, evaluate_every=2)
    model = ImageImputer(augmentation=Augmentation(horizontal=True), training=training).fit(train)
    assert len(model.history_) == 2
    assert np.isfinite(model.transform(np.where(train > 0.9, np.nan, train))).all()


@pytest.mark.parametrize("name", ["horizontal", "vertical"])
def test_flips_are_true_or_false(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False, got 'no'"):
        Augmentation(**{name: "no"})
