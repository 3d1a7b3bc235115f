"""Which closed form describes a recording's windows best, judged by the CRPS on rows it has not seen.

Normal scores or plain values; how far the covariance is shrunk towards a stationary one; one mean or a mean
that repeats; a spread that follows what was surprising nearby or one that does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffad.diffusion.masks import mixture
from diffad.filling.completing import complete
from diffad.metrics import crps
from diffad.model import MaskedDiffusion, Sampler
from diffad.priors import (
    PRIORS,
    CyclicPrior,
    GaussianPrior,
    Prior,
    StandardPrior,
    gaussian_of_few,
    stationary_covariance,
)
from diffad.priors.local_scale import LocalScale
from diffad.series.held_out import held_out, split
from diffad.series.marginals import Marginals
from diffad.series.scaling import squash, unsquash
from diffad.series.seasonality import find_period, mean_cycle
from diffad.series.windows import cut

Array = NDArray[np.float32]
#: Maps values (..., channels) to others.
Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Standard deviations at which training values are cut: one wild reading must not own the prior.
WILD = 8.0
#: Part of the CRPS that bending channels to normal scores must save.
WORTH = 0.01
#: How far a covariance may be shrunk towards the stationary one, and how far while marginals are compared.
SHARES = (0.0, 0.2, 0.6, 0.9)
USUAL_SHARE = 0.2
#: Surprises that shrink a local scale, to choose from, and the part of the CRPS that it must save.
DOUBTS = (3.0, 10.0, 30.0)
LOCAL_WORTH = 0.002
#: Masks that judge closed forms, and windows under each.
N_MASKS, PER_MASK = 16, 32
#: Entries per window beyond which the dense Gaussian gives way to low rank plus diagonal.
DENSE_LIMIT = 1536
#: Generation has no truth to judge by; the other policies as users meet them.
USUAL_GAPS = {"points": 0.5, "blocks": 0.25, "outages": 0.25}
#: Samples per window where only samples can be judged.
N_SAMPLES = 20


@dataclass(frozen=True)
class ClosedForm:
    """A kind of closed form, ready to be fitted to windows of any part of a recording.

    Parameters
    ----------
    prior : {"auto", "gaussian", "lowrank", None}
    share : float or None
        How far the covariance of a dense Gaussian is shrunk towards the stationary one, None for as far as windows
        show to be best themselves.
    period : int or None
        Rows after which the mean repeats.
    """

    prior: str | None
    share: float | None = 0.0
    period: int | None = None

    def fit(self, windows: Tensor, series: list[Array]) -> Prior:
        """Fit to windows (n, length, channels); `series` (n_timestamps, channels) tell the cycle; NaN = missing."""
        x = windows.flatten(1)
        known = ~x.isnan()
        if self.prior is None:
            return StandardPrior.fit(x, known)
        if self.prior == "lowrank" or x.shape[1] > DENSE_LIMIT:
            return PRIORS["lowrank"].fit(x, known)
        if self.share is None:
            return gaussian_of_few(windows)
        if self.period is None:
            gaussian = GaussianPrior.fit(x, known)
            return GaussianPrior(gaussian.mean, self._shrunk(gaussian.covariance, windows))
        cycle = torch.from_numpy(mean_cycle(series, self.period))
        steps = torch.arange(windows.shape[1])
        centres = torch.stack([cycle[(phase + steps) % self.period].flatten() for phase in range(self.period)])
        cyclic = CyclicPrior.around(centres, x, known)
        return CyclicPrior(cyclic.centres, self._shrunk(cyclic.covariance, windows))

    def _shrunk(self, covariance: Tensor, windows: Tensor) -> Tensor:
        if not self.share:
            return covariance
        stationary = stationary_covariance(covariance, *windows.shape[1:])
        return (1 - self.share) * covariance + self.share * stationary


def closed_form_of_few(prior: str | None) -> ClosedForm:
    """Return the closed form of a recording that is too short to hold rows out."""
    return ClosedForm(prior, None if prior == "auto" else 0.0)


def windows_of(series: list[Array], length: int, most: int = 20_000) -> Tensor:
    """Return windows (n, length, channels) of series."""
    return torch.from_numpy(np.ascontiguousarray(cut(series, length, most)))


def choose_closed_form(
    prior: str | None, windows: Tensor, series: list[Array], judge: Tensor, seed: int
) -> tuple[ClosedForm, Prior]:
    """Return the closed form that is best on windows to judge by, and it fitted to the others.

    Only ``"auto"`` leaves a choice, and only while windows are small enough for a dense Gaussian and some to judge
    by are complete.

    Parameters
    ----------
    prior : {"auto", "gaussian", "lowrank", None}
    windows : Tensor of shape (n, length, channels)
        Standardised; gaps hold plausible values.
    series : list of array (n_timestamps, channels)
        The recording they were cut from, every row in its place: NaN where it is held out.
    judge : Tensor of shape (m, length, channels)
        Windows of the rows that are held out.
    seed : int
    """
    best = ClosedForm(prior) if bool((~judge.isnan()).flatten(1).all(1).any()) else closed_form_of_few(prior)
    fitted = best.fit(windows, series)
    if prior != "auto" or not isinstance(fitted, GaussianPrior):
        return best, fitted
    shape = (judge.shape[1], judge.shape[2])

    def error(candidate: Prior) -> float:
        return closed_form_crps(MaskedDiffusion(candidate, *shape), judge, seed)[0]

    least = error(fitted)
    for form in [replace(best, share=share) for share in SHARES if share]:
        candidate = form.fit(windows, series)
        if (found := error(candidate)) < least:
            best, fitted, least = form, candidate, found
    period = find_period(series, 2 * shape[0])
    if period is not None:
        form = replace(best, period=period)
        candidate = form.fit(windows, series)
        if error(candidate) < least:
            return form, candidate
    return best, fitted


def fit_local(model: MaskedDiffusion, windows: Tensor, seed: int) -> LocalScale | None:
    """Return the local scale that is best on held-out windows, None where it is not worth having."""
    scales = [LocalScale.of_window(model.length, doubt) for doubt in DOUBTS]
    own, *errors = closed_form_crps(model, windows, seed, (None, *scales))
    best = int(np.argmin(errors))
    return scales[best] if errors[best] < (1 - LOCAL_WORTH) * own else None


def closed_form_crps(
    model: MaskedDiffusion,
    windows: Tensor,
    seed: int,
    scales: Sequence[LocalScale | None] = (None,),
) -> list[float]:
    """Return the closed form's CRPS on hidden entries of complete windows (NaN: none is), with each local scale."""
    windows = windows[~windows.isnan().flatten(1).any(1)]
    if not len(windows):
        return [float("nan")] * len(scales)
    generator = torch.Generator().manual_seed(seed + 3)
    visible = mixture(N_MASKS, windows.shape[1], windows.shape[2], generator, USUAL_GAPS).flatten(1)
    x = windows.flatten(1)[torch.randint(len(windows), (N_MASKS, PER_MASK), generator=generator)]
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
        error = scale * (z * (2 * normal.cdf(z) - 1) + 2 * density - math.pi**-0.5)
        found.append(float(error[hidden].mean()))
    return found


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
    held = held_out([len(s) for s in series], length)
    if not any(h.any() for h in held):
        return None
    completed = complete(series, seed)
    train, test = (split(completed, held, keep) for keep in (False, True))
    marginals = Marginals.fit(np.concatenate(split(series, held, False)).astype(np.float64))
    plain = _mapped_crps(train, test, length, seed, lambda x: x, lambda z: z)
    bent = _mapped_crps(
        train, test, length, seed, lambda x: squash(marginals.forward(x)), lambda z: marginals.inverse(unsquash(z))
    )
    if not bent < (1 - WORTH) * plain:
        return None
    return Marginals.fit(np.concatenate(series).astype(np.float64))


def _mapped_crps(train: list[Array], test: list[Array], length: int, seed: int, forward: Map, inverse: Map) -> float:
    """Return the CRPS of a Gaussian of mapped windows on hidden entries of test windows."""

    def mapped(part: list[Array]) -> list[Any]:
        return [forward(s.astype(np.float64)).astype(np.float32) for s in part]

    bounded = [s.clip(-WILD, WILD) for s in mapped(train)]
    prior = ClosedForm("auto", USUAL_SHARE).fit(windows_of(bounded, length), bounded)
    z, truth = (windows_of(part, length, most=4000) for part in (mapped(test), test))
    whole = ~z.isnan().flatten(1).any(1)
    z, truth = z[whole], truth[whole]
    channels = truth.shape[2]
    if not len(z):
        return float("nan")
    generator = torch.Generator().manual_seed(seed + 4)
    visible = mixture(16, length, channels, generator, USUAL_GAPS).repeat_interleave(16, 0)
    pick = torch.randint(len(z), (len(visible),), generator=generator)
    noise = torch.randn((N_SAMPLES, len(visible), length, channels), generator=generator)
    model = MaskedDiffusion(prior, length, channels)
    samples, *_ = model.sample(z[pick], visible, ~visible, noise, Sampler(), generator)
    error = crps(inverse(samples.numpy().astype(np.float64)), truth[pick].numpy().astype(np.float64))
    return float(error[~visible.numpy()].mean())
