"""From evidence to one score per row: cross-fitted probabilities, combined without labels.

Data flow one way: series -> contiguous folds -> evidence of each fold by models that have not seen
it -> tails -> models of everything.  Scoring runs evidence -> tails -> weights -> score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from diffad.completing import complete
from diffad.evidence import ShapeModel, WindowModel, last_window, quietness, windows_of_rows
from diffad.tails import LogTail
from diffad.windows import cut

Array = NDArray[np.float32]

#: Window lengths of the closed forms, of quietness and of shape.
LENGTHS = (8, 16, 32, 45)
QUIET_LENGTHS = (8, 16)
SHAPE_LENGTHS = (32, 64, 96)
#: Window length behind the expected value of a row.
EXPECTED_LENGTH = 32
#: Entries of a window (rows x channels) a dense precision may have.
DENSE_LIMIT = 1400
#: Contiguous blocks for cross-fitting.
FOLDS = 4
#: Rows that half of the training data must have to say how it predicts the other half.
AHEAD_LEAST = 100
#: Rows whose normal scores are kept; more say little about a tail and cost memory.
MOST_NORMAL = 40_000

#: How much each kind counts.  Found on injected faults in four recordings; a plateau, not a peak.
WEIGHTS: dict[str, float] = {
    "energy": 0.2,
    "local": 0.2,
    "filter": 0.4,
    "step": 0.2,
    "window": 0.1,
    "quiet": 0.75,
    "shape": 0.5,
}
#: Exponents of the means over kinds (their groups) and over channels: nearly a maximum.
KIND_POWER, CHANNEL_POWER = 1.5, 16.0


@dataclass(frozen=True)
class Lengths:
    """Window lengths of each family of evidence."""

    gaussian: tuple[int, ...]
    quiet: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def choose(cls, folds: list[list[Block]], channels: int, kinds: tuple[str, ...]) -> Lengths:
        """Take the lengths of which every fold holds at least two windows in one block."""
        room = min(max(b - a for _, a, b in fold) for fold in folds) // 2
        fitting = tuple(n for n in LENGTHS if n <= room and n * channels <= DENSE_LIMIT)
        fitting = fitting or (max(1, min(LENGTHS[0], room, DENSE_LIMIT // channels)),)
        return cls(
            fitting if set(kinds) - {"quiet", "shape"} else (),
            tuple(n for n in QUIET_LENGTHS if n <= room and "quiet" in kinds),
            tuple(n for n in SHAPE_LENGTHS if n <= room and "shape" in kinds),
        )

    @property
    def all(self) -> list[int]:
        """Every length once, in order."""
        return sorted({*self.gaussian, *self.quiet, *self.shape})

    @property
    def longest(self) -> int:
        """The longest window."""
        return max(self.all, default=1)


@dataclass(frozen=True)
class Models:
    """All evidence of one recording's normal behaviour, uncalibrated."""

    windows: dict[int, WindowModel]
    shapes: dict[int, ShapeModel]
    lengths: Lengths
    centred: bool

    @classmethod
    def fit(cls, runs: list[Array], lengths: Lengths, centred: bool, device: torch.device) -> Models:
        """Fit to contiguous runs of standardised normal rows (n, channels), NaN = missing."""
        windows = {n: WindowModel.fit(_cut(runs, n), _after(n, centred), device) for n in lengths.gaussian}
        shapes = {n: ShapeModel.fit(_cut(runs, n), device) for n in lengths.shape}
        return cls(windows, shapes, lengths, centred)

    def __call__(self, rows: Array) -> dict[tuple[str, int], Array]:
        """Return evidence (n, channels) of every row, by kind and window length."""
        result: dict[tuple[str, int], list[Array]] = {}
        for length in self.lengths.all:
            for _, windows in windows_of_rows(rows, length, _after(length, self.centred)):
                for kind, values in self._of_length(length, windows):
                    result.setdefault((kind, length), []).append(values.float().cpu().numpy())
        return {key: np.concatenate(parts) for key, parts in result.items()}

    def of_last(self, rows: Array) -> dict[tuple[str, int], Array]:
        """Return evidence (1, channels) of the last row alone, by windows that end with it."""
        return {
            (kind, length): values.float().cpu().numpy()
            for length in self.lengths.all
            for kind, values in self._of_length(length, last_window(rows, length))
        }

    def _of_length(self, length: int, windows: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        if length in self.windows:
            yield from self.windows[length](windows).items()
        if length in self.lengths.quiet:
            yield "quiet", quietness(windows)
        if length in self.shapes:
            yield "shape", self.shapes[length](windows)

    def expected(self, rows: Array) -> NDArray[np.float64]:
        """Return what each row should have shown (n, channels), given everything around it.

        Without Gaussian evidence nothing is expected but the mean, 0.
        """
        if not self.windows:
            return np.zeros(rows.shape)
        length = min(self.windows, key=lambda n: abs(n - EXPECTED_LENGTH))
        model, after = self.windows[length], self.reach(length)[1]
        parts = [model.expected(windows, after) for _, windows in windows_of_rows(rows, length, after)]
        return np.concatenate([p.numpy() for p in parts])

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
class Scorer:
    """Evidence, its calibration and how it is combined.

    Attributes
    ----------
    models : Models
    tails : dict of (kind, length) to LogTail
    kinds : tuple of str
    weights : mapping of kind to float
    """

    models: Models
    tails: dict[tuple[str, int], LogTail]
    kinds: tuple[str, ...]
    weights: Mapping[str, float]

    def evidence(self, rows: Array) -> dict[str, Array]:
        """Return, per kind, the root of -log p of each row and channel, averaged over window lengths.

        "window" has one column, the other kinds one per channel.
        """
        return self.calibrated(self.models(rows)) or _nothing(len(rows))

    def evidence_of_last(self, rows: Array) -> dict[str, Array]:
        """Return :meth:`evidence` of the last row alone; only for windows that end with it."""
        return self.calibrated(self.models.of_last(rows)) or _nothing(1)

    def calibrated(self, raw: Mapping[tuple[str, int], Array]) -> dict[str, Array]:
        """Turn evidence by kind and window length into evidence by kind; see :meth:`evidence`."""
        gathered: dict[str, list[Array]] = {}
        for key, values in raw.items():
            if key[0] in self.kinds:
                gathered.setdefault(key[0], []).append(np.sqrt(self.tails[key](values)))
        return {kind: np.mean(gathered[kind], 0) for kind in self.kinds if kind in gathered}

    def by_channel(self, evidence: Mapping[str, Array], channels: int) -> NDArray[np.float64]:
        """Return each channel's share (n, channels) of the rows' scores."""
        return combine(evidence, self.weights, channels)


def combine(evidence: Mapping[str, Array], weights: Mapping[str, float], channels: int) -> NDArray[np.float64]:
    """Combine kinds, then channels; return shares (n, channels) that add up to the score.

    The linear kinds of one Gaussian are averaged; their mean, quietness and shape are different
    reasons and enter a power mean.  Over channels a high power is nearly the maximum: one bad
    sensor among many must show.  The whole window's part goes to the channels in their proportion.
    """
    n = len(next(iter(evidence.values())))
    gaussian = np.zeros((n, channels))
    others = np.zeros((n, channels))
    for kind, values in evidence.items():
        if kind in ("quiet", "shape"):
            others += (weights[kind] * values) ** KIND_POWER
        elif kind != "window":
            gaussian += weights[kind] * values
    strange = (gaussian**KIND_POWER + others) ** (1 / KIND_POWER)
    top = strange.max(1, keepdims=True)
    ratio = (strange / np.maximum(top, 1e-12)) ** CHANNEL_POWER
    size = ratio.sum(1, keepdims=True)
    total = top * size ** (1 / CHANNEL_POWER)
    if "window" in evidence:
        total = total + weights["window"] * evidence["window"]
    even = np.full_like(ratio, 1 / max(1, channels))
    return total * np.where(size > 0, ratio / np.maximum(size, 1e-12), even)


@dataclass(frozen=True)
class CrossFit:
    """A scorer, and the evidence of its own training rows by models that had not seen them.

    Attributes
    ----------
    scorer : Scorer
    normal : dict of str to array (n, channels or 1)
    rows : list of (series, int array)
        Which rows `normal` belongs to, in order; none of what is only remembered.
    residual : array (n, channels)
        What these rows showed minus what models that had not seen them expected.
    """

    scorer: Scorer
    normal: dict[str, Array]
    rows: list[tuple[int, NDArray[np.int64]]]
    residual: NDArray[np.float64]


def fit_scorer(
    series: list[Array],
    kinds: tuple[str, ...],
    weights: Mapping[str, float],
    centred: bool,
    device: torch.device,
    remembered: Sequence[Array] = (),
) -> CrossFit:
    """Fit evidence to normal series and calibrate it by cross-fitting on contiguous blocks.

    Parameters
    ----------
    series : list of array (n_timestamps, channels)
        Standardised rows in time order, NaN = missing; rows without any value are left out.
    kinds : tuple of str
        Evidence to use, of `KINDS`.
    weights : mapping of kind to float
    centred : bool
        Windows around the scored row; False ends them with it.
    device : torch.device
    remembered : sequence of array (n_timestamps, channels), optional
        Earlier normal series from which models and tails learn as well.
    """
    old, series = len(remembered), [*remembered, *series]
    # Each fold holds its part of either: no row is judged by models of another time alone.
    folds = _folds_beside([len(s) for s in series[:old]], [len(s) for s in series[old:]])
    whole_series = complete(series)
    lengths = Lengths.choose(folds, series[0].shape[1], kinds)
    raw: dict[tuple[str, int], list[Array]] = {}
    whole: dict[tuple[str, int], list[NDArray[np.bool_]]] = {}
    rows, residual = [], []
    for fold in folds:
        others = [r for other in folds if other is not fold for r in other] if len(folds) > 1 else fold
        model = Models.fit([whole_series[i][a:b] for i, a, b in others], lengths, centred, device)
        for i, a, b in _thinned(fold, len(folds)):
            # Context from beyond the block keeps its edges as well informed as its middle.
            first, last = max(0, a - lengths.longest), min(len(series[i]), b + lengths.longest)
            known = ~np.isnan(series[i][a:b]).all(1)
            rows.append((i, np.arange(a, b)[known]))
            context = series[i][first:last]
            residual.append((context - model.expected(context))[a - first : b - first][known])
            for key, values in model(context).items():
                before, after = model.reach(key[1])
                inside = (np.arange(a, b) >= a + before) & (np.arange(a, b) < b - after)
                raw.setdefault(key, []).append(values[a - first : b - first][known])
                whole.setdefault(key, []).append(inside[known])
    joined = {key: np.concatenate(parts) for key, parts in raw.items()}
    tails = {}
    for key, values in joined.items():
        # Windows that overlap other folds were partly trained on: tails are learnt without them.
        unseen = np.concatenate(whole[key])
        tails[key] = LogTail.fit(values[unseen] if unseen.sum() >= 50 else values)
    scorer = Scorer(Models.fit(whole_series, lengths, centred, device), tails, kinds, weights)
    normal = scorer.calibrated(joined) or _nothing(sum(len(r) for _, r in rows))
    new = np.concatenate([np.full(len(r), i >= old) for i, r in rows])
    rows = [(i - old, r) for i, r in rows if i >= old]
    return CrossFit(scorer, {kind: v[new] for kind, v in normal.items()}, rows, np.concatenate(residual)[new])


def scores_ahead(
    series: list[Array],
    kinds: tuple[str, ...],
    weights: Mapping[str, float],
    centred: bool,
    device: torch.device,
    remembered: Sequence[Array] = (),
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]] | None:
    """Score the second half of normal series by models of the first: how well does cross-fitting foretell it?

    Cross-fitting judges each block by rows on both sides of it, so it does not see drift.

    Parameters
    ----------
    series, kinds, weights, centred, device, remembered
        As in :func:`fit_scorer`.

    Returns
    -------
    expected : list of array (n,)
        Cross-fitted scores of the first half, one array per block.
    seen : array (n,)
        Scores of the second half.
    None
        Where a half has fewer than `AHEAD_LEAST` rows, or a channel shows nothing in the first.
    """
    half = sum(len(s) for s in series) // 2
    if half < AHEAD_LEAST:
        return None
    ends = np.cumsum([len(s) for s in series])
    middles = [int(np.clip(half - (end - len(s)), 0, len(s))) for s, end in zip(series, ends, strict=True)]
    first = [s[:middle] for s, middle in zip(series, middles, strict=True) if middle]
    if np.isnan(np.concatenate(first)).all(0).any():
        return None
    fitted = fit_scorer(first, kinds, weights, centred, device, remembered)
    scorer, channels = fitted.scorer, series[0].shape[1]
    found = []
    for rows, middle in zip(series, middles, strict=True):
        if middle == len(rows):
            continue
        before = max(0, middle - scorer.models.lengths.longest)
        scores = scorer.by_channel(scorer.evidence(rows[before:]), channels).sum(1)[middle - before :]
        found.append(scores[~np.isnan(rows[middle:]).all(1)])
    seen = np.concatenate(found)
    if len(seen) < AHEAD_LEAST:
        return None
    edges = np.cumsum([len(r) for _, r in fitted.rows])[:-1]
    expected = np.split(scorer.by_channel(fitted.normal, channels).sum(1), edges)
    return [block for block in expected if len(block)], seen


def _nothing(n: int) -> dict[str, Array]:
    """Return the evidence of recordings too short for any of the kinds asked for."""
    return {"window": np.zeros((n, 1), np.float32)}


#: A contiguous block of rows: series, first row, row after the last.
Block = tuple[int, int, int]


def _folds(lengths: list[int]) -> list[list[Block]]:
    """Cut series into FOLDS lists of contiguous blocks of about equal size in total."""
    total = sum(lengths)
    n = FOLDS if total >= 16 * FOLDS else 1
    edges = np.linspace(0, total, n + 1).astype(int)
    starts = np.r_[0, np.cumsum(lengths)]
    folds: list[list[Block]] = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        parts = [
            (i, max(0, low - s), min(length, high - s))
            for i, (s, length) in enumerate(zip(starts, lengths, strict=False))
        ]
        folds.append([(i, int(a), int(b)) for i, a, b in parts if b > a])
    return folds


def _folds_beside(old: list[int], new: list[int]) -> list[list[Block]]:
    """Cut the first and the last of several series each into folds, and pair these."""
    earlier = _folds(old) if old else []
    later = [[(i + len(old), a, b) for i, a, b in fold] for fold in _folds(new)]
    folds: list[list[Block]] = [[] for _ in range(max(len(earlier), len(later)))]
    for blocks in (earlier, later):
        for fold, part in zip(folds, blocks, strict=False):
            fold.extend(part)
    return folds


def _thinned(fold: list[Block], n_folds: int, size: int = 1000) -> list[Block]:
    """Keep evenly spread blocks of a long fold: enough rows for a tail, and bounded memory."""
    if sum(b - a for _, a, b in fold) <= MOST_NORMAL // n_folds:
        return fold
    pieces = [(i, s, min(b, s + size)) for i, a, b in fold for s in range(a, b, size)]
    pick = np.unique(np.linspace(0, len(pieces) - 1, MOST_NORMAL // n_folds // size).astype(int))
    return [pieces[j] for j in pick]


def reweight(
    evidence: Mapping[str, Array], faulty: NDArray[np.bool_], weights: Mapping[str, float], channels: int
) -> dict[str, float]:
    """Return weights that rank the rows marked `faulty` higher, by coordinate search.

    Each kind's weight may be halved or doubled once, where that raises the average precision by
    1 % of what is missing: a few labels of a few kinds must not blind the detector to the others.
    """
    best = dict(weights)
    precision = average_precision_score(faulty, combine(evidence, best, channels).sum(1))
    for kind in evidence:
        for factor in (0.5, 2.0):
            trial = best | {kind: weights[kind] * factor}
            found = average_precision_score(faulty, combine(evidence, trial, channels).sum(1))
            if found > precision + 0.01 * (1 - precision):
                best, precision = trial, found
    return best
