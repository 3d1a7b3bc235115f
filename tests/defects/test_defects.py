"""Defects drawn into good images change what their mask says, of every kind, size and channel count."""

from __future__ import annotations

import numpy as np
import pytest

from diffad.defects.drawn import KINDS, draw_defects


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 64, 1), (16, 24, 3), (8, 8, 1)])
def test_a_defect_changes_most_where_its_mask_lies(kind, shape):
    good = np.random.default_rng(0).standard_normal((12, *shape)).astype(np.float32)
    before = good.copy()
    bad, mask, kinds = draw_defects(good, np.random.default_rng(1), [kind])
    np.testing.assert_array_equal(good, before)
    assert set(kinds) == {kind} and mask.shape == good.shape[:3] and np.isfinite(bad).all()
    change = np.abs(bad - good).mean(3)
    assert change[mask].mean() > 2 * change[~mask].mean()


def test_one_seed_draws_the_same_defects_and_missing_pixels_stay_missing():
    good = np.random.default_rng(0).standard_normal((10, 16, 16, 1)).astype(np.float32)
    good[:, 3] = np.nan
    first, second = (draw_defects(good, np.random.default_rng(2)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isnan(first[0][:, 3]).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (2, 1, 3)])
def test_images_of_hardly_a_pixel_are_no_obstacle(shape):
    good = np.random.default_rng(0).random((60, *shape))
    bad, mask, _ = draw_defects(good, np.random.default_rng(1))
    assert np.isfinite(bad).all() and mask.shape == (60, *shape[:2])
