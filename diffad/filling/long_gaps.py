"""Gaps longer than a window can see across: what is known on either side is carried in, window by window.

A window that lies wholly inside a gap knows nothing of its edges.  Two passes do: one goes forward and takes what it
has just filled for given, sample by sample, so that a level, a trend or a phase lives on; one comes back from the other
side.  The one knows the left edge (F), the other the right one (B); a window by itself is shown what both see (D).  In a
Markov process what they know beyond it is independent: precisions add, and what both know counts once,

    P = P_F + P_B - P_D,        mean = (P_F m_F + P_B m_B - P_D m_D) / P

(information filter form of the two-filter smoother; Fraser and Potter 1969, "The optimum linear smoother as a
combination of two optimum linear filters").  Between two ends of a random walk that is the Brownian bridge; where a
process forgets, it is the window by itself; at the end of a recording it is the forward pass, a forecast.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffad.model import MaskedDiffusion, Sampler
from diffad.priors import Conditional, CyclicPrior, Prior
from diffad.series.runs import in_runs

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Most entries, rows times channels, that are looked at together; a gap is cut there, which bounds memory.
MOST_ENTRIES = 2**17
#: Draws that tell how sure a pass is.
DRAWS = 32
#: Masks that a prior is remembered under.
MOST_MASKS = 16
#: Part of the variance by itself that a pass must save somewhere in a window's length, else it has forgotten.
FORGOTTEN = 0.95


def long_runs(missing: Mask, length: int) -> Mask:
    """Return the entries (n, channels) of runs of missing values longer than half a window."""
    return in_runs(missing, np.full(missing.shape[1], length // 2 + 1))


def stretches(runs: Mask, length: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows to look at, and those of them to tell: of `MOST_ENTRIES`, with a window more on either side."""
    rows, most = np.flatnonzero(runs.any(1)), max(4 * length, MOST_ENTRIES // max(1, runs.shape[1]))
    if not len(rows):
        return
    for part in np.split(rows, np.flatnonzero(np.diff(rows) > 2 * length) + 1):
        for begin in range(part[0], part[-1] + 1, most):
            end = min(begin + most, part[-1] + 1)
            yield slice(max(0, begin - length), min(len(runs), end + length)), slice(begin, end)


@dataclass(frozen=True)
class Told:
    """What a pass says: the middle (rows, channels), deviations of draws from it, and their variance."""

    middle: Array
    deviations: Array
    variance: Array

    @classmethod
    def of(cls, draws: Array) -> Told:
        """Read draws (1 + n, rows, channels), of which the first is the middle."""
        deviations = draws[1:] - draws[0]
        return cls(draws[0], deviations, _variance(deviations))

    def where(self, holds: Mask, other: Told) -> Told:
        """Return this where `holds`, else the other."""
        return Told(*(np.where(holds, a, b) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def doubted(self, *others: Told) -> Told:
        """Return this, at least as unsure as those who know more find it wrong: Var x = E Var(x | y) + Var E(x | y).

        A window that sees nothing of a cycle may answer with the mean of all phases, as if it were sure.
        """
        found = [other.variance + (other.middle - self.middle) ** 2 for other in others]
        return replace(self, variance=np.max([self.variance, *found], axis=0))


def _phase_known(alone: Told, passes: list[Told], spread: Array) -> Told:
    """Return what both passes know where both know the phase of a cycle, which an empty window does not see.

    It is in the middle of the two, with the spread (channels,) of a process around a cycle of known phase.
    """
    certainty = np.stack([1 / told.variance for told in passes])
    middle = (certainty * np.stack([told.middle for told in passes])).sum(0) / certainty.sum(0)
    variance = np.minimum(alone.variance, spread)
    return Told(middle, alone.deviations * np.sqrt(variance / alone.variance), variance)


def bridged(alone: Told, forward: Told, backward: Told) -> Told:
    """Put together what two passes know; `alone` is what both know."""
    # Neither pass knows less than a window by itself; where it looks so, it saw less far, or by chance.
    forward, backward = (way.where(way.variance < alone.variance, alone) for way in (forward, backward))
    p, p_forward, p_backward = 1 / alone.variance, 1 / forward.variance, 1 / backward.variance
    precision = p_forward + p_backward - p

    def joined(one: Array, other: Array, both: Array) -> Array:
        return np.asarray((p_forward * one + p_backward * other - p * both) / precision, np.float32)

    deviations = joined(forward.deviations, backward.deviations, alone.deviations)
    deviations /= np.sqrt(_variance(deviations) * precision)
    middle = joined(forward.middle, backward.middle, alone.middle)
    return Told(middle, deviations, np.asarray(1 / precision, np.float32))


def _variance(deviations: Array) -> Array:
    return np.asarray(np.maximum((deviations**2).mean(0), 1e-12), np.float32)


@dataclass(frozen=True)
class Passes:
    """Windows over a stretch of rows, of which each tells a quarter.

    Parameters
    ----------
    model : MaskedDiffusion
    rows : array (n, channels)
        Standardised, NaN = missing; at least a window of them.
    noise : array (draws, n, channels)
        White noise of the rows.
    """

    model: MaskedDiffusion
    rows: Array
    noise: Array

    def alone(self) -> Told:
        """Return what windows say by themselves, of what the windows of both passes see."""
        return Told.of(self._draws())

    def middle(self) -> Array:
        """Return the middle of it alone (n, channels)."""
        return replace(self, noise=self.noise[:0])._draws()[0]

    def _draws(self) -> Array:
        length, step = self.model.length, self._step
        given = np.repeat(self.rows[None], 1 + len(self.noise), 0)
        draws = given.copy()
        middle = (length - step) // 2
        both = slice(middle - length // 2 + step, middle - length // 2 + length)
        for window, here, inner in self._windows(middle):
            if not np.isnan(self.rows[here]).any():
                continue
            seen = given[:, window].copy()
            if 0 < window.start < len(self.rows) - length:
                seen[:, : both.start] = seen[:, both.stop :] = np.nan
            draws[:, here] = np.where(np.isnan(given[:, here]), self._filled(seen, window)[:, inner], given[:, here])
        return draws

    def carried(self, alone: Told, runs: Mask, backward: bool = False) -> Told:
        """Return what windows say that take for given what those before them (or behind) said about long runs."""
        half = self.model.length // 2
        draws = np.repeat(self.rows[None], 1 + len(self.noise), 0)
        told = alone.middle + np.concatenate([np.zeros((1, *self.rows.shape), np.float32), alone.deviations])
        windows = list(self._windows(half - self._step if backward else half))
        for window, here, _ in reversed(windows) if backward else windows:
            window = self._turned(window, here, backward)
            channels = runs[here].any(0)
            given = slice(here.stop, window.stop) if backward else slice(window.start, here.start)
            if np.isnan(draws[0, given][:, channels]).all():
                continue
            inner = slice(here.start - window.start, here.stop - window.start)
            draws[:, here] = self._filled(draws[:, window], window)[:, inner]
            told[:, here] = draws[:, here]
            brought = Told.of(draws[:, here])
            before = Told(alone.middle[here], alone.deviations[:, here], alone.variance[here]).doubted(brought)
            if (brought.variance > FORGOTTEN * before.variance)[runs[here]].all():
                draws[:, here] = self.rows[here]
        return Told.of(told)

    def _turned(self, window: slice, here: slice, backward: bool) -> slice:
        """Return a window that looks back only, on rows `here`, if there is nothing to see ahead."""
        length = self.model.length
        ahead = slice(window.start, here.start) if backward else slice(here.stop, window.stop)
        start = here.start if backward else here.stop - length
        if not 0 <= start <= len(self.rows) - length or not np.isnan(self.rows[ahead]).all():
            return window
        return slice(start, start + length)

    @property
    def _step(self) -> int:
        return max(1, self.model.length // 4)

    def _windows(self, offset: int) -> Iterator[tuple[slice, slice, slice]]:
        """Yield windows, the rows that each is to tell, and these within it; the outermost tell all up to the ends."""
        length, last = self.model.length, len(self.rows) - self.model.length
        starts = [*range(0, last, self._step), last]
        begins = [0, *(start + offset for start in starts[1:])]
        for start, begin, end in zip(starts, begins, [*begins[1:], len(self.rows)], strict=True):
            yield slice(start, start + length), slice(begin, end), slice(begin - start, end - start)

    def _filled(self, windows: Array, where: slice) -> Array:
        """Fill windows (1 + draws, length, channels) with the same entries missing; the first gets no noise."""
        given = torch.from_numpy(np.ascontiguousarray(windows))
        visible = ~given.isnan()
        noise = np.concatenate([np.zeros((1, *windows.shape[1:]), np.float32), self.noise[:, where]])
        with torch.no_grad():
            filled, *_ = self.model.sample(
                given, visible, ~visible, torch.from_numpy(noise)[None], Sampler(), torch.Generator()
            )
        return filled[0].numpy()


@dataclass
class CachedClosedForm(MaskedDiffusion):
    """A model without its network that remembers masks it has just met: inside a gap all windows are alike."""

    met: OrderedDict[bytes, Conditional] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, model: MaskedDiffusion, prior: Prior) -> CachedClosedForm:
        return cls(prior, model.length, model.channels, device=model.device, local=model.local)

    def condition(self, visible: Tensor, hidden: Tensor) -> Conditional:
        """Condition the prior on masks (M, length, channels)."""
        key = torch.stack([visible, hidden]).numpy().tobytes()
        if key not in self.met:
            self.met[key] = super().condition(visible, hidden)
        self.met.move_to_end(key)
        while len(self.met) > MOST_MASKS:
            self.met.popitem(last=False)
        return self.met[key]


def across(model: MaskedDiffusion, rows: Array, runs: Mask, noise: Array) -> tuple[Told, Mask]:
    """Return what is known of rows (n, channels), NaN = missing, and where among `runs` windows alone know less.

    The passes go through the closed form, at whose speed they can afford to draw; a network moves their middle by what
    it says about windows by themselves.
    """
    prior = model.carrier or model.prior
    closed = Passes(CachedClosedForm.of(model, prior), rows, noise)
    alone = closed.alone()
    passes = [closed.carried(alone, runs, backward) for backward in (False, True)]
    by_itself, alone = alone, alone.doubted(*passes)
    shared = alone
    if isinstance(prior, CyclicPrior):
        of_entries = prior.covariance.diagonal().view(model.length, model.channels)
        known = _phase_known(alone, passes, of_entries.mean(0).float().numpy())
        # Where a pass had nothing to carry, as at an end of the recording, it says what windows say by themselves.
        both = np.all([told.middle != by_itself.middle for told in passes], axis=0)
        shared = known.where(np.asarray(runs.all(1, keepdims=True) & both), alone)
    told = bridged(shared, *passes)
    if model.network is not None:
        without = Passes(CachedClosedForm.of(model, model.prior), rows, noise).middle()
        shift = Passes(model, rows, noise).middle() - without
        told = replace(told, middle=told.middle + shift)
    return told, runs & (told.variance < FORGOTTEN * alone.variance)
