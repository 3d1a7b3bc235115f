"""From standardised series to a fitted, gated and calibrated model: what imputers and detectors share.

Data flow one way: series -> held-out blocks -> prior -> fill -> network -> gate -> bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffad.calibration import Bands, spread
from diffad.completing import complete
from diffad.diffusion.masks import GAP_KINDS, gap_kinds, mixture
from diffad.learning import learn
from diffad.local_scale import LocalScale
from diffad.marginals import Marginals
from diffad.metrics import crps
from diffad.model import MaskedDiffusion, Sampler
from diffad.priors import PRIORS, CyclicPrior, GaussianPrior, Prior, StandardPrior
from diffad.seasonality import find_period, mean_cycle
from diffad.training import Progress, Training
from diffad.windows import cut

Array = NDArray[np.float32]
#: Maps values (..., channels) to others.
Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Standard deviations at which training values are cut: one wild reading must not own the prior.
WILD = 8.0
#: Part of the CRPS that bending channels to normal scores must save.
WORTH = 0.01
#: Surprises that shrink a local scale, to choose from, and the part of the CRPS that it must save.
DOUBTS = (3.0, 10.0, 30.0)
LOCAL_WORTH = 0.002
#: Entries per window beyond which the dense Gaussian gives way to low rank plus diagonal.
DENSE_LIMIT = 1536
#: Held-out blocks spread over the data, and the share of rows they take together.
HELD_OUT_BLOCKS = 4
HELD_OUT_SHARE = 0.12
#: Windows that calibrate the bands, and samples behind each.
CALIBRATION_WINDOWS = 384
CALIBRATION_SAMPLES = 20


@dataclass(frozen=True)
class Fitted:
    """A model ready for use, its bands and how it was trained."""

    model: MaskedDiffusion
    bands: Bands
    history: list[dict[str, float]] = field(default_factory=list)
    gain: float = 0.0


def fit_windows(
    series: list[Array],
    length: int,
    prior: str | None,
    training: Training,
    sampler: Sampler,
    device: torch.device,
    seed: int,
    on_progress: Progress | None = None,
) -> Fitted:
    """Fit prior, network, gate and bands to standardised series (n_timestamps, channels), NaN = missing.

    Prior ``"auto"`` is the Gaussian, around a mean cycle where held-out windows say that this is
    better.  Recordings of fewer rows than eight windows have nothing to hold out: their model is
    the Gaussian with Gaussian bands.
    """
    channels = series[0].shape[1]
    if channels == 0:
        return Fitted(MaskedDiffusion(StandardPrior(0), length, 0, device=device), Bands.gaussian(len(GAP_KINDS), 0))
    completed = complete(series, seed)
    whole = _windows(completed, length)
    model = MaskedDiffusion(_fit_prior(prior, whole), length, channels, device=device)
    held = [_held_out(len(s), length) for s in series]
    if not any(h.any() for h in held):
        return Fitted(model, Bands.gaussian(len(GAP_KINDS), channels))

    train = _windows(_split(series, held, False), length)
    test = _windows(_split(series, held, True), length, most=4000)
    plausible = _windows(_split(completed, held, False), length)
    judge = _windows(_split(completed, held, True), length, most=4000)
    final_prior, model.prior = model.prior, _fit_prior(prior, plausible)
    if prior == "auto" and isinstance(final_prior, GaussianPrior):
        rest = [np.where(h[:, None], np.float32(np.nan), s) for s, h in zip(completed, held, strict=True)]
        period = find_period(rest, 2 * length)
        if period is not None:
            around = _fit_cyclic(rest, period, plausible)
            if _crps(replace(model, prior=around), judge, seed) < _crps(model, judge, seed):
                final_prior, model.prior = _fit_cyclic(completed, period, whole), around
    history: list[dict[str, float]] = []
    gain = 0.0
    if training.max_steps:
        filled = fill_from_prior(model, train, seed)
        filled_test = fill_from_prior(model, test, seed)
        history, gain = learn(model, filled, ~train.isnan(), filled_test, ~test.isnan(), training, seed, on_progress)
    if prior == "auto":
        model.local = _fit_local(model, judge, seed)
    bands = calibrate(model, test, sampler, seed)
    # What was held out has done its work: the prior may know it.
    model.prior = final_prior
    return Fitted(model, bands, history, gain)


def fit_marginals(series: list[Array], length: int, seed: int) -> Marginals | None:
    """Return normal scores of the channels if a Gaussian of windows then fills better, else None.

    Both are fitted without the held-out blocks and judged on them by the CRPS in the units of `series`.
    All channels are bent or none: one that is left with its bursts spoils what it says of the others.

    Parameters
    ----------
    series : list of array (n_timestamps, channels)
        Standardised, NaN = missing.
    length : int
        Time steps of a window.
    seed : int
    """
    held = [_held_out(len(s), length) for s in series]
    if not any(h.any() for h in held):
        return None
    train, test = (_split(complete(series, seed), held, keep) for keep in (False, True))
    marginals = Marginals.fit(np.concatenate(_split(series, held, False)).astype(np.float64))
    plain = _mapped_crps(train, test, length, seed, lambda x: x, lambda z: z)
    bent = _mapped_crps(train, test, length, seed, marginals.forward, marginals.inverse)
    if not bent < (1 - WORTH) * plain:
        return None
    return Marginals.fit(np.concatenate(series).astype(np.float64))


def _mapped_crps(train: list[Array], test: list[Array], length: int, seed: int, forward: Map, inverse: Map) -> float:
    """Return the CRPS of a Gaussian of mapped windows on hidden entries of test windows."""
    mapped = [
        [forward(s.astype(np.float64)).clip(-WILD, WILD).astype(np.float32) for s in part] for part in (train, test)
    ]
    windows, truth = (_windows(part, length, most=4000) for part in (mapped[0], test))
    z = _windows(mapped[1], length, most=4000)
    whole = ~z.isnan().flatten(1).any(1)
    z, truth = z[whole], truth[whole]
    channels = truth.shape[2]
    if not len(z):
        return float("nan")
    generator = torch.Generator().manual_seed(seed + 4)
    visible = mixture(16, length, channels, generator, CALIBRATION_MIXTURE).repeat_interleave(16, 0)
    pick = torch.randint(len(z), (len(visible),), generator=generator)
    noise = torch.randn((CALIBRATION_SAMPLES, len(visible), length, channels), generator=generator)
    model = MaskedDiffusion(_fit_prior("auto", windows), length, channels)
    samples, *_ = model.sample(z[pick], visible, ~visible, noise, Sampler(), generator)
    error = crps(inverse(samples.numpy().astype(np.float64)), truth[pick].numpy().astype(np.float64))
    return float(error[~visible.numpy()].mean())


def _windows(series: list[Array], length: int, most: int = 20_000) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(cut(series, length, most)))


def _fit_prior(name: str | None, windows: Tensor) -> Prior:
    x = windows.flatten(1)
    known = ~x.isnan()
    if name is None:
        return StandardPrior.fit(x, known)
    dense = name != "lowrank" and x.shape[1] <= DENSE_LIMIT
    return PRIORS["gaussian" if dense else "lowrank"].fit(x, known)


def _fit_cyclic(series: list[Array], period: int, windows: Tensor) -> CyclicPrior:
    """Fit a Gaussian around the mean cycle of the series."""
    cycle = torch.from_numpy(mean_cycle(series, period))
    steps = torch.arange(windows.shape[1])
    centres = torch.stack([cycle[(phase + steps) % period].flatten() for phase in range(period)])
    x = windows.flatten(1)
    return CyclicPrior.around(centres, x, ~x.isnan())


def _fit_local(model: MaskedDiffusion, windows: Tensor, seed: int) -> LocalScale | None:
    """Return the local scale that is best on held-out windows, None where it is not worth having."""
    scales = [LocalScale.of_window(model.length, doubt) for doubt in DOUBTS]
    own, *errors = _crps(model, windows, seed, (None, *scales))
    best = int(np.argmin(errors))
    return scales[best] if errors[best] < (1 - LOCAL_WORTH) * own else None


def _crps(
    model: MaskedDiffusion,
    windows: Tensor,
    seed: int,
    scales: tuple[LocalScale | None, ...] = (None,),
    n_masks: int = 16,
    per_mask: int = 32,
) -> list[float]:
    """Return the closed form's CRPS on hidden entries of complete windows (NaN: none is), with each local scale."""
    windows = windows[~windows.isnan().flatten(1).any(1)]
    if not len(windows):
        return [float("nan")] * len(scales)
    generator = torch.Generator().manual_seed(seed + 3)
    visible = mixture(n_masks, windows.shape[1], windows.shape[2], generator, CALIBRATION_MIXTURE).flatten(1)
    x = windows.flatten(1)[torch.randint(len(windows), (n_masks, per_mask), generator=generator)]
    given = model.prior.condition(visible, ~visible)
    explained = given.explain(x)
    hidden = ~visible[:, None].expand(x.shape)
    found = []
    for local in scales:
        scale = given.scale[:, None] * (1.0 if local is None else local(explained, visible))
        z = (x - explained) / scale
        # Gneiting and Raftery (2007), eq. 21.
        normal = torch.distributions.Normal(0.0, 1.0)
        density = torch.exp(normal.log_prob(z))
        crps = scale * (z * (2 * normal.cdf(z) - 1) + 2 * density - math.pi**-0.5)
        found.append(float(crps[hidden].mean()))
    return found


def _held_out(rows: int, length: int) -> NDArray[np.bool_]:
    """Mark rows of evenly spread blocks, each at least one and a half windows long."""
    mark = np.zeros(rows, bool)
    if rows < 8 * length:
        return mark
    size = max(3 * length // 2, int(rows * HELD_OUT_SHARE / HELD_OUT_BLOCKS))
    blocks = min(HELD_OUT_BLOCKS, max(1, rows // (5 * size)))
    for i in range(blocks):
        # The last block ends the recording: a model is asked about what comes after its data.
        stop = rows * (i + 1) // blocks
        mark[stop - size : stop] = True
    return mark


def _split(series: list[Array], held: list[NDArray[np.bool_]], keep: bool) -> list[Array]:
    """Return the contiguous runs of rows that are (or are not) held out."""
    runs: list[Array] = []
    for rows, mark in zip(series, held, strict=True):
        edges = np.flatnonzero(np.diff(mark.astype(np.int8))) + 1
        pieces = np.split(rows, edges)
        marks = np.split(mark, edges)
        runs += [p for p, m in zip(pieces, marks, strict=True) if m[0] == keep]
    return runs


def fill_from_prior(model: MaskedDiffusion, windows: Tensor, seed: int) -> Tensor:
    """Replace unknown entries by one draw from the prior, so that batches can share their masks."""
    known = ~windows.isnan()
    if bool(known.all()):
        return windows
    noise = torch.randn((1, *windows.shape), generator=torch.Generator().manual_seed(seed))
    prior_alone = MaskedDiffusion(model.prior, model.length, model.channels, device=model.device)
    samples, *_ = prior_alone.sample(windows, known, ~known, noise, Sampler(), torch.Generator())
    return samples[0]


def calibrate(model: MaskedDiffusion, windows: Tensor, sampler: Sampler, seed: int) -> Bands:
    """Hide entries of held-out windows, sample them and learn the quantiles of the errors."""
    generator = torch.Generator().manual_seed(seed + 2)
    # Eight windows a mask keep the factorisations few.
    n_masks = CALIBRATION_WINDOWS // 8
    masks = mixture(n_masks, model.length, model.channels, generator, CALIBRATION_MIXTURE)
    visible = masks.repeat_interleave(8, 0)
    pick = torch.randint(len(windows), (len(visible),), generator=generator)
    x = windows[pick]
    known = ~x.isnan()
    visible, hidden = visible & known, ~visible & known
    noise = torch.randn((CALIBRATION_SAMPLES, *x.shape), generator=generator)
    with torch.no_grad():
        samples, *scales = model.sample(x, visible, hidden, noise, sampler, generator)
    where = hidden.numpy()
    draws = samples.numpy()
    z = (x.numpy() - np.median(draws, 0)) / spread(draws, *(s.numpy() for s in scales))
    channel = np.broadcast_to(np.arange(model.channels), where.shape)[where]
    kinds = gap_kinds(hidden).numpy()[where]
    # Held-out windows come in time order: quarters of them are about the held-out blocks.
    quarter = (pick * HELD_OUT_BLOCKS // len(windows)).numpy()
    block = np.broadcast_to(quarter[:, None, None], where.shape)[where]
    return Bands.fit(z[where].astype(float), kinds, channel, (len(GAP_KINDS), model.channels), block)


#: Generation has no truth to calibrate on; the other policies as users meet them.
CALIBRATION_MIXTURE = {"points": 0.5, "blocks": 0.25, "outages": 0.25}
