"""From rows to the evidence of each kind, as probabilities, and to each channel's share of the score.

Scoring runs rows -> evidence of several window lengths -> tails -> :mod:`diffad.evidence.combination` -> score; what
the tails are learnt from is the business of :mod:`diffad.evidence.cross_fitting`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import binary_opening

from diffad.base.caching import ForgetsCaches
from diffad.evidence.combination import combine
from diffad.evidence.nearness import NearestRows, ShapeModel
from diffad.evidence.second_look import second_look
from diffad.evidence.window_model import (
    BEREFT,
    CHUNK,
    GAUSSIAN,
    LOCAL,
    WindowModel,
    last_window,
    missingness,
    quietness,
    visible_share,
    windows_of_rows,
)
from diffad.series.windows import cut
from diffad.tails import LogTail, completed

Array = NDArray[np.float32]

#: Window length that is made shorter where entries or rows are few.
SHORT = 8
#: Window lengths of the closed forms, of quietness, of missing readings and of shape.
LENGTHS = (4, 8, 16, 32, 45)
QUIET_LENGTHS = (8, 16)
MISSING_LENGTHS = (16,)
SHAPE_LENGTHS = (32, 64, 96)
#: Those of what is nearest: of several channels a row is a combination, of a lone one it takes some rows.
NEAREST_LENGTHS, NEAREST_ALONE = (1,), (1, 4, 16)
#: Window length behind the expected value of a row.
EXPECTED_LENGTH = 32
#: Entries of a window (rows x channels) a dense precision may have.
DENSE_LIMIT = 1400

#: Key of the share of a window's entries that are visible, beside the kinds of evidence.
VISIBLE = "visible"


@dataclass(frozen=True)
class Lengths:
    """Window lengths of each family of evidence."""

    gaussian: tuple[int, ...]
    quiet: tuple[int, ...]
    missing: tuple[int, ...]
    shape: tuple[int, ...]
    nearest: tuple[int, ...]

    @classmethod
    def choose(cls, room: int, channels: int, kinds: tuple[str, ...]) -> Lengths:
        """Take the lengths of at most `room` rows, and of few enough entries."""
        most = max(1, min(room, DENSE_LIMIT // channels))
        # Where even a short window is too long, the longest that fits joins those that are shorter still.
        fitting = tuple(sorted({*(n for n in LENGTHS if n <= most), min(most, SHORT)}))
        return cls(
            fitting if set(kinds) & set(GAUSSIAN) else (),
            tuple(n for n in QUIET_LENGTHS if n <= room and "quiet" in kinds),
            tuple(n for n in MISSING_LENGTHS if n <= room and "missing" in kinds),
            tuple(n for n in SHAPE_LENGTHS if n <= room and "shape" in kinds),
            tuple(n for n in (NEAREST_LENGTHS if channels > 1 else NEAREST_ALONE) if n <= room and "nearest" in kinds),
        )

    @property
    def all(self) -> list[int]:
        """Every length once, in order."""
        return sorted({*self.gaussian, *self.quiet, *self.missing, *self.shape, *self.nearest})

    @property
    def longest(self) -> int:
        """The longest window."""
        return max(self.all, default=1)


@dataclass(frozen=True)
class Models:
    """All evidence of one recording's normal behaviour, uncalibrated."""

    windows: dict[int, WindowModel]
    shapes: dict[int, ShapeModel]
    nearest: dict[int, NearestRows]
    lengths: Lengths
    centred: bool

    @classmethod
    def fit(cls, runs: list[Array], lengths: Lengths, centred: bool, device: torch.device) -> Models:
        """Fit to contiguous runs of standardised normal rows (n, channels), NaN = missing."""
        windows = {n: WindowModel.fit(_cut(runs, n), _after(n, centred), device) for n in lengths.gaussian}
        shapes = {n: ShapeModel.fit(_cut(runs, n), device) for n in lengths.shape}
        nearest = {n: NearestRows.fit(_cut(runs, n), device) for n in lengths.nearest}
        return cls(windows, shapes, nearest, lengths, centred)

    def __call__(self, rows: Array) -> dict[tuple[str, int], Array]:
        """Return evidence (n, channels) of every row, by kind and window length, and `VISIBLE` (n, 1)."""
        result: dict[tuple[str, int], list[Array]] = {}
        for length in self.lengths.all:
            for _, windows in windows_of_rows(rows, length, _after(length, self.centred)):
                for kind, values in self._of_length(length, windows):
                    result.setdefault((kind, length), []).append(values.float().cpu().numpy())
        return {key: np.concatenate(parts) for key, parts in result.items()}

    def of_last(self, rows: Array) -> dict[tuple[str, int], Array]:
        """Return evidence (1, channels) of the last row alone, by windows that end with it."""
        window = last_window(rows, self.lengths.longest)
        return {
            (kind, length): values.float().cpu().numpy()
            for length in self.lengths.all
            for kind, values in self._of_length(length, window[:, -length:])
        }

    def _of_length(self, length: int, windows: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        yield VISIBLE, visible_share(windows)
        if length in self.windows:
            yield from self.windows[length](windows).items()
        if length in self.lengths.quiet:
            yield "quiet", quietness(windows)
        if length in self.lengths.missing:
            yield "missing", missingness(windows)
        if length in self.shapes:
            yield "shape", self.shapes[length](windows)
        if length in self.nearest:
            yield "nearest", self.nearest[length](windows)

    def each_by_itself(self, rows: Array) -> dict[tuple[str, int], Array]:
        """Return the linear evidence of all complete windows inside rows, each channel judged by itself."""
        result: dict[tuple[str, int], Array] = {}
        for length, model in self.windows.items():
            if len(rows) >= length:
                windows = torch.from_numpy(rows).unfold(0, length, 1).mT
                found = model.each_by_itself(windows[~windows.isnan().any(2).any(1)])
                result |= {(kind, length): values.cpu().numpy() for kind, values in found.items()}
        return result

    def expected(self, rows: Array) -> NDArray[np.float64]:
        """Return what each row should have shown (n, channels), given everything around it.

        Without Gaussian evidence nothing is expected but the mean, 0.
        """
        if not self.windows:
            return np.zeros(rows.shape)
        model = self._expecting
        parts = [model.expected(windows) for _, windows in windows_of_rows(rows, model.length, model.after)]
        return np.concatenate([p.numpy() for p in parts])

    def doubt(self, rows: Array) -> NDArray[np.float64]:
        """Return how much wider what is expected of rows (n, channels) is spread where much around it is missing.

        Where less than half of a row is there, given all that is; else given the other channels and what a channel
        shows itself, where it falls silent for more than `LOCAL` rows: each mask is a problem of its own, and scattered
        gaps change little.
        """
        result = np.ones(rows.shape)
        if not self.windows:
            return result
        model = self._expecting
        before, after = self.reach(model.length)
        missing = np.isnan(rows)
        silent = np.pad(binary_opening(missing, np.ones((LOCAL + 1, 1))), ((before, after), (0, 0)))
        for k in np.flatnonzero(silent.any(0)):
            masks = sliding_window_view(silent[:, k], model.length)
            near = masks.any(1)
            result[near, k] = model.doubt_of_silent(torch.from_numpy(masks[near]), int(k)).numpy()
        sparse = missing.mean(1) > 0.5
        if not sparse.any():
            return result
        for part, windows in windows_of_rows(rows, model.length, after):
            here = torch.from_numpy(sparse[part])
            result[part][sparse[part]] = model.doubt(windows[here]).numpy()
        return result

    def residual(self, rows: Array) -> NDArray[np.float64]:
        """Return rows (n, channels) minus what they should have shown.

        NaN where the window of a row reaches beyond the rows, unless all do: each of these is a problem of its own,
        and many channels make it a large one.
        """
        if not self.windows:
            return rows.astype(np.float64)
        model = self._expecting
        before, after = self.reach(model.length)
        if len(rows) <= model.length:
            return rows - self.expected(rows)
        windows = torch.from_numpy(rows).unfold(0, model.length, 1).mT
        inside = torch.cat([model.expected(part) for part in windows.split(CHUNK)]).numpy()
        result = np.full(rows.shape, np.nan)
        result[before : len(rows) - after] = rows[before : len(rows) - after] - inside
        return result

    @property
    def _expecting(self) -> WindowModel:
        """The Gaussian behind what is expected of a row."""
        return self.windows[min(self.windows, key=lambda n: abs(n - EXPECTED_LENGTH))]

    def reach(self, length: int) -> tuple[int, int]:
        """Return how many rows before and after the scored one a window sees."""
        after = _after(length, self.centred)
        return length - 1 - after, after


def _cut(runs: list[Array], length: int) -> torch.Tensor:
    """Return windows of the runs; those with outages are left out where enough are without."""
    long = [r for r in runs if len(r) >= length]
    windows = np.ascontiguousarray(cut(long or runs, length))
    whole = np.asarray(~np.isnan(windows).any((1, 2)))
    return torch.from_numpy(windows[whole] if 4 * whole.sum() >= len(whole) else windows)


def _after(length: int, centred: bool) -> int:
    return length // 2 if centred else 0


@dataclass(frozen=True)
class Tails(ForgetsCaches):
    """What normal evidence looks like, by kind and window length.

    Windows with holes look less strange than whole ones: a filled entry never surprises.  Where the normal rows had
    many, there are two sets of tails, and a window goes by either as far as it is complete.

    Attributes
    ----------
    usual : dict of (kind, length) to LogTail
        Of normal rows as they were.
    whole : dict of (kind, length) to LogTail
        Of the same rows with their gaps filled by draws; empty where they had none to speak of.
    visible : dict of int to float
        Visible share of the usual windows, by length.
    by_itself : dict of (kind, length) to LogTail
        Of the same rows where each channel is judged by itself, for those that are `BEREFT`: what is left of a channel
        whose ties are dead may have longer tails than what the ties left. Of both, the one that finds it less strange
        counts; without enough whole windows to learn from there is none.
    """

    usual: dict[tuple[str, int], LogTail]
    whole: dict[tuple[str, int], LogTail] = field(default_factory=dict)
    visible: dict[int, float] = field(default_factory=dict)
    by_itself: dict[tuple[str, int], LogTail] = field(default_factory=dict)

    def __call__(self, raw: Mapping[tuple[str, int], Array]) -> dict[tuple[str, int], Array]:
        """Return the root of -log p of evidence by kind and window length."""
        found = {key: np.sqrt(self.usual[key](raw[key])) for key in raw if key in self.usual}
        return self._by_completeness(found, {key: np.sqrt(self.whole[key](raw[key])) for key in self.whole}, raw)

    def of_last(self, raw: Mapping[tuple[str, int], Array]) -> dict[tuple[str, int], Array]:
        """Do the same for one row: one look at all tails together is what a live row can afford."""
        values = np.concatenate([raw[key] for key in self.usual], 1)
        ends = np.cumsum([raw[key].shape[1] for key in self.usual])[:-1]
        usual, whole = (
            dict(zip(self.usual, np.split(np.sqrt(tail(values)), ends, axis=1), strict=True)) if tail else {}
            for tail in self._together
        )
        return self._by_completeness(usual, whole, raw)

    @cached_property
    def _together(self) -> tuple[LogTail, LogTail | None]:
        whole = LogTail.beside([self.whole[key] for key in self.usual]) if self.whole else None
        return LogTail.beside(list(self.usual.values())), whole

    def _by_completeness(
        self,
        usual: dict[tuple[str, int], Array],
        whole: dict[tuple[str, int], Array],
        raw: Mapping[tuple[str, int], Array],
    ) -> dict[tuple[str, int], Array]:
        if not whole:
            return self._beside_dead(usual, raw)
        found = {
            key: completed(root, whole[key], raw[VISIBLE, key[1]], self.visible[key[1]]).astype(np.float32)
            for key, root in usual.items()
        }
        return self._beside_dead(found, raw)

    def _beside_dead(
        self, found: dict[tuple[str, int], Array], raw: Mapping[tuple[str, int], Array]
    ) -> dict[tuple[str, int], Array]:
        for key, tail in self.by_itself.items():
            bereft = raw[BEREFT, key[1]] > 0
            rows = bereft.any(1)
            if rows.any():
                lower = np.minimum(found[key][rows], np.sqrt(tail(raw[key][rows])))
                found[key][rows] = np.where(bereft[rows], lower, found[key][rows])
        return found


@dataclass(frozen=True)
class Scorer:
    """Evidence, its calibration and how it is combined.

    Attributes
    ----------
    models : Models
    tails : Tails
    kinds : tuple of str
    weights : mapping of kind to float
    """

    models: Models
    tails: Tails
    kinds: tuple[str, ...]
    weights: Mapping[str, float]

    def evidence(self, rows: Array) -> dict[str, Array]:
        """Return, per kind, the root of -log p of each row and channel, averaged over window lengths.

        Kinds of all channels together have one column, the others one per channel. Around a row, windows also see what
        came after: a lone channel is then looked at twice.
        """
        found = self._at_first_sight(rows)
        if rows.shape[1] > 1 or not self.models.centred:
            return found
        return second_look(rows, found, self._at_first_sight, max(self.models.reach(self.models.lengths.longest)))

    def _at_first_sight(self, rows: Array) -> dict[str, Array]:
        return self.calibrated(self.models(rows)) or nothing(len(rows))

    def evidence_of_last(self, rows: Array) -> dict[str, Array]:
        """Return :meth:`evidence` of the last row alone; only for windows that end with it."""
        if not self.tails.usual:
            return nothing(1)
        return self._by_kind(self.tails.of_last(self.models.of_last(rows))) or nothing(1)

    def calibrated(self, raw: Mapping[tuple[str, int], Array]) -> dict[str, Array]:
        """Turn evidence by kind and window length into evidence by kind; see :meth:`evidence`."""
        return self._by_kind(self.tails(raw))

    def _by_kind(self, roots: Mapping[tuple[str, int], Array]) -> dict[str, Array]:
        """Average over the window lengths of each kind."""
        gathered: dict[str, list[Array]] = {}
        for (kind, _), values in roots.items():
            gathered.setdefault(kind, []).append(values)
        return {kind: np.mean(gathered[kind], 0) for kind in self.kinds if kind in gathered}

    def by_channel(self, evidence: Mapping[str, Array], channels: int) -> NDArray[np.float64]:
        """Return each channel's share (n, channels) of the rows' scores."""
        return combine(evidence, self.weights, channels)


def nothing(n: int) -> dict[str, Array]:
    """Return the evidence of recordings too short for any of the kinds asked for."""
    return {"window": np.zeros((n, 1), np.float32)}
