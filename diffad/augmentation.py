"""Altered copies of training images: what a camera could as well have seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffad.base.arguments import check_count, is_number
from diffad.base.parameters import Parameters

#: Where a window on the image goes, right and down: what it shows goes the other way.
DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))


@dataclass(frozen=True)
class Augmentation(Parameters):
    """Which changes leave an image as normal as it was, and how many changed copies to learn from.

    A copy takes part where its original does: neither is ever judged by a model that has seen the other.
    Light that always comes from one side, or a part that always lies in one place, is something to learn; do
    not flip or shift it away.

    Parameters
    ----------
    horizontal, vertical : bool, default=False
        Left and right, top and bottom may be exchanged. Copies go through the allowed flips in turn;
        alone they make one copy, or three with both.
    shift : int, default=0
        Most pixels by which a copy moves: copies go down, up, right and left in turn, each image by 1 to `shift`
        pixels; what enters mirrors what is there.
    crop : float, default=1.0
        Least share of the height and width that a copy shows, enlarged to the full size.
    copies : int, default=4
        Copies of each image beside itself, at least 1; for none give ``augmentation=None``.

    Raises
    ------
    ValueError
        For parameters out of range, or where nothing is allowed to change.

    References
    ----------
    Shorten and Khoshgoftaar (2019), "A survey on image data augmentation for deep learning".

    Examples
    --------
    >>> import torch
    >>> images = torch.arange(4.0).view(1, 2, 2, 1)
    >>> Augmentation(horizontal=True, copies=1)(images)[..., 0].tolist()
    [[[0.0, 1.0], [2.0, 3.0]], [[1.0, 0.0], [3.0, 2.0]]]
    """

    horizontal: bool = False
    vertical: bool = False
    shift: int = 0
    crop: float = 1.0
    copies: int = 4

    def __post_init__(self) -> None:
        for name in ("horizontal", "vertical"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        check_count(self.shift, "shift", least=0)
        check_count(self.copies, "copies")
        if not is_number(self.crop) or not 0 < float(self.crop) <= 1:
            raise ValueError(f"crop must be a share of the side in (0, 1], got {self.crop!r}")
        if not (self.horizontal or self.vertical or self.shift or self.crop < 1):
            raise ValueError("copies would equal their originals: allow horizontal, vertical, shift or crop")

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (n, height, width, channels) followed by their copies, all originals before any copy."""
        generator = torch.Generator().manual_seed(len(images))
        flips = list(product((False, True)[: 1 + self.vertical], (False, True)[: 1 + self.horizontal]))
        copies = self.copies
        if not self.shift and self.crop == 1:
            # The unflipped copy would be the original, and a second round the same again.
            flips = flips[1:]
            copies = min(copies, len(flips))
        parts = [images]
        for i in range(copies):
            axes = [axis for axis, flipped in zip((1, 2), flips[i % len(flips)], strict=True) if flipped]
            parts.append(self._moved(images.flip(axes) if axes else images, DIRECTIONS[i % 4], generator))
        return torch.cat(parts)

    def _moved(self, images: Tensor, direction: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Shift and enlarge each image by its own random amount, seen through a window that goes in a `direction`."""
        if not self.shift and self.crop == 1:
            return images
        n, height, width, _ = images.shape
        zoom = 1 - (1 - self.crop) * torch.rand(n, generator=generator)
        room = torch.rand(n, 2, generator=generator) * 2 - 1
        pixels = torch.tensor([2 / width, 2 / height])
        offset = room * (1 - zoom[:, None])
        if self.shift:
            steps = torch.randint(1, self.shift + 1, (n, 1), generator=generator)
            offset = offset + steps * torch.tensor(direction) * pixels
        transform = torch.zeros(n, 2, 3)
        transform[:, 0, 0] = transform[:, 1, 1] = zoom
        transform[:, :, 2] = offset
        grid = functional.affine_grid(transform.to(images), [n, 1, height, width], align_corners=False)
        moved = functional.grid_sample(
            images.permute(0, 3, 1, 2), grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )
        return moved.permute(0, 2, 3, 1)


def enlarged(images: Tensor, augmentation: Augmentation | None) -> Tensor:
    """Return images followed by their altered copies, if any."""
    return images if augmentation is None else augmentation(images)


def check_augmentation(augmentation: object) -> None:
    """Refuse what is neither an Augmentation nor None."""
    if augmentation is not None and not isinstance(augmentation, Augmentation):
        raise ValueError(f"augmentation must be an Augmentation or None, got {augmentation!r}")
