"""Evidence that a window is not normal: of a Gaussian, too quiet, readings lost.

What was never met, a shape or a row, is in :mod:`diffad.evidence.nearness`.  Every kind looks at the
windows of one recording, a window per row, and returns one number per row and channel, larger =
stranger.  The numbers of different kinds have different units; :mod:`diffad.evidence.scoring` turns them into
probabilities.

With the precision ``P`` of a window and ``u = P (x - mean)``, channel ``k`` *given everything else
in the window* has the energy ``u_k' P_kk^-1 u_k``, and ``(v' u_k)^2 / (v' P_kk v)`` is twice the log
likelihood ratio of a fault of shape ``v`` added to that channel (the matched filter; Kay 1998,
"Fundamentals of statistical signal processing", volume 2, section 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from diffad.base.caching import ForgetsCaches
from diffad.priors import GaussianPrior
from diffad.priors.gaussian import fill_missing, surely_whole, visible_distance

#: Kinds of evidence of a channel given everything else; see :class:`WindowModel`.
LINEAR = ("energy", "local", "filter", "step")
#: Kinds that are closed forms of one Gaussian.
GAUSSIAN = (*LINEAR, "decoupled", "window")
#: Those of single channels that are no closed form of the Gaussian, each a reason of its own.
BESIDE_GAUSSIAN = ("quiet", "missing", "shape")
#: All of them, in their order.
KINDS = (*GAUSSIAN, *BESIDE_GAUSSIAN, "nearest")
#: Those of all channels together, with one column.
WHOLE = ("window", "nearest")
#: Kinds that compare channels with each other: of a single one they say nothing.
AMONG_CHANNELS = ("decoupled", "missing")

#: Rows of the short block of "local" evidence.
LOCAL = 8
#: Lengths of the boxes that "filter" looks for; 1 is a spike, the whole window a level.
BOXES = (1, 2, 4, 8, 16, 32)
#: Information in nats that the others must hold of a channel's block before it can be found to ignore them.
COUPLED = 0.05
#: Information in nats a reading whose loss with a dead channel makes what is left of another one something else.
BEREFT_OF = 0.05
#: Key of the channels that lost so much, beside the kinds of evidence.
BEREFT = "bereft"
#: Share of readings that may be missing by chance, whatever the training showed.
GAPPY = 0.25
#: -log p below which missing readings say nothing.
UNREMARKABLE = 3.0
#: Entries of the matrices of windows whose doubt is worked out together; bounds memory.
DOUBTED = 2**22
#: Entries of the operators that a model keeps for channels that died; bounds memory.
KEPT = 2**24
#: Windows that pass a model together; bounds memory whatever the recording's length.
CHUNK = 2048

Array = NDArray[np.float32]


def windows_of_rows(rows: Array, length: int, after: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of windows (n, length, channels), one per row, with `after` rows after it.

    What lies beyond the recording is NaN, as is what is missing.
    """
    before = length - 1 - after
    padded = np.pad(rows, ((before, after), (0, 0)), constant_values=np.nan)
    for start in range(0, len(rows), CHUNK):
        stop = min(start + CHUNK, len(rows))
        part = torch.from_numpy(padded[start : stop + length - 1])
        yield slice(start, stop), part.unfold(0, length, 1).mT


def last_window(rows: Array, length: int) -> Tensor:
    """Return the window (1, length, channels) that ends with the last row."""
    tail = rows[-length:]
    padded = np.pad(tail, ((length - len(tail), 0), (0, 0)), constant_values=np.nan)
    return torch.from_numpy(padded)[None]


@dataclass(frozen=True)
class WindowModel(ForgetsCaches):
    """Closed-form evidence of one window length.

    ``energy`` hides a channel's whole block, ``local`` its `LOCAL` rows around the scored one;
    ``filter`` is the best of boxes of several lengths, ``step`` a jump at the scored row, both
    given everything else in the window; ``window`` is the Mahalanobis distance of the whole.
    ``decoupled`` is twice the log likelihood ratio, up to a constant, of a channel's block that is normal by
    itself against one that fits the other channels: right readings at the wrong time. A single channel has none, and one
    that was never tied to the others -inf.

    Where channels show nothing in the whole window, the others are judged by the Gaussian of these others alone: filled
    with what they say, a dead channel would confirm whatever they do.

    Attributes
    ----------
    after : int
        Rows of a window after the scored one.
    mean : Tensor of shape (d,)
    precision : Tensor of shape (d, d), float64
    operator : Tensor of shape (d, outputs)
        All linear evidence in one matrix.
    parts : dict of str to int
        How many outputs each kind has per channel, in order.
    own_root : Tensor of shape (channels, length, length)
        Whitens each channel's block by itself.
    coupled : Tensor of shape (channels,), bool
        Whether the others say anything of a channel.
    """

    length: int
    channels: int
    after: int
    mean: Tensor
    precision: Tensor
    operator: Tensor
    parts: dict[str, int]
    own_root: Tensor
    coupled: Tensor

    @classmethod
    def fit(cls, windows: Tensor, after: int, device: torch.device) -> WindowModel:
        """Fit to windows (n, length, channels), NaN = missing."""
        _, length, channels = windows.shape
        flat = windows.flatten(1)
        prior = GaussianPrior.fit(flat, ~flat.isnan())
        precision = torch.linalg.inv(prior.covariance)
        precision = (precision + precision.mT) / 2
        factor = torch.linalg.cholesky(_blocks(prior.covariance, channels))
        own_root = torch.linalg.solve_triangular(factor, torch.eye(length, dtype=factor.dtype), upper=False)
        linear = _linear(precision, length, channels, after)
        parts = {name: len(rows) for name, rows in linear.items()}
        operator = _operator([*linear.values(), torch.linalg.cholesky(precision).mT[:, None]])
        coupled = _certainty(precision, channels) - _root_certainty(own_root) > COUPLED
        mean, operator, own_root, coupled = (
            t.to(device) for t in (prior.mean.float(), operator, own_root.float(), coupled)
        )
        return cls(length, channels, after, mean, precision, operator, parts, own_root, coupled)

    def __call__(self, windows: Tensor) -> dict[str, Tensor]:
        """Return evidence (n, channels) of windows (n, length, channels); "window" is (n, 1).

        Also which channels (n, channels) are `BEREFT` of what a dead one told of them.
        """
        x = self.complete(windows.flatten(1)).to(self.mean.device) - self.mean
        squares = (x @ self.operator).square_()
        coupled = self.coupled.expand(len(windows), -1)
        bereft = torch.zeros(len(windows), self.channels, dtype=torch.bool)
        if not surely_whole(windows):
            coupled, dead = coupled.clone(), windows.isnan().all(1)
            # A window that shows nothing at all says nothing by any model.
            for pattern in dead[dead.any(1) & ~dead.all(1)].unique(dim=0):
                alike = (dead == pattern).all(1)
                operator, coupled[alike], bereft[alike] = self._without(tuple(pattern.tolist()))
                squares[alike, : operator.shape[1]] = (x[alike] @ operator).square_()
        linear = sum(self.parts.values()) * self.channels
        result = self._linear_evidence(squares[:, :linear].unflatten(1, (-1, self.channels)))
        result["window"] = squares[:, linear:].sum(1, keepdim=True)
        if self.channels > 1:
            ratio = result["energy"] - self._own_distance(windows)
            result["decoupled"] = torch.where(coupled, ratio, -torch.inf)
            result[BEREFT] = bereft
        return result

    @cached_property
    def _without(self) -> Callable[[tuple[bool, ...]], tuple[Tensor, Tensor, Tensor]]:
        """Return, for a mark of each channel that is dead, the others' linear operator, who is coupled and who bereft.

        The last is on the CPU, as windows are.
        """
        return lru_cache(max(1, KEPT // self.operator.numel()))(self._of_living)

    def _of_living(self, dead: tuple[bool, ...]) -> tuple[Tensor, Tensor, Tensor]:
        hidden = torch.tensor(dead).repeat(self.length)
        across = self.precision[hidden]
        # The precision of a Gaussian's margin is a Schur complement; what is hidden is set apart.
        among = torch.linalg.cholesky(across[:, hidden])
        margin = self.precision - across.mT @ torch.cholesky_solve(across, among)
        margin = torch.where(hidden | hidden[:, None], torch.eye(len(hidden), dtype=margin.dtype), margin)
        linear = _linear((margin + margin.mT) / 2, self.length, self.channels, self.after)
        operator = torch.where(hidden[:, None], 0.0, _operator([*linear.values()]))
        left = _certainty(margin, self.channels)
        coupled = left - _root_certainty(self.own_root.cpu().double()) > COUPLED
        bereft = _certainty(self.precision, self.channels) - left > BEREFT_OF * self.length
        return operator.to(self.mean.device), coupled.to(self.mean.device), bereft & ~torch.tensor(dead)

    def each_by_itself(self, windows: Tensor) -> dict[str, Tensor]:
        """Return the linear evidence (n, channels) of complete windows, each channel judged by itself."""
        root = self.own_root.cpu().double()
        linear = [_linear(own, self.length, 1, self.after) for own in root.mT @ root]
        operator = torch.stack([_operator(list(rows.values())) for rows in linear]).to(self.mean.device)
        mean = self.mean.view(self.length, self.channels)
        blocks = [(part.to(mean.device) - mean).permute(2, 0, 1) for part in windows.split(CHUNK)]
        found = [self._linear_evidence(torch.bmm(x, operator).square_().permute(1, 2, 0)) for x in blocks]
        return {kind: torch.cat([part[kind] for part in found]) for kind in self.parts}

    def _linear_evidence(self, squares: Tensor) -> dict[str, Tensor]:
        """Return evidence (n, channels) by kind of all its squared outputs (n, outputs, channels)."""
        parts = squares.split(list(self.parts.values()), 1)
        return {
            kind: part.amax(1) if kind in ("filter", "step") else part.sum(1)
            for kind, part in zip(self.parts, parts, strict=True)
        }

    def _own_distance(self, windows: Tensor) -> Tensor:
        """Return the Mahalanobis distance (n, channels) of each channel's block by itself; inf if it shows nothing."""
        mean = self.mean.cpu().view(self.length, self.channels)
        blocks = (windows - mean).permute(2, 0, 1)
        distance = (blocks.to(self.own_root.device) @ self.own_root.mT).square().sum(2).cpu()
        if not surely_whole(distance):
            missing = blocks.isnan()
            silent = missing.all(2)
            partly = (missing.any(2) & ~silent).nonzero()
            if len(partly):
                which, window = partly.mT
                shown = visible_distance(blocks[which, window], which, self.own_root.cpu().double())
                distance[which, window] = shown.float()
            distance[silent] = torch.inf
        return distance.to(self.own_root.device).mT

    def complete(self, x: Tensor) -> Tensor:
        """Replace missing entries of windows (n, d); see :func:`diffad.priors.gaussian.fill_missing`."""
        return fill_missing(x, self.mean.cpu(), self.precision)

    def expected(self, windows: Tensor) -> Tensor:
        """Return the mean (n, channels) of the scored rows of windows (n, length, channels).

        Each entry is given everything else in the window but the `LOCAL` rows of its own channel
        around it: a fault that lasts must not explain itself.
        """
        scored = self.length - 1 - self.after
        near = _box(min(LOCAL, self.length), scored, self.length)
        flat = windows.flatten(1)
        result = torch.empty(len(flat), self.channels, dtype=torch.float64)
        for k in range(self.channels):
            hidden = near.nonzero()[:, 0] * self.channels + k
            blanked = flat.clone()
            blanked[:, hidden] = torch.nan
            result[:, k] = self.complete(blanked)[:, scored * self.channels + k].double()
        return result

    def doubt(self, windows: Tensor) -> Tensor:
        """Return how much wider :meth:`expected` (n, channels) is spread than in a whole window."""
        # Inside an outage all windows miss the same.
        masks, which = torch.unique(windows.flatten(1).isnan(), dim=0, return_inverse=True)
        whole = self._variance(torch.zeros_like(masks[:1]))
        parts = [self._variance(part) for part in masks.split(max(1, DOUBTED // len(self.precision) ** 2))]
        return (torch.cat(parts)[which] / whole).sqrt()

    def doubt_of_silent(self, silent: Tensor, channel: int) -> Tensor:
        """Return :meth:`doubt` (n,) of one channel that is silent in some rows of windows (n, length), all others whole."""
        scored, own = self.length - 1 - self.after, torch.arange(self.length) * self.channels + channel
        near = _box(min(LOCAL, self.length), scored, self.length)
        masks, which = torch.unique(torch.cat([silent, torch.zeros_like(silent[:1])]), dim=0, return_inverse=True)
        hidden = masks | near
        both = hidden[:, :, None] & hidden[:, None]
        among = torch.where(both, self.precision[own[:, None], own], torch.eye(self.length, dtype=torch.float64))
        variance = torch.linalg.inv(among)[:, scored, scored]
        return (variance[which[:-1]] / variance[which[-1]]).sqrt()

    def _variance(self, missing: Tensor) -> Tensor:
        """Return the variances (n, channels) of the scored row's entries, given what is neither missing (n, d) nor near.

        The missing entries are inverted once for all channels; each then hides the rest of its own `LOCAL` rows.
        """
        scored = self.length - 1 - self.after
        near = _box(min(LOCAL, self.length), scored, self.length).nonzero()[:, 0]
        both = missing[:, :, None] & missing[:, None]
        among = torch.where(both, self.precision, torch.eye(len(self.precision), dtype=torch.float64))
        spread = torch.where(both, torch.cholesky_inverse(torch.linalg.cholesky(among)), 0.0)
        result = torch.empty(len(missing), self.channels, dtype=torch.float64)
        place = int((near == scored).nonzero())
        for k in range(self.channels):
            own = near * self.channels + k
            further = ~missing[:, own]
            reach = self.precision[own] @ spread
            left = self.precision[own[:, None], own] - reach @ self.precision[:, own]
            pair = further[:, :, None] & further[:, None]
            inverse = torch.where(
                pair, torch.linalg.inv(torch.where(pair, left, torch.eye(len(own), dtype=torch.float64))), 0.0
            )
            entry = own[place]
            pull = torch.where(further, reach[:, :, entry], 0.0)
            hidden = spread[:, entry, entry] + torch.einsum("ni,nij,nj->n", pull, inverse, pull)
            result[:, k] = torch.where(missing[:, entry], hidden, inverse[:, place, place])
        return result


def _box(size: int, scored: int, length: int) -> Tensor:
    """Mark `size` rows around the scored one, inside the window."""
    first = max(0, min(scored - size // 2, length - size))
    row = torch.arange(length)
    return (row >= first) & (row < first + size)


def _linear(precision: Tensor, length: int, channels: int, after: int) -> dict[str, Tensor]:
    """Return rows (outputs, channels, d) that map x - mean to the evidence of each linear kind."""
    row, scored = torch.arange(length), length - 1 - after
    near = _box(min(LOCAL, length), scored, length)
    boxes = torch.stack([_box(min(b, length), scored, length) for b in dict.fromkeys((*BOXES, length)) if b <= length])
    step = ((row >= scored).double() - 0.5)[None]
    blocks: dict[str, list[Tensor]] = {kind: [] for kind in LINEAR}
    for k in range(channels):
        entries = row * channels + k
        blocks["energy"].append(_energy(precision, entries))
        blocks["local"].append(_energy(precision, entries[near]))
        blocks["filter"].append(_filters(precision, entries, boxes.double()))
        blocks["step"].append(_filters(precision, entries, step))
    return {name: torch.stack(rows, 1) for name, rows in blocks.items()}


def _operator(blocks: list[Tensor]) -> Tensor:
    """Return blocks of rows (outputs, channels, d) as one matrix (d, all outputs)."""
    return torch.cat([rows.flatten(0, 1) for rows in blocks]).mT.float().contiguous()


def _blocks(matrix: Tensor, channels: int) -> Tensor:
    """Return the block (channels, length, length) of each channel in a matrix (d, d)."""
    return matrix.unflatten(1, (-1, channels)).unflatten(0, (-1, channels)).diagonal(dim1=1, dim2=3).permute(2, 0, 1)


def _certainty(precision: Tensor, channels: int) -> Tensor:
    """Return half the log determinant (channels,) of each channel's block of a precision: its certainty in nats."""
    return torch.logdet(_blocks(precision, channels)) / 2


def _root_certainty(root: Tensor) -> Tensor:
    """Return the same of precisions by their triangular roots (channels, length, length)."""
    return root.diagonal(dim1=1, dim2=2).log().sum(1)


def _energy(precision: Tensor, entries: Tensor) -> Tensor:
    """Rows that map x - mean to the whitened block, whose squares add up to u' P_kk^-1 u."""
    root = torch.linalg.cholesky(precision[entries[:, None], entries])
    return torch.linalg.solve_triangular(root, precision[entries], upper=False)


def _filters(precision: Tensor, entries: Tensor, shapes: Tensor) -> Tensor:
    """Rows whose squares are the matched filters of shapes (n, length) added to a channel."""
    block = precision[entries[:, None], entries]
    size = ((shapes @ block) * shapes).sum(1, keepdim=True).sqrt()
    return shapes @ precision[entries] / size


def quietness(windows: Tensor) -> Tensor:
    """Return minus the log mean squared difference of neighbours, (n, channels).

    A stuck sensor is too quiet.  Windows that know fewer than half of their differences are -inf:
    nothing can be said.
    """
    # In single precision equal windows of other batches would differ, and ties of resting channels break.
    steps = windows.double().diff(dim=1) ** 2
    known = ~steps.isnan()
    count = known.sum(1)
    mean = torch.where(known, steps, 0.0).sum(1) / count.clamp(min=1)
    return torch.where(2 * count >= steps.shape[1], -(mean + 1e-6).log(), -torch.inf)


def visible_share(windows: Tensor) -> Tensor:
    """Return which share of the entries of windows (n, length, channels) is not missing, (n, 1), float64."""
    if surely_whole(windows):
        return torch.ones(len(windows), 1, dtype=torch.float64)
    return (~windows.isnan()).double().mean((1, 2))[:, None]


def missingness(windows: Tensor) -> Tensor:
    """Return how unlikely it is that as many readings are missing by chance, (n, channels), in nats beyond `UNREMARKABLE`.

    A sensor that loses one reading in two is a fault even while the rest looks right: minus the log probability of a
    binomial count as large, where `GAPPY` of the readings are lost by chance.  Counted are only rows in which another
    channel shows something: when all are silent, it is the recording that stopped.  A channel that shows nothing in the
    whole window was lost earlier: it must not hide for good what the others show.
    """
    shown = ~windows.isnan()
    rows = shown.any(2)
    missing = (rows[:, :, None] & ~shown).sum(1)
    return _surprise(windows.shape[1])[rows.sum(1)[:, None], missing] * shown.any(1)


@cache
def _surprise(length: int) -> Tensor:
    """Return :func:`missingness` by the number of rows and, up to it, of missing readings, (length + 1, length + 1)."""
    rows, missing = np.mgrid[: length + 1, : length + 1]
    return torch.from_numpy((-binom.logsf(missing - 1, rows, GAPPY) - UNREMARKABLE).clip(min=0))
