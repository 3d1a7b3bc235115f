"""p(hidden | visible) of rows by the masked diffusion of windows: a row is a window of one step.

The network learns what a Gaussian of all rows leaves over, whole columns hidden.  Its draws of a row, each blurred a
little, are a mixture of normals like any closed form's, so that held-out entries can say which share of a pool it
deserves (:mod:`diffad.rows.filling_fitting`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.learning import learn
from diffad.model import MaskedDiffusion, Sampler
from diffad.networks import RowNetwork
from diffad.priors import GaussianPrior
from diffad.priors.conditional_rows import RowConditional
from diffad.training import Progress, Training

#: Draws of a row, their blur in parts of their own deviation, and the least blur.
N_DRAWS, BLUR, LEAST_BLUR = 64, 0.25, 0.02
#: Rows that a batch holds where one of series holds a window: a row is small, and few of them tell little.
ROWS = 4
#: Every so many-th row judges the network.
JUDGES = 8
#: Largest value, in standard deviations, that a network learns from.
WILD = 8.0
#: Numbers that the conditionals of one chunk of rows may hold.
BUDGET = 4_000_000


@dataclass(frozen=True)
class RowDiffusion:
    """Draws of a masked diffusion model as a distribution of hidden entries.

    Attributes
    ----------
    model : MaskedDiffusion
        Of windows of one step.
    noise : Tensor of shape (N_DRAWS, d)
        White noise behind the draws, the same for every row: a row's answer is its own.
    """

    model: MaskedDiffusion
    noise: torch.Tensor

    @classmethod
    def fit(
        cls,
        rows: NDArray[np.float64],
        known: NDArray[np.bool_],
        owner: NDArray[np.int64],
        training: Training,
        seed: int,
        device: torch.device,
        on_progress: Progress | None = None,
    ) -> tuple[RowDiffusion | None, list[dict[str, float]]]:
        """Train on rows (n, d) on the normal scale.

        Parameters
        ----------
        rows : array (n, d)
            Complete: plausible values stand for missing ones.
        known : array (n, d), bool
            Entries that were observed: only they are learnt from.
        owner : array (d,) of int
            Column behind each entry: the indicators of a category are hidden together.
        training : Training
            Rows are never mixed: mixtures of rows are no rows.  A batch holds `ROWS` of them for each window.

        Returns
        -------
        RowDiffusion
            None where held-out rows see no gain.
        history : list of dict
            Step, seconds, training and held-out loss.
        """
        d = rows.shape[1]
        windows = torch.from_numpy(rows).float().clamp(-WILD, WILD)[:, None]
        seen = torch.from_numpy(known)[:, None]
        prior = GaussianPrior.fit(torch.from_numpy(rows), torch.ones(rows.shape, dtype=torch.bool))
        generator = torch.Generator().manual_seed(seed)
        model = MaskedDiffusion(prior, 1, d, device=device)
        held = torch.arange(len(rows)) % JUDGES == 0
        history, gain = learn(
            model,
            windows[~held],
            seen[~held],
            windows[held],
            seen[held],
            replace(training, mixing=0.0, windows_per_mask=ROWS * training.windows_per_mask),
            seed,
            on_progress,
            build=lambda: RowNetwork(d),
            masks=lambda n, g: _hide_columns(n, torch.from_numpy(owner), g)[:, None],
        )
        noise = torch.randn((N_DRAWS, d), generator=generator)
        return (cls(model, noise) if gain else None), history

    @property
    def chunk(self) -> int:
        """Rows to condition on at a time."""
        d = self.noise.shape[1]
        return max(1, BUDGET // (d * max(d, N_DRAWS)))

    @torch.no_grad()
    def condition(self, x: torch.Tensor) -> RowConditional:
        """Return p(hidden | visible) of rows (n, d), NaN = hidden."""
        known, values = ~x.isnan(), x.double().nan_to_num()
        noise = self.noise[:, None, None].expand(-1, len(x), 1, -1)
        visible = known[:, None]
        draws, _, _ = self.model.sample(
            values[:, None].float(), visible, ~visible, noise, Sampler(), torch.Generator().manual_seed(0)
        )
        means = torch.where(known[:, None], values[:, None], draws[:, :, 0].transpose(0, 1).double())
        blur = torch.where(known, 0.0, (BLUR * means.std(1)).clamp(min=LEAST_BLUR))
        weights = torch.full(means.shape[:2], -math.log(N_DRAWS), dtype=means.dtype)
        return RowConditional(known, weights, means, torch.diag_embed(blur**2)[:, None])


def _hide_columns(n: int, owner: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Hide whole columns at random, a share between 2 % and 95 % that differs from row to row: (n, d), True = visible."""
    columns = int(owner.max()) + 1
    share = 0.02 + 0.93 * torch.rand((n, 1), generator=generator)
    return (torch.rand((n, columns), generator=generator) >= share)[:, owner]
