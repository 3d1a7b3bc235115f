"""From recordings to samples of their gaps, a batch of segments at a time: memory does not grow with their length.

Short gaps go recording -> segments -> overlapping windows -> model -> segments (:mod:`diffad.series.windows`); what
windows alone do not know, gaps longer than half of one, is told by :mod:`diffad.filling.long_gaps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from diffad.base.defaults import pinned_defaults
from diffad.diffusion.masks import gap_kinds
from diffad.filling.levels import LevelRange, with_far_levels
from diffad.filling.long_gaps import DRAWS, across, long_runs, stretches
from diffad.model import MaskedDiffusion, Sampler
from diffad.series.recordings import Recording
from diffad.series.scaling import Scaling
from diffad.series.windows import Cover, Segment, segments, turns_of, white_noise

Array = NDArray[np.float32]
#: Makes values (..., rows, modelled channels) of samples, the scales of their bands and the kinds of the gaps.
Reduce = Callable[[Array, Array, NDArray[np.int64]], NDArray[Any]]


class Filled(NamedTuple):
    """What is told of a segment.

    Attributes
    ----------
    segment : Segment
    samples : array (S, rows, modelled channels)
        Standardised.
    scales : array (2, rows, modelled channels)
        Of their bands.
    missing : array (rows, channels) of bool
        Entries that this is about.
    """

    segment: Segment
    samples: Array
    scales: Array
    missing: NDArray[np.bool_]


@dataclass(frozen=True)
class Filling:
    """How the gaps of recordings are sampled.

    Attributes
    ----------
    model : MaskedDiffusion
    scaling : Scaling
    levels : LevelRange
        Windows that leave it are filled by the closed form, whose levels may be far away: neither the mean of
        the rows fitted on nor a network trained on them says anything of what lies beyond.
    sampler : Sampler
    seed : int
    """

    model: MaskedDiffusion
    scaling: Scaling
    levels: LevelRange
    sampler: Sampler
    seed: int

    def reduced(self, recording: Recording, reduce: Reduce, n_samples: int | None) -> list[Any]:
        """Return each series (..., rows, channels) of a recording with what `reduce` makes of the samples in its gaps.

        None samples: the middle of the distribution as the only one.
        """
        pieces: list[Any] = [None] * len(recording.series)
        modelled = self.scaling.modelled
        for segment, samples, scales, missing in self.segments(recording, n_samples, everywhere=True):
            source = recording.series[segment.series]
            kinds = _kinds(missing[:, modelled], self.model.length)
            values = self.scaling.inverse(reduce(samples, scales, kinds))
            if pieces[segment.series] is None:
                pieces[segment.series] = np.broadcast_to(source, (*values.shape[:-2], *source.shape)).copy()
            part = pieces[segment.series][..., segment.start : segment.stop, :]
            part[..., missing] = values[..., missing]
        return pieces

    def segments(self, recording: Recording, n_samples: int | None, everywhere: bool = False) -> Iterator[Filled]:
        """Yield segments with gaps, or all of them `everywhere`; a later one overrules what an earlier one told."""
        scaled = [self.scaling.forward(s).astype(np.float32) for s in recording.series]
        lengths = [len(s) for s in scaled]
        turns = turns_of(scaled) if n_samples else [0] * len(scaled)
        # Shown on a terminal only, and only where it takes a while.
        bar = tqdm(
            total=sum(lengths), desc="filling", unit="row", unit_scale=True, delay=2.0, leave=False, disable=None
        )
        varies = bool(self.scaling.modelled.any())
        for batch in _progressing(segments(lengths), bar):
            told = self._by_windows(scaled, turns, batch, n_samples) if varies else _nothing(batch, n_samples or 1)
            for segment, (samples, scales) in zip(batch, told, strict=True):
                missing = np.isnan(recording.series[segment.series][segment.start : segment.stop])
                if everywhere or missing.any():
                    yield Filled(segment, samples, scales, missing)
        if varies:
            yield from self._long_gaps(recording, scaled, turns, n_samples)

    def _by_windows(
        self, scaled: list[Array], turns: list[int], batch: list[Segment], n_samples: int | None
    ) -> Iterator[tuple[Array, Array]]:
        cover = Cover.build(scaled, batch, self.model.length)
        noise = partial(cover.white_noise, self.seed, scaled, turns, batch, n_samples or 1)
        samples = np.zeros((n_samples or 1, *cover.windows.shape), np.float32)
        scales = np.ones((2, *cover.windows.shape), np.float32)
        for model, which in self._models(cover.windows):
            windows = cover.windows[which]
            visible = ~np.isnan(windows)
            hidden = ~visible & cover.inside[which, :, None]
            white = torch.from_numpy(noise(0, which.tolist())) if n_samples else torch.zeros(1, *windows.shape)
            with torch.no_grad(), pinned_defaults():
                samples[:, which], *found = model.sample(
                    torch.from_numpy(windows),
                    torch.from_numpy(visible),
                    torch.from_numpy(hidden),
                    white,
                    self.sampler if n_samples else Sampler(),
                    torch.Generator(),
                    fresh=partial(_fresh, noise, which),
                )
            scales[:, which] = torch.stack(found)
        weights = cover.weights()
        return zip(cover.stitch(samples, batch, weights), cover.stitch(scales, batch, weights), strict=True)

    def _models(self, windows: Array) -> Iterator[tuple[MaskedDiffusion, NDArray[np.int64]]]:
        """Yield models and the numbers of the windows (n, length, channels) that each is to fill."""
        left = self.levels.left(windows)
        if left.any():
            prior = with_far_levels(self.model.prior, self.model.length)
            if prior is None:
                left[:] = False
            else:
                yield replace(self.model, prior=prior, network=None), np.flatnonzero(left)
        if not left.all():
            yield self.model, np.flatnonzero(~left)

    def _long_gaps(
        self, recording: Recording, scaled: list[Array], turns: list[int], n_samples: int | None
    ) -> Iterator[Filled]:
        modelled, length = self.scaling.modelled, self.model.length
        for k, rows in enumerate(scaled):
            if len(rows) <= length:
                continue
            runs = long_runs(np.isnan(rows), length)
            for here, wanted in stretches(runs, length):
                n_draws = max(n_samples or 0, DRAWS)
                noise = white_noise(self.seed, rows, np.arange(here.start, here.stop), n_draws, turn=turns[k])
                with pinned_defaults():
                    told, better = across(self.model, rows[here], runs[here], noise)
                samples = told.middle + told.deviations[:n_samples] if n_samples else told.middle[None]
                scales = np.stack([np.sqrt(told.variance), np.ones_like(told.variance)])
                missing = np.zeros((len(better), len(modelled)), bool)
                missing[:, modelled] = better
                missing[: wanted.start - here.start] = missing[wanted.stop - here.start :] = False
                yield Filled(Segment(k, here.start, here.stop), samples, scales, missing)


def _nothing(batch: list[Segment], n_samples: int) -> Iterator[tuple[Array, Array]]:
    """Yield the samples of segments in which no channel varies: there is nothing to sample."""
    for segment in batch:
        rows = segment.stop - segment.start
        yield np.zeros((n_samples, rows, 0), np.float32), np.zeros((2, rows, 0), np.float32)


def _fresh(noise: Any, which: NDArray[np.int64], step: int, windows: torch.Tensor) -> torch.Tensor:
    """Return the noise that a step of a stochastic sampler adds to windows of some; the first is that it starts from."""
    return torch.from_numpy(noise(1 + step, which[windows.numpy()].tolist()))


def _progressing(batches: Iterator[list[Segment]], bar: tqdm) -> Iterator[list[Segment]]:
    """Yield batches of segments and count the rows that are done."""
    with bar:
        for batch in batches:
            yield batch
            bar.update(sum(s.stop - s.start for s in batch))


def _kinds(hidden: NDArray[np.bool_], window: int) -> NDArray[np.int64]:
    """Classify gaps in blocks of a window's length, as they were seen in calibration."""
    rows, channels = hidden.shape
    padded = np.zeros((-(-rows // window) * window, channels), bool)
    padded[:rows] = hidden
    blocks = torch.from_numpy(padded.reshape(len(padded) // window, window, channels))
    result: NDArray[np.int64] = gap_kinds(blocks).numpy().reshape(len(padded), channels)[:rows]
    return result
