"""Evidence of a diffusion model: how far its denoiser moves a row that it is told is full of noise.

Rows are whitened by their Gaussian, and noise is as large as their spread in every direction: faults sit in directions
that hardly vary, where noise of one size for all columns would drown them.  In these coordinates the Gaussian's own
denoiser is the velocity 0 (:mod:`diffad.diffusion.denoiser`); a network learns the rest.  The move is the gradient of
the log density of rows among noise (Vincent 2011, "A connection between score matching and denoising autoencoders"):
normal rows stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.base.defaults import seeded
from diffad.diffusion.loss import noisy_and_target
from diffad.diffusion.noise import LogNormalLevels
from diffad.networks import WholeRowNetwork
from diffad.rows.diffusion import ROWS
from diffad.training import Progress, Training, train

Matrix = NDArray[np.float64]

#: Variance, in parts of a column's, below which directions of the rows get more noise than they vary.
RIDGE = 0.1
#: Noise in parts of the spread at which rows are judged, and its distribution in training.
SIGMA = 0.3
LEVELS = LogNormalLevels(mean=-1.2, std=1.2)
#: Largest value, in standard deviations, that a network learns from, and that it is shown.
WILD, SHOWN = 6.0, 1e4
#: Rows judged at a time: what they need stays in the cache.
CHUNK = 1024


@dataclass(frozen=True)
class RowResidual:
    """What a denoiser of rows leaves over of them.

    Attributes
    ----------
    mean : array (d,)
    whiten : array (d, d)
        Rows minus `mean`, times it, have unit covariance, or less where they do not vary.
    spread : Tensor of shape (d,)
        Of the whitened directions in units of the noise, at most 1: those that hardly vary get more noise.
    network : WholeRowNetwork
    """

    mean: Matrix
    whiten: Matrix
    spread: torch.Tensor
    network: WholeRowNetwork

    @classmethod
    def fit(
        cls, rows: Matrix, training: Training, seed: int, device: torch.device, on_progress: Progress | None = None
    ) -> tuple[RowResidual, list[dict[str, float]]]:
        """Train on complete, standardised rows (n, d); none are held out, since a lower loss is no better evidence.

        Parameters
        ----------
        rows : array (n, d)
        training : Training
            A batch holds ``4 * masks_per_batch * windows_per_mask`` rows, which are never mixed; nothing stops it early.
        seed : int
        device : torch.device
        on_progress : callable, optional

        Returns
        -------
        RowResidual
        history : list of dict
            Step, seconds and training loss.
        """
        mean, d = rows.mean(0), rows.shape[1]
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(rows.T)))
        values = values.clip(min=1e-3 * RIDGE)
        with seeded(seed):
            network = WholeRowNetwork(d).to(device)
        spread = torch.from_numpy(np.sqrt(values / (values + RIDGE))).float().to(device)
        found = cls(mean, vectors / np.sqrt(values), spread, network)
        x = found._whitened(rows).clamp(-WILD, WILD)
        batch = ROWS * training.masks_per_batch * training.windows_per_mask

        def loss(generator: torch.Generator) -> torch.Tensor:
            index = torch.randint(len(x), (batch,), generator=generator, device=device)
            sigma = LEVELS.sample((batch, 1), generator)
            white = torch.randn((batch, d), generator=generator, device=device)
            return found._error(x[index], sigma, white).mean()

        generator = torch.Generator(device=device).manual_seed(seed)
        return found, train(network, loss, None, training, generator, on_progress, data=(x,))

    @torch.no_grad()
    def __call__(self, rows: Matrix) -> Matrix:
        """Return the logarithm of the squared move (n,) of complete rows (n, d).

        Moves are measured in what a Gaussian of the rows does not know of a row among that noise.
        """
        return np.concatenate([self._moves(rows[i : i + CHUNK]) for i in range(0, max(1, len(rows)), CHUNK)])

    def _moves(self, rows: Matrix) -> Matrix:
        x = self._whitened(rows)
        moves = self._error(x, torch.full((1, 1), SIGMA, device=x.device), torch.zeros_like(x)).sum(1)
        return np.asarray(moves.clamp(1e-12, 1e30).log().double().cpu().numpy())

    def _whitened(self, rows: Matrix) -> torch.Tensor:
        return (torch.from_numpy(rows - self.mean) @ torch.from_numpy(self.whiten)).float().to(self.spread.device)

    def _error(self, x: torch.Tensor, sigma: torch.Tensor, white: torch.Tensor) -> torch.Tensor:
        """Return the squared error of the velocity of whitened rows (n, d) among `white` noise of sizes (n or 1, 1)."""
        z, target = noisy_and_target(x, white, torch.atan(sigma / self.spread))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
            velocity = self.network(z.clamp(-SHOWN, SHOWN), sigma.log())
        return (velocity.float() - target) ** 2


def together(residuals: Sequence[RowResidual], rows: Matrix) -> Matrix:
    """Return the evidence (n,) of rows that no network has seen."""
    return np.asarray(np.mean([residual(rows) for residual in residuals], 0))
