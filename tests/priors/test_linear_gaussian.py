"""`LinearGaussian` under hidden pixels, averages and noise equals the textbook formula on dense matrices.

`covariance_matrix` and `sample_field` say what `autocovariance` measured.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.priors.field import StationaryField, autocovariance, covariance_matrix, sample_field
from diffad.priors.linear import Averages, LinearGaussian, Pixels

SHAPE = (4, 6, 2)
D = 48


def random_gaussian(seed, d=D):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d)) / d**0.5
    return rng.standard_normal(d), root @ root.T + 0.05 * np.eye(d)


def dense_posterior(mean, covariance, matrix, noise, y):
    """Return mean and covariance of x given ``matrix @ x + noise e = y``, by the joint covariance of x and y."""
    gram = matrix @ covariance @ matrix.T + np.diag(noise**2)
    gain = covariance @ matrix.T @ np.linalg.inv(gram)
    return mean + gain @ (y - matrix @ mean), covariance - gain @ matrix @ covariance


def check(observation, matrix, noise, seed):
    mean, covariance = random_gaussian(seed)
    y = np.random.default_rng(seed + 1).standard_normal(len(matrix))
    expected, spread = dense_posterior(mean, covariance, matrix, noise, y)
    prior = LinearGaussian(torch.from_numpy(mean), torch.from_numpy(covariance))
    given_y = prior.observe(observation, torch.from_numpy(noise) if noise.any() else None)
    off = torch.from_numpy(y) - observation(prior.mean)
    np.testing.assert_allclose((prior.mean + given_y.explain(off[None])[0]).numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(given_y.scale.numpy() ** 2, np.diag(spread), atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([0.0, 0.5]))
def test_pixels_and_noisy_pixels(seed, share, level):
    seen = np.random.default_rng(seed).random(D) < share
    matrix = np.eye(D)[seen]
    check(Pixels(torch.from_numpy(seen)), matrix, np.full(len(matrix), level), seed)


@pytest.mark.parametrize("level", [0.0, 0.3])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_averages(level, share):
    blocks = np.zeros((2, 3, 2, *SHAPE))
    for i, j, c in np.ndindex(2, 3, 2):
        blocks[i, j, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c] = 0.25
    seen = np.random.default_rng(0).random(12) < share
    matrix = blocks.reshape(12, D)[seen]
    check(Averages(SHAPE, 2, torch.from_numpy(seen)), matrix, np.full(len(matrix), level), 3)


def test_known_pixels_have_no_spread():
    seen = torch.arange(D) % 3 == 0
    mean, covariance = random_gaussian(0)
    scale = LinearGaussian(torch.from_numpy(mean), torch.from_numpy(covariance)).observe(Pixels(seen)).scale
    assert (scale[seen] == 0).all() and (scale[~seen] > 0).all()


# --- stationary fields --------------------------------------------------------------------------------------


def brute_force_lag(x, dy, dx, a, b):
    """Average the products of pairs at a lag over all images, weighted as if all pixels had such a pair."""
    n, height, width, _ = x.shape
    one = x[:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx), a]
    other = x[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx), b]
    return (one * other).sum() / (n * height * width)


def test_autocovariance_is_the_average_over_pairs():
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 2))
    lags = autocovariance(torch.from_numpy(x)).numpy()
    for dy, dx, a, b in [(0, 0, 0, 0), (2, 1, 0, 0), (-1, 3, 0, 1), (1, -2, 1, 0), (-4, -3, 1, 1)]:
        np.testing.assert_allclose(lags[a, b, dy, dx], brute_force_lag(x, dy, dx, a, b), atol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_covariance_matrices_of_any_size_are_symmetric_and_positive(missing):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 6, 5, 2)).cumsum(1).cumsum(2)
    x[rng.random(x.shape) < missing] = np.nan
    lags = autocovariance(torch.from_numpy(x))
    for height, width in [(6, 5), (3, 3), (9, 8)]:
        matrix = covariance_matrix(lags, height, width).numpy()
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
        # With missing pixels the spectrum is clipped on a finite grid: larger images may miss zero by a little.
        least = np.linalg.eigvalsh(matrix).min()
        assert least > -(1e-9 if not missing or height <= 6 else 0.05) * np.trace(matrix), (height, width, least)


def test_sampled_fields_have_the_covariance():
    x = np.random.default_rng(2).standard_normal((200, 6, 5, 2)).cumsum(1)
    lags = autocovariance(torch.from_numpy(x))
    draws = sample_field(lags, 20_000, 7, 4, torch.Generator().manual_seed(0)).flatten(1).numpy()
    expected = covariance_matrix(lags, 7, 4).numpy()
    # The standard error of a covariance from 20,000 draws is below 1.5 % of the largest variance.
    np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.06 * expected.max())


def lit(n, height, width, rng):
    """White noise of variance 1 under light that differs from image to image: 4 and 1 in two channels, of covariance 2."""
    light = rng.standard_normal((n, 1)) * np.array([2.0, 1.0])
    return torch.from_numpy(light[:, None, None] + rng.standard_normal((n, height, width, 2)))


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_what_is_alike_all_over_keeps_its_variance_at_any_distance(missing):
    rng = np.random.default_rng(3)
    images = lit(4000, 6, 5, rng)
    field = StationaryField.of(torch.where(torch.from_numpy(rng.random(images.shape) < missing), torch.nan, images))
    covariance = field.covariance(9, 8).view(72, 2, 72, 2)
    light, pixel = torch.tensor([[4.0, 2.0], [2.0, 1.0]]).double(), torch.eye(2).double()
    # The standard error of a covariance from 4,000 levels is about .1.
    torch.testing.assert_close(covariance[0, :, 71], light, atol=0.3, rtol=0)
    torch.testing.assert_close(covariance[5, :, 5], light + pixel, atol=0.3, rtol=0)
    draws = field.sample(20_000, 9, 8, torch.Generator().manual_seed(0)).flatten(1).numpy()
    np.testing.assert_allclose(np.cov(draws.T), covariance.view(144, 144), atol=0.3)


def test_a_level_that_some_images_do_not_show_is_learned_from_the_others():
    images = lit(3000, 4, 4, np.random.default_rng(4))
    images[:1000], images[1000:2000, ..., 0] = torch.nan, torch.nan
    field = StationaryField.of(images)
    torch.testing.assert_close(field.level, torch.tensor([[4.0, 2.0], [2.0, 1.0]]).double(), atol=0.4, rtol=0)
    assert float(torch.linalg.eigvalsh(field.level).min()) > -1e-9


@pytest.mark.parametrize(("size", "share"), [(12, 1.0), (12, 0.2), (12, 0.05), (3, 1.0)])
def test_the_noise_of_few_pixels_is_no_level(size, share):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((400, size, size, 1))
    x[rng.random(x.shape) > share] = np.nan
    field = StationaryField.of(torch.from_numpy(x))
    bright = field.sample(4000, size, size, torch.Generator().manual_seed(0)).mean((1, 2)).std()
    assert 0.8 < float(bright) * size < 1.25
    assert float(field.variance) == pytest.approx(1.0, abs=0.1)
