"""From standardised series to the fitted, gated and calibrated model behind a `SeriesImputer`.

Data flow one way: series -> held-out blocks -> prior -> fill -> network -> gate -> bands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffad.calibration import Bands, spread
from diffad.diffusion.masks import GAP_KINDS, gap_kinds, mixture
from diffad.filling.completing import complete
from diffad.filling.levels import LevelRange, wandering, with_free_levels
from diffad.filling.prior_fitting import USUAL_GAPS, choose_closed_form, closed_form_of_few, fit_local, windows_of
from diffad.learning import learn
from diffad.model import MaskedDiffusion, Sampler
from diffad.priors import StandardPrior
from diffad.series.held_out import HELD_OUT_BLOCKS, held_out, split
from diffad.training import Progress, Training

Array = NDArray[np.float32]

#: Windows that calibrate the bands, and samples behind each.
CALIBRATION_WINDOWS = 384
CALIBRATION_SAMPLES = 20


@dataclass(frozen=True)
class Fitted:
    """A model ready for use, its bands, the levels it knows, how it was trained, and whether rows were held out."""

    model: MaskedDiffusion
    bands: Bands
    levels: LevelRange
    history: list[dict[str, float]] = field(default_factory=list)
    gain: float = 0.0
    held_out: bool = True


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

    Held-out windows choose the closed form of prior ``"auto"``.  Recordings that can spare none
    (:mod:`diffad.series.held_out`) get a Gaussian as stationary as it takes, bands wide enough for a spread that few windows told, and no network.
    """
    channels = series[0].shape[1]
    if channels == 0:
        nothing = MaskedDiffusion(StandardPrior(0), length, 0, device=device)
        return Fitted(nothing, Bands.gaussian(len(GAP_KINDS), 0), LevelRange.fit(series, length))
    completed = complete(series, seed)
    levels = LevelRange.fit(completed, length)
    whole = windows_of(completed, length)
    held = held_out([len(s) for s in series], length)
    if not any(h.any() for h in held):
        alone = MaskedDiffusion(closed_form_of_few(prior).fit(whole, completed), length, channels, device=device)
        if prior == "auto":
            # Few rows do not tell a mean from a level that wanders.
            alone.carrier = with_free_levels(alone.prior, length, np.ones(channels, bool))
        bands = Bands.of_few(len(GAP_KINDS), channels, windows=sum(len(s) for s in series) / length)
        return Fitted(alone, bands, levels, held_out=False)

    train = windows_of(split(series, held, False), length)
    test = windows_of(split(series, held, True), length, most=4000)
    judge = windows_of(split(completed, held, True), length, most=4000)
    plausible = windows_of(split(completed, held, False), length)
    rest = [np.where(h[:, None], np.float32(np.nan), s) for s, h in zip(completed, held, strict=True) if not h.all()]
    form, fitted = choose_closed_form(prior, plausible, rest, judge, seed)
    model = MaskedDiffusion(fitted, length, channels, device=device)
    history: list[dict[str, float]] = []
    gain = 0.0
    if training.max_steps:
        filled = fill_from_prior(model, train, seed)
        filled_test = fill_from_prior(model, test, seed)
        history, gain = learn(
            model, filled, ~train.isnan(), filled_test, ~test.isnan(), training, seed, on_progress, form=str(form)
        )
    if prior == "auto":
        model.local = fit_local(model, judge, seed)
    bands = calibrate(model, test, sampler, seed)
    # What was held out has done its work: the prior may know it.
    model.prior = form.fit(whole, completed)
    if prior == "auto":
        model.carrier = with_free_levels(model.prior, length, wandering(completed, length))
    return Fitted(model, bands, levels, history, gain)


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
    masks = mixture(n_masks, model.length, model.channels, generator, USUAL_GAPS)
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
