"""`ImageDetector(features=...)` adds the Gaussian of an extractor's maps to the pixels': it sees what the extractor shows,
takes any callable or module, and its distances are those of the dense Gaussian.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import nn

from diffad import ImageDetector
from diffad.priors.maps import RIDGE, MapPrior

SIZE = 16
SPOT = (slice(4, 8), slice(8, 12))


class Edges(nn.Module):
    """Fixed convolutions: mean, slopes and curvature at half the size."""

    def __init__(self, channels=1):
        super().__init__()
        kernels = torch.tensor(
            [
                [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
                [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
                [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
                [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
            ]
        )
        self.convolution = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.convolution.weight.data = kernels[:, None].float().expand(-1, channels, -1, -1) / channels

    def forward(self, x):
        return nn.functional.avg_pool2d(self.convolution(x).abs(), 2)


def two_scales(x):
    """A plain function that gives two maps, as numpy."""
    fine = Edges()(x)
    return [fine.numpy(), nn.functional.avg_pool2d(fine, 2).numpy()]


def nonsense(x):
    return x.mean((2, 3))


def broken(x):
    return x * float("nan")


def parts(n, seed):
    return np.random.default_rng(seed).standard_normal((n, SIZE, SIZE)).astype(np.float32)


def flattened(images):
    """Weaken the texture inside the spot: the pixels' Gaussian looks for too much, not for too little."""
    bad = images.copy()
    bad[:, *SPOT] *= 0.05
    return bad


def roc(detector, normal, strange):
    y = np.r_[np.zeros(len(normal)), np.ones(len(strange))]
    return roc_auc_score(y, -np.r_[detector.score_samples(normal), detector.score_samples(strange)])


@pytest.fixture(scope="module")
def training():
    return parts(300, 0)


@pytest.fixture(scope="module")
def new():
    return parts(150, 1)


@pytest.fixture(scope="module")
def detector(training):
    return ImageDetector(features=Edges(), device="cpu").fit(training)


# --- the prior --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 200])
def test_distance_is_that_of_the_shrunk_covariance_of_each_position(n):
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((n, 3, 4)) @ rng.standard_normal((4, 4)) + np.arange(3)[:, None]
    later = rng.standard_normal((6, 3, 4))
    found = MapPrior.fit(torch.from_numpy(maps)).distance(torch.from_numpy(later)).numpy()
    own = np.stack([np.cov(maps[:, p].T, bias=True) for p in range(3)])
    shared, weight = own.mean(0), 4 / (4 + n)
    for p in range(3):
        covariance = (1 - weight) * own[p] + weight * shared + RIDGE * np.trace(shared) / 4 * np.eye(4)
        z = later[:, p] - maps[:, p].mean(0)
        expected = np.einsum("ni,ij,nj->n", z, np.linalg.inv(covariance), z) / 4
        np.testing.assert_allclose(found[:, p], expected, rtol=1e-9)


def test_many_positions_share_one_covariance(monkeypatch):
    maps = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 5, 3)))
    monkeypatch.setattr("diffad.priors.maps.MOST", 10)
    prior = MapPrior.fit(maps)
    assert prior.factor.shape == (1, 3, 3)
    z = (maps - maps.mean(0)).numpy()
    shared = np.einsum("npi,npj->ij", z, z) / 150
    shared += RIDGE * np.trace(shared) / 3 * np.eye(3)
    expected = np.einsum("npi,ij,npj->np", z, np.linalg.inv(shared), z) / 3
    np.testing.assert_allclose(prior.distance(maps).numpy(), expected, rtol=1e-9)


def test_constant_maps_are_no_obstacle():
    assert np.isfinite(MapPrior.fit(torch.ones(9, 4, 2)).distance(torch.zeros(2, 4, 2))).all()


# --- what it finds ----------------------------------------------------------------------------------------


def absolute(x):
    """Smoothed log modulus of pixels: a feature that shows too little texture as well as too much."""
    return torch.log(nn.functional.avg_pool2d(x.abs(), 4) + 0.01)


def test_features_show_what_pixels_cannot(training, new):
    plain = ImageDetector(device="cpu").fit(training)
    richer = ImageDetector(features=absolute, device="cpu").fit(training)
    bad = flattened(new)
    assert roc(plain, new, bad) < 0.65
    assert roc(richer, new, bad) > 0.95
    heat = richer.explain(bad).heat
    assert heat[:, *SPOT].mean() > 3 * np.delete(heat, range(3, 9), 1).mean()


def test_pixels_still_count_where_features_say_nothing(training, new):
    bright = new.copy()
    bright[:, *SPOT] += 3
    blind = ImageDetector(features=torch.zeros_like, device="cpu").fit(training)
    assert roc(blind, new, bright) > 0.95


def test_false_alarms_stay_rare(detector):
    assert (detector.predict(parts(400, 5)) == -1).mean() < 0.03


def test_heat_of_good_images_is_about_one(detector, new):
    # As of pixels alone: the unit comes from models of nine tenths of the images, new ones leave less.
    assert 0.6 < detector.explain(new).heat.mean() < 1.3


def test_features_that_hardly_vary_leave_the_heat_of_good_images_at_one(new):
    def with_many_constants(x):
        return torch.cat([Edges()(x), torch.ones(len(x), 12, SIZE // 2, SIZE // 2)], 1)

    heat = ImageDetector(features=with_many_constants, device="cpu").fit(parts(60, 0)).explain(new).heat
    assert 0.8 < heat.mean() < 1.1


# --- what it takes ----------------------------------------------------------------------------------------


def test_a_function_that_gives_several_maps_as_arrays(training, new):
    found = ImageDetector(features=two_scales, device="cpu").fit(training)
    assert found.extractor_.prior.mean.shape == (64, 8)
    assert np.isfinite(found.score_samples(new)).all()


def test_grey_is_repeated_for_a_module_that_wants_colour(detector, training, new):
    colour = ImageDetector(features=Edges(3), device="cpu").fit(training)
    np.testing.assert_allclose(colour.score_samples(new), detector.score_samples(new), rtol=2e-3)


def test_many_features_are_thinned_to_a_hundred(training):
    def many(x):
        return x[:, :, ::4, ::4].repeat(1, 150, 1, 1) + torch.arange(150)[:, None, None]

    assert ImageDetector(features=many, device="cpu").fit(training[:40]).extractor_.prior.mean.shape == (16, 100)


def test_missing_pixels_are_filled_before_and_no_evidence_after(detector, new):
    new = new[:20]
    holes = new.copy()
    holes[:, *SPOT] = np.nan
    assert (detector.predict(holes) == 1).mean() > 0.9
    assert np.isfinite(detector.explain(holes).heat).all()
    np.testing.assert_array_equal(
        detector.score_samples(np.where(np.isnan(holes), np.nan, flattened(new))), detector.score_samples(holes)
    )


def test_same_images_same_scores_alone_stored_and_fitted_again(detector, training, new):
    expected = detector.score_samples(new)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(detector)).score_samples(new), expected)
    np.testing.assert_array_equal(clone(detector).fit(training).score_samples(new), expected)
    np.testing.assert_allclose(detector.score_samples(new[3:4]), expected[3:4], rtol=1e-3)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("resnet", ("features", "callable", "resnet")),
        (nonsense, ("features", "(n, features, height, width)", "(16, 1)")),
        (broken, ("features", "NaN")),
    ],
)
def test_features_that_are_none(training, features, words):
    with pytest.raises(ValueError) as caught:
        ImageDetector(features=features, device="cpu").fit(training[:20])
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_features_in_a_dict_and_a_module_that_is_left_as_it_was():
    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.drop = torch.nn.Conv2d(1, 4, 3), torch.nn.Dropout()
            self.drop.eval()

        def forward(self, x):
            return {"fine": self.convolution(x), "coarse": self.convolution(x)[..., ::2, ::2]}

    backbone = Backbone()
    images = np.random.default_rng(0).random((20, 12, 12))
    detector = ImageDetector(features=backbone).fit(images)
    assert np.isfinite(detector.score_samples(images)).all()
    assert backbone.training and backbone.convolution.training and not backbone.drop.training
    with pytest.raises(ValueError, match="NoneType"):
        ImageDetector(features=lambda x: None).fit(images)
