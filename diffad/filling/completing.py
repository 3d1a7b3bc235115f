"""Plausible values for the gaps of training data, so that covariances come from whole windows.

Moments over pairwise complete entries do not form a covariance: made positive definite, they lose
the small eigenvalues in which faults show.  One draw from the conditional distribution given the
neighbourhood keeps them (stochastic imputation; Little and Rubin 2002, section 4.3).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.model import MaskedDiffusion, Sampler
from diffad.priors import gaussian_of_few
from diffad.series.runs import in_runs
from diffad.series.windows import Cover, cut, segments

Array = NDArray[np.float32]

#: Rows of the neighbourhood, and entries it may have.
LENGTH, MOST_ENTRIES = 16, 600
#: The first round draws from a rough model, the next from one fitted to the first's draws; more where a channel
#: misses much, by as many a unit of its missing share, since a fit to draws inherits what was wrong with these.
ROUNDS, FURTHER, MOST_FURTHER = 2, 16, 8


def complete(series: list[Array], seed: int = 0) -> list[Array]:
    """Fill gaps with a conditional draw; outages of `LENGTH` rows and more stay missing.

    Parameters
    ----------
    series : list of array (n_timestamps, channels)
        Standardised, NaN = missing.
    seed : int

    Returns
    -------
    list of array
        Of the same shapes; observed values are unchanged.
    """
    if not any(np.isnan(s).any() for s in series):
        return series
    channels = series[0].shape[1]
    length = max(2, min(LENGTH, MOST_ENTRIES // channels, max(len(s) for s in series)))
    filled = series
    outages = np.concatenate([_outages(s) for s in series])
    share = np.isnan(np.concatenate(series))[~outages].mean(0) if not outages.all() else np.zeros(channels)
    # Of a channel that shows next to nothing no round learns more.
    share = share[share < 0.8].max(initial=0.0)
    for _ in range(ROUNDS + min(MOST_FURTHER, round(FURTHER * float(share)))):
        prior = gaussian_of_few(torch.from_numpy(np.ascontiguousarray(cut(filled, length))))
        model = MaskedDiffusion(prior, length, channels)
        filled = [_fill(s, model, seed) for s in series]
    return filled


def _fill(rows: Array, model: MaskedDiffusion, seed: int) -> Array:
    result = rows.copy()
    for batch in segments([len(rows)]):
        cover = Cover.build([rows], batch, model.length)
        if not len(cover.windows):
            continue
        noise = cover.white_noise(seed, [rows], [0], batch, 1)
        visible = ~np.isnan(cover.windows)
        hidden = ~visible & cover.inside[..., None]
        samples, *_ = model.sample(
            torch.from_numpy(cover.windows),
            torch.from_numpy(visible),
            torch.from_numpy(hidden),
            torch.from_numpy(noise),
            Sampler(),
            torch.Generator(),
        )
        (drawn,) = cover.stitch(samples.numpy(), batch, cover.weights())
        (part,) = batch
        place = result[part.start : part.stop]
        gap = np.isnan(place)
        place[gap] = drawn[0][gap]
    result[_outages(rows)] = np.nan
    return result


def _outages(rows: Array) -> NDArray[np.bool_]:
    """Mark rows inside runs of at least `LENGTH` rows without any value."""
    return in_runs(np.asarray(np.isnan(rows).all(1))[:, None], np.array([LENGTH]))[:, 0]
