"""Normal rows judged by models that have not seen them: how evidence gets its tails, and thresholds their scores.

Data flow one way: series -> contiguous folds -> evidence of each fold by models of the others -> tails ->
models of everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.evidence.scoring import VISIBLE, Lengths, Models, Scorer, Tails, nothing
from diffad.filling.completing import complete
from diffad.tails import LogTail

Array = NDArray[np.float32]
#: A contiguous block of rows: series, first row, row after the last.
Block = tuple[int, int, int]

#: Contiguous blocks for cross-fitting.
FOLDS = 4
#: Rows that half of the training data must have to say how it predicts the other half.
AHEAD_LEAST = 100
#: Power of its rise, ahead, by which evidence counts less, and the most that counts.
DISTRUST, MOST_RISE = 2.0, 10.0
#: Share of the normal entries that must be missing for whole windows to have tails of their own.
MISSING = 0.02
#: Windows that tails are learnt from, at least.
LEAST_TAIL = 50
#: Rows whose normal scores are kept, in pieces; more say little about a tail and cost memory.
MOST_NORMAL, PIECE = 40_000, 1000


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
        What these rows showed minus what models that had not seen them expected; NaN where the window around a row
        is not whole, as long as there are others.
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
    whole = complete(series)
    # Every fold holds at least two windows of any length in one block.
    room = min(max(b - a for _, a, b in fold) for fold in folds) // 2
    lengths = Lengths.choose(room, series[0].shape[1], kinds)
    judged = _Judged(series, whole)
    for fold in folds:
        others = [r for other in folds if other is not fold for r in other] if len(folds) > 1 else fold
        model = Models.fit([whole[i][a:b] for i, a, b in others], lengths, centred, device)
        for block in _thinned(fold, len(folds)):
            judged.add(model, block)
    scorer = Scorer(Models.fit(whole, lengths, centred, device), judged.tails(kinds), kinds, weights)
    normal = judged.evidence(scorer)
    new = np.concatenate([np.full(len(r), i >= old) for i, r in judged.rows])
    rows = [(i - old, r) for i, r in judged.rows if i >= old]
    residual = np.concatenate(judged.residual)[new]
    return CrossFit(scorer, {kind: values[new] for kind, values in normal.items()}, rows, residual)


@dataclass(frozen=True)
class Ahead:
    """How well the first half of normal rows foretells the second.

    Attributes
    ----------
    expected : list of array (n,)
        Cross-fitted scores of the first half, one array per block.
    seen : array (n,)
        Scores of the second half by models of the first.
    trust : dict of kind to float
        Factor, at most 1, of the weights of kinds that go by single rows of training: rows of another time are not
        near to any, and say so of whatever comes.
    """

    expected: list[NDArray[np.float64]]
    seen: NDArray[np.float64]
    trust: dict[str, float]


def look_ahead(
    series: list[Array],
    kinds: tuple[str, ...],
    weights: Mapping[str, float],
    centred: bool,
    device: torch.device,
    remembered: Sequence[Array] = (),
) -> Ahead | None:
    """Score the second half of normal series by models of the first: how well does cross-fitting foretell it?

    Cross-fitting judges each block by rows on both sides of it, so it does not see drift.

    Parameters
    ----------
    series, kinds, weights, centred, device, remembered
        As in :func:`fit_scorer`.

    Returns
    -------
    Ahead or None
        None where a half has fewer than `AHEAD_LEAST` rows, or a channel shows nothing in the first.
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
    found: dict[str, list[Array]] = {kind: [] for kind in fitted.normal}
    for rows, middle in zip(series, middles, strict=True):
        if middle == len(rows):
            continue
        before = max(0, middle - scorer.models.lengths.longest)
        known = ~np.isnan(rows[middle:]).all(1)
        for kind, values in scorer.evidence(rows[before:]).items():
            found[kind].append(values[middle - before :][known])
    later = {kind: np.concatenate(parts) for kind, parts in found.items()}
    if len(next(iter(later.values()))) < AHEAD_LEAST:
        return None
    trust = {"nearest": _trust(fitted.normal["nearest"], later["nearest"])} if "nearest" in later else {}
    scorer = replace(scorer, weights=trusted(weights, trust))
    edges = np.cumsum([len(r) for _, r in fitted.rows])[:-1]
    expected = np.split(scorer.by_channel(fitted.normal, channels).sum(1), edges)
    seen = scorer.by_channel(later, channels).sum(1)
    return Ahead([block for block in expected if len(block)], seen, trust)


def trusted(weights: Mapping[str, float], trust: Mapping[str, float]) -> dict[str, float]:
    """Return weights of which some count less.

    Examples
    --------
    >>> trusted({"energy": 0.2, "nearest": 0.5}, {"nearest": 0.5})
    {'energy': 0.2, 'nearest': 0.25}
    """
    return {kind: weight * trust.get(kind, 1.0) for kind, weight in weights.items()}


def _trust(expected: Array, seen: Array) -> float:
    """Return by how much less evidence is to count that rose from one half of the normal rows to the other."""
    rise = float(seen.mean()) / max(float(expected.mean()), 1e-12)
    return float(np.clip(rise, 1.0, MOST_RISE) ** -DISTRUST)


class _Judged:
    """Normal rows, block by block, as models judge them that have not seen them.

    Attributes
    ----------
    rows : list of (series, int array)
        Which rows were judged, in order.
    residual : list of array (n, channels)
        What they showed minus what was expected, block by block.
    seen : _Gathered
        Evidence of the rows as they are.
    """

    def __init__(self, series: list[Array], whole: list[Array]) -> None:
        self.rows: list[tuple[int, NDArray[np.int64]]] = []
        self.residual: list[NDArray[np.float64]] = []
        self.seen, self._filled = _Gathered(), _Gathered()
        self._by_itself: dict[tuple[str, int], list[Array]] = {}
        self._looks: list[tuple[Models, Array, slice, NDArray[np.bool_]]] = []
        self._series, self._whole = series, whole
        missing = float(np.mean(np.concatenate([np.isnan(s).ravel() for s in series])))
        self._holes, self._several = missing > MISSING, series[0].shape[1] > 1

    def add(self, model: Models, block: Block) -> None:
        """Judge the known rows of a block."""
        i, a, b = block
        series, whole, longest = self._series[i], self._whole[i], model.lengths.longest
        # Context from beyond the block keeps its edges as well informed as its middle.
        first, last = max(0, a - longest), min(len(series), b + longest)
        known = np.asarray(~np.isnan(series[a:b]).all(1))
        context, inside = slice(first, last), slice(a - first, b - first)
        self.rows.append((i, np.arange(a, b)[known]))
        if not self._several:
            self._looks.append((model, series[context], inside, known))
        self.residual.append(model.residual(series[context])[inside][known])
        self.seen.add(model, series[context], inside, known)
        if self._holes:
            self._filled.add(model, whole[context], inside, known)
        if self._several:
            for key, values in model.each_by_itself(whole[a:b]).items():
                self._by_itself.setdefault(key, []).append(values)

    def evidence(self, scorer: Scorer) -> dict[str, Array]:
        """Return the evidence of the judged rows, by a scorer's tails and the models that had not seen them."""
        found = scorer.calibrated(self.seen.joined()) or nothing(sum(len(r) for _, r in self.rows))
        if not self._looks or not scorer.models.centred or "nearest" not in found:
            return found
        parts = [
            {kind: values[inside][known] for kind, values in replace(scorer, models=model).evidence(context).items()}
            for model, context, inside, known in self._looks
        ]
        return {kind: np.concatenate([part[kind] for part in parts]) for kind in found}

    def tails(self, kinds: tuple[str, ...]) -> Tails:
        """Return what evidence of some kinds looks like in normal rows."""
        visible = {length: float(v.mean()) for (kind, length), v in self.seen.joined().items() if kind == VISIBLE}
        usual, whole = self.seen.tails(kinds), self._filled.tails(kinds)
        # A filled recording has no missing readings: how many are usual, only the recording as it was can tell.
        whole |= {key: tail for key, tail in usual.items() if key[0] == "missing" and whole}
        joined = {key: np.concatenate(parts) for key, parts in self._by_itself.items() if key[0] in kinds}
        by_itself = {key: LogTail.fit(values) for key, values in joined.items() if len(values) >= LEAST_TAIL}
        return Tails(usual, whole, visible, by_itself)


class _Gathered:
    """Evidence of normal rows, block by block."""

    def __init__(self) -> None:
        self.raw: dict[tuple[str, int], list[Array]] = {}
        self.unseen: dict[tuple[str, int], list[NDArray[np.bool_]]] = {}

    def add(self, model: Models, context: Array, block: slice, known: NDArray[np.bool_]) -> None:
        """Judge the known rows of a block, which lies within its context."""
        place = np.arange(block.start, block.stop)
        for key, values in model(context).items():
            before, after = model.reach(key[1])
            inside = (place - before >= block.start) & (place + after < block.stop)
            self.raw.setdefault(key, []).append(values[block][known])
            self.unseen.setdefault(key, []).append(inside[known])

    def joined(self) -> dict[tuple[str, int], Array]:
        return {key: np.concatenate(parts) for key, parts in self.raw.items()}

    def tails(self, kinds: tuple[str, ...]) -> dict[tuple[str, int], LogTail]:
        """Return tails of some kinds; windows that overlap other folds were partly trained on, and are left out."""
        found = {}
        for key, values in self.joined().items():
            unseen = np.concatenate(self.unseen[key])
            if key[0] in kinds:
                # Missing readings come in nats already, and often in none of the normal rows.
                least = 1.0 if key[0] == "missing" else 0.0
                found[key] = LogTail.fit(values[unseen] if unseen.sum() >= LEAST_TAIL else values, least)
        return found


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


def _thinned(fold: list[Block], n_folds: int) -> list[Block]:
    """Keep evenly spread blocks of a long fold: enough rows for a tail, and bounded memory."""
    most = MOST_NORMAL // n_folds
    if sum(b - a for _, a, b in fold) <= most:
        return fold
    pieces = [(i, s, min(b, s + PIECE)) for i, a, b in fold for s in range(a, b, PIECE)]
    return [pieces[j] for j in evenly_spread([b - a for _, a, b in pieces], most)]


def evenly_spread(n_rows: Sequence[int], most: int) -> NDArray[np.int64]:
    """Return the numbers of evenly spread pieces, of so many rows each, that hold at most `most`; one at least."""
    rows, n_kept = np.asarray(n_rows), len(n_rows)
    pick = np.arange(n_kept)
    # Pieces differ in length: a share of them need not be that share of the rows.
    while n_kept > 1 and rows[pick].sum() > most:
        n_kept = max(1, min(n_kept - 1, int(n_kept * most / rows[pick].sum())))
        pick = np.linspace(0, len(rows) - 1, n_kept).astype(np.int64)
    return pick
