"""Evidence that nothing like it was ever met: the nearest shape of a channel, the nearest rows of all channels.

Both are small-noise limits of a kernel prior's ideal denoiser: the distance to the nearest thing remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from diffad.base.caching import ForgetsCaches


@dataclass(frozen=True)
class ShapeModel(ForgetsCaches):
    """Distance of each channel's window to the nearest training window of the same channel.

    Windows are centred and scaled each by itself, so only their shape counts: the matrix profile
    between a recording and a reference (Yeh et al. 2016).  Its square is the small-noise limit of
    the ideal denoiser of the training set.

    Attributes
    ----------
    references : list of Tensor (n, length)
        Complete windows of each channel, centred.
    """

    references: list[Tensor]

    #: Reference windows kept; neighbours in time stay together, since a shape must be met in phase.
    MOST = 15_000
    BLOCK = 500
    #: In standard deviations of the channel: flat windows are not blown up to noise.
    FLOOR = 0.05
    #: Distances worked out at once; bounds memory.
    ENTRIES = 2**20

    @classmethod
    def fit(cls, windows: Tensor, device: torch.device) -> ShapeModel:
        """Keep windows (n, length, channels) without missing entries."""
        most = max(cls.BLOCK, cls.MOST // windows.shape[2])
        if len(windows) > most:
            blocks = max(1, most // cls.BLOCK)
            starts = torch.linspace(0, len(windows) - cls.BLOCK, blocks).long()
            windows = windows[(starts[:, None] + torch.arange(cls.BLOCK)).flatten()]
        channels = windows.permute(2, 0, 1)
        complete = [c[~c.isnan().any(1)] for c in channels]
        return cls([(c - c.mean(1, keepdim=True)).to(device) for c in complete])

    @cached_property
    def _measures(self) -> Tensor:
        """What a shape with a 1 at its end is multiplied by for its squared distances, less its own length.

        Scaled references times -2 and, last, their squared lengths, (channels, length + 1, n); inf where a channel has
        fewer.
        """
        most = max(len(r) for r in self.references)
        parts = []
        for reference in self.references:
            scaled = reference / (reference.square().mean(1, keepdim=True).sqrt() + self.FLOOR)
            none = (0, 0, 0, most - len(reference))
            size = functional.pad(scaled.square().sum(1, keepdim=True), none, value=torch.inf)
            parts.append(torch.cat([functional.pad(-2 * scaled, none), size], 1))
        return torch.stack(parts).mT

    def __call__(self, windows: Tensor) -> Tensor:
        """Return distances (n, channels), -inf where fewer than half the entries are known.

        Windows with holes are compared with the references over what they show, both centred and
        scaled there.
        """
        x = windows.permute(2, 0, 1)
        seen = ~x.isnan()
        count = seen.sum(2)
        x = torch.where(seen, x, 0.0)
        x = torch.where(seen, x - x.sum(2, keepdim=True) / count.clamp(min=1)[..., None], 0.0)
        spread = (x.square().sum(2) / count.clamp(min=1)).sqrt()
        shapes = x / (spread + self.FLOOR)[..., None]
        whole = count == x.shape[2]
        if bool(whole.all()):
            return self._to_whole(shapes).mT
        result = torch.full(count.shape, -torch.inf)
        among = whole.any(0)
        result[:, among] = torch.where(whole[:, among], self._to_whole(shapes[:, among]), -torch.inf)
        holes = (count < x.shape[2]) & (2 * count >= x.shape[2])
        for some, where in _blocks(holes):
            partly = self._to_visible(some[:, 0], shapes[some, where], seen[some, where])
            result[some, where] = torch.where(holes[some, where], partly, result[some, where])
        return result.mT

    def _to_whole(self, query: Tensor) -> Tensor:
        """Return distances (channels, n) of scaled shapes (channels, n, length); -inf without references."""
        measures = self._measures
        if not measures.shape[2]:
            return query.new_full(query.shape[:2], -torch.inf)
        query = query.to(measures.device)
        block = max(1, self.ENTRIES // measures[:, 0].numel())
        # One product with the lengths in it: to add them afterwards is another pass through all distances.
        nearest = [torch.bmm(q, measures).amin(2) for q in functional.pad(query, (0, 1), value=1.0).split(block, 1)]
        squared = torch.cat(nearest, 1) + query.square().sum(2)
        distance = (squared.clamp(min=0) / query.shape[2]).sqrt()
        return torch.where(distance.isinf(), -torch.inf, distance).cpu()

    @cached_property
    def _centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """References (channels, n, length), their squares, and where a channel has fewer (channels, 1, n): zeros there."""
        most = max(len(r) for r in self.references)
        padded = torch.stack([functional.pad(r, (0, 0, 0, most - len(r))) for r in self.references])
        return padded, padded.square(), self._measures[:, -1:].isinf().contiguous()

    def _to_visible(self, channels: Tensor, query: Tensor, seen: Tensor) -> Tensor:
        """Return distances (channels, n) of scaled shapes over what they show; -inf without references."""
        device = self._measures.device
        if not self._measures.shape[2] or not query.shape[1]:
            return query.new_full(query.shape[:2], -torch.inf)
        # Nothing is copied where all channels have holes.
        pick = slice(None) if len(channels) == len(self.references) else channels.to(device)
        reference, squares, absent = (part[pick] for part in self._centred)
        block = max(1, self.ENTRIES // absent.numel())
        parts = []
        for q, weight in zip(query.split(block, 1), seen.split(block, 1), strict=True):
            q, weight = q.to(device), weight.to(device).float()
            count = weight.sum(2, keepdim=True)
            # The references are large and windows may be few: they are read once for both.
            both = torch.cat([weight, q], 1) @ reference.mT
            mean, cross = both[:, : q.shape[1]] / count, both[:, q.shape[1] :]
            spread = (weight @ squares.mT / count - mean.square()).clamp(min=0).sqrt()
            # The query is centred over what it shows, so the reference's mean drops out of the product.
            cross = cross / (count * (spread + self.FLOOR))
            squared = (spread / (spread + self.FLOOR)).square() - 2 * cross
            parts.append(squared.masked_fill(absent, torch.inf).amin(2) + q.square().sum(2) / count[..., 0])
        distance = torch.cat(parts, 1).clamp(min=0).sqrt()
        return torch.where(distance.isinf() | distance.isnan(), -torch.inf, distance).cpu()


@dataclass(frozen=True)
class NearestRows(ForgetsCaches):
    """Distance of a few rows to the nearest ones of training: a combination of readings, or a level, never met.

    Relations between channels that are no plane, as a product, a square or what a state forbids, are nowhere in a
    Gaussian.  The distance is the small-noise limit of the kernel prior's denoiser (Livernoche et al. 2024).

    Attributes
    ----------
    references : Tensor of shape (n, length * channels)
        Complete training windows, standardised.
    """

    references: Tensor

    #: References kept.  Neighbours in time are much the same, so that fewer lose little; and fewer make a lone row
    #: count less.
    MOST = 4000
    #: Windows compared at once; bounds memory.
    TOGETHER = 256
    #: Distance, in standard deviations, below which rows are the same: small differences of large squares have no digits.
    SAME = 0.01

    @classmethod
    def fit(cls, windows: Tensor, device: torch.device) -> NearestRows:
        """Keep windows (n, length, channels) without missing entries, evenly spread."""
        flat = windows.flatten(1)
        complete = flat[~flat.isnan().any(1)]
        return cls(complete[:: max(1, -(-len(complete) // cls.MOST))].to(device))

    def __call__(self, windows: Tensor) -> Tensor:
        """Return distances (n, 1) of windows (n, length, channels); -inf where something is missing, or nothing was learnt."""
        if not len(self.references):
            return torch.full((len(windows), 1), -torch.inf)
        # Comparing with NaN yields NaN.
        rows = windows.flatten(1).to(self.references.device)
        parts = rows.split(self.TOGETHER)
        nearest = [torch.addmm(self._size, part, self.references.mT, alpha=-2).amin(1) for part in parts]
        squared = (torch.cat(nearest) + rows.square().sum(1)) / rows.shape[1]
        return squared.clamp(min=self.SAME**2).sqrt().nan_to_num(-torch.inf)[:, None].cpu()

    @cached_property
    def _size(self) -> Tensor:
        return self.references.square().sum(1)


def _blocks(holes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield channels (c, 1) and windows (n,) that hold all `holes` (channels, windows): together, or one by one.

    Where outages of the channels do not coincide, looking at all of them together would be for nothing.
    """
    some, where = holes.any(1).nonzero(), holes.any(0).nonzero()[:, 0]
    if 2 * int(holes.sum()) >= len(some) * len(where):
        yield some, where
        return
    for channel in some:
        yield channel[None], holes[channel[0]].nonzero()[:, 0]
