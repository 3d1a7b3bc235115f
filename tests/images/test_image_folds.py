"""Images that follow each other are judged together: near-copies stay in one fold, as far as folds must have borders."""

from __future__ import annotations

import numpy as np
import pytest

from diffad.images.folds import fold_of


@pytest.mark.parametrize("folds", [4, 8, 10])
@pytest.mark.parametrize("n", [8, 9, 13, 20, 31, 64, 80, 119, 300, 2000])
def test_several_folds_leave_most_images_to_learn_from(n, folds):
    fold = fold_of(n, folds)
    count = np.bincount(fold)
    assert 4 <= len(count) <= folds
    assert count.min() > 0
    assert count.max() <= 0.4 * n, f"a fold of {count.max()} of {n} images"


@pytest.mark.parametrize("folds", [4, 8, 10])
@pytest.mark.parametrize("n", [24, 40, 80, 119, 300, 2000])
def test_few_neighbours_are_parted(n, folds):
    borders = (np.diff(fold_of(n, folds)) != 0).mean()
    assert borders <= 1 / 6, f"{borders:.2f} of the images lie in another fold than the next"


@pytest.mark.parametrize("folds", [4, 8, 10])
def test_a_fifth_of_a_sorted_folder_is_in_more_than_one_fold(folds):
    for kind in np.array_split(fold_of(200, folds), 5):
        assert len(np.unique(kind)) >= 3


def test_few_images_are_folds_of_their_own():
    assert [len(np.unique(fold_of(n, 10))) for n in (2, 3, 7)] == [2, 3, 7]
