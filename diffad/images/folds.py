"""Which training images judge which: folds of neighbours, because neighbours may show the same part.

Pictures of one part, or of one film, follow each other; which images are alike is told by their order alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Contiguous blocks of a fold where there are images enough. Neighbours must not judge each other; nor must a fold
#: hold all images of a kind of part, as its only block could where pictures are sorted.
BLOCKS = 5
#: Least images of a block, so that the pictures of few parts lie in two folds; fewer where there would not be
#: `LEAST_BLOCKS`. Longer blocks would hold all images of a kind of which there are eight or so.
LEAST, LEAST_BLOCKS = 6, 4


def fold_of(n: int, folds: int) -> NDArray[np.int64]:
    """Return the fold of each of n images: blocks of neighbours, dealt out in turn to at most `folds`.

    Examples
    --------
    >>> fold_of(12, 4)
    array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    """
    block = max(1, n // (folds * BLOCKS), min(LEAST, n // LEAST_BLOCKS))
    return np.asarray(np.arange(n) // block % folds)
