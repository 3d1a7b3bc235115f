"""Learning the residual of a prior: batches from a bank of masks, the loss, the gate.

Here windows and masks become training batches for :mod:`diffad.training`, and held-out windows
decide how much of the network's velocity is admitted (:class:`diffad.model.MaskedDiffusion`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffad.base.defaults import pinned_defaults, seeded
from diffad.diffusion.loss import masked_mse, noisy_and_target
from diffad.diffusion.masks import GAP_KINDS, mixture
from diffad.diffusion.noise import LogNormalLevels
from diffad.model import GATE_LEVELS, Context, MaskedDiffusion, gate_position
from diffad.networks import AxialTransformer
from diffad.priors import Conditional
from diffad.training import Progress, Training, train

#: Draws so many masks (n, length, channels), True = visible.
Masks = Callable[[int, torch.Generator], Tensor]
#: Bytes that the conditionals of a mask bank may take.
BANK_BYTES = 300e6
LARGEST_BANK = 400
#: Part of the held-out loss that a network must remove to be worth the time it takes.
WORTH = 0.002
#: Blocks of held-out windows that each judge the network.
BLOCKS = 4


@pinned_defaults()
def learn(
    model: MaskedDiffusion,
    windows: Tensor,
    known: Tensor,
    held_out: Tensor,
    held_out_known: Tensor,
    training: Training,
    seed: int,
    on_progress: Progress | None = None,
    build: Callable[[], nn.Module] | None = None,
    masks: Masks | None = None,
    form: str = "",
) -> tuple[list[dict[str, float]], float]:
    """Train a network on top of `model.prior`, set `model.network` and `model.gate`.

    Parameters
    ----------
    model : MaskedDiffusion
    windows, held_out : Tensor of shape (n, length, channels)
        Standardised; unknown entries hold a plausible value.
    known, held_out_known : Tensor of the same shapes, bool
        Entries that were observed: only they are learnt from.
    training : Training
    seed : int
    on_progress : callable, optional
    build : callable, optional
        Makes the network; None is an `AxialTransformer`.
    masks : callable, optional
        Draws masks (n, length, channels); None is the default mixture of policies.
    form : str, default=""
        What the prior is, beside its type: a checkpoint of another is refused.

    Returns
    -------
    history : list of dict
        Step, seconds, training and held-out loss.
    gain : float
        Part of the held-out loss that the gated network removes; 0, also for less than `WORTH`, leaves
        `model.network` None.
    """
    generator = torch.Generator(device=model.device).manual_seed(seed)
    build = build or (lambda: AxialTransformer(model.length, model.channels))
    bank = mask_bank(model, seed, masks)
    judge = HeldOut(model, held_out, held_out_known, seed + 1, masks)
    with seeded(seed):
        network = build().to(model.device)
    source = Batches(model, windows, known, bank, training)
    history = train(
        network,
        lambda g: source.loss(network, g),
        lambda: judge.loss(network),
        training,
        generator,
        on_progress,
        network.matrices if isinstance(network, AxialTransformer) else (),
        # What fills gaps may differ in the last bit elsewhere.
        (torch.where(known, windows, 0.0), known, f"{type(model.prior).__name__} {form}"),
    )
    gate = judge.gate(network)
    gain = 1 - judge.loss(network, gate)
    if not gain > WORTH:  # NaN where nothing held out could be judged
        return history, 0.0
    model.network, model.gate = network, gate
    return history, gain


def mask_bank(model: MaskedDiffusion, seed: int, masks: Masks | None = None) -> Conditional:
    """Condition the prior on a bank of masks."""
    d = model.length * model.channels
    size = int(max(24, min(LARGEST_BANK, BANK_BYTES / (4 * d * d))))
    visible = _draw(model, masks, size, torch.Generator().manual_seed(seed))
    return model.condition(visible, ~visible)


def _draw(model: MaskedDiffusion, masks: Masks | None, n: int, generator: torch.Generator) -> Tensor:
    return masks(n, generator) if masks else mixture(n, model.length, model.channels, generator)


class Batches:
    """Random training batches: a few masks of the bank, a few windows under each."""

    def __init__(
        self, model: MaskedDiffusion, windows: Tensor, known: Tensor, bank: Conditional, training: Training
    ) -> None:
        self.model, self.bank, self.training = model, bank, training
        self.windows = windows.flatten(1).to(model.device)
        self.known = known.flatten(1).to(model.device)
        self.centres = model.prior.centres.float().to(model.device)
        phase = model.prior.phase(windows.flatten(1))
        count = torch.bincount(phase, minlength=len(self.centres))
        self.phase, self.count = phase.to(model.device), count.to(model.device)
        self.of_phase = torch.argsort(phase, stable=True).to(model.device)
        self.first = (count.cumsum(0) - count).to(model.device)
        self.levels = LogNormalLevels()

    def loss(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Draw a batch and return the network's loss on it."""
        n_masks, per_mask = self.training.masks_per_batch, self.training.windows_per_mask
        index = torch.randint(len(self.bank.visible), (n_masks,), generator=generator, device=generator.device)
        given = self.bank.select(index)
        x, known = self._windows((n_masks, per_mask), generator)
        return velocity_loss(
            network,
            self.model.context(given, x),
            given,
            x,
            known,
            torch.atan(self.levels.sample((n_masks, per_mask), generator)),
            torch.randn(x.shape, generator=generator, device=generator.device),
        )

    def _windows(self, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        device = generator.device
        first = torch.randint(len(self.windows), shape, generator=generator, device=device)
        # Only windows of one phase have the same mean, which mixing has to keep.
        phase = self.phase[first]
        pick = (torch.rand(shape, generator=generator, device=device) * self.count[phase]).long()
        second = self.of_phase[self.first[phase] + pick]
        angle = 0.8 * torch.rand((*shape, 1), generator=generator, device=device)
        mixed = torch.rand((*shape, 1), generator=generator, device=device) < self.training.mixing
        angle = torch.where(mixed, angle, 0.0)
        centre = self.centres[phase]
        x = (self.windows[first] - centre) * angle.cos() + (self.windows[second] - centre) * angle.sin()
        return x + centre, self.known[first] & (self.known[second] | ~mixed)


def velocity_loss(
    network: nn.Module,
    context: Context,
    given: Conditional,
    x: Tensor,
    known: Tensor,
    theta: Tensor,
    white: Tensor,
) -> Tensor:
    """Return the mean squared velocity error on hidden, known entries."""
    z, target = _noisy(context, given, x, theta, white)
    return masked_mse(context.velocity(network, z, theta), target, context.hidden & known)


def _noisy(context: Context, given: Conditional, x: Tensor, theta: Tensor, white: Tensor) -> tuple[Tensor, Tensor]:
    # Far outliers would own the gradient; the prior's own tail is what answers for them.
    residual = ((x - context.mean) / context.scale).clamp(-6, 6)
    return noisy_and_target(residual, given.color(white) / given.scale[:, None], theta[..., None])


class HeldOut:
    """Held-out windows under masks that training does not see: the loss and the gate."""

    def __init__(
        self,
        model: MaskedDiffusion,
        windows: Tensor,
        known: Tensor,
        seed: int,
        masks: Masks | None = None,
        n_masks: int = 32,
    ) -> None:
        self.model = model
        generator = torch.Generator().manual_seed(seed)
        visible = _draw(model, masks, n_masks, generator)
        self.given = model.condition(visible, ~visible)
        pick = torch.randint(len(windows), (n_masks, min(16, len(windows))), generator=generator)
        self.x = windows.flatten(1)[pick].to(model.device)
        self.known = known.flatten(1)[pick].to(model.device)
        # Held-out windows come in time order: quarters of them are about the held-out blocks.
        self.block = (pick * BLOCKS // len(windows)).to(model.device)
        self.context = model.context(self.given, self.x)
        self.white = torch.randn(self.x.shape, generator=generator).to(model.device)
        positions = torch.arange(self.x.shape[1]) % GATE_LEVELS
        theta = (positions + 0.5 * (positions == 0)) / (GATE_LEVELS - 1) * torch.pi / 2
        self.theta = theta.expand(self.x.shape[:2]).to(model.device)

    @torch.no_grad()
    def loss(self, network: nn.Module, gate: Tensor | None = None) -> float:
        """Return the loss relative to the prior's on the same windows, noise and levels."""
        z, target = _noisy(self.context, self.given, self.x, self.theta, self.white)
        where = self.context.hidden & self.known
        prior = masked_mse(torch.zeros_like(target), target, where)
        velocity = self.context.velocity(network, z, self.theta)
        if gate is not None:
            level = gate_position(self.theta).round().long()[..., None]
            velocity = velocity * gate.to(velocity.device)[self.context.kinds, level]
        return float(masked_mse(velocity, target, where) / prior)

    @torch.no_grad()
    def gate(self, network: nn.Module) -> Tensor:
        """Return the share of the velocity to admit: E[F t] / E[F^2] per gap kind and level.

        That is the least-squares weight of the network's velocity F for its target t; entries of
        all kinds are pooled into each kind's estimate with the weight of 5,000 entries.  Data
        drift, so the block of held-out windows that asks for least decides.
        """
        z, target = _noisy(self.context, self.given, self.x, self.theta, self.white)
        velocity = self.context.velocity(network, z, self.theta)
        where = self.context.hidden & self.known
        kinds = self.context.kinds.expand(where.shape)[where]
        level = gate_position(self.theta).round().long()[..., None].expand(where.shape)[where]
        block = self.block[..., None].expand(where.shape)[where]
        f, t = velocity[where].double(), target[where].double()
        shape = (BLOCKS, len(GAP_KINDS), GATE_LEVELS)
        sums = torch.zeros(3, math.prod(shape), dtype=torch.float64, device=f.device)
        cell = (block * len(GAP_KINDS) + kinds) * GATE_LEVELS + level
        sums.index_add_(1, cell, torch.stack([f * t, f * f, torch.ones_like(f)]))
        ft, ff, count = sums.view(3, *shape).cpu()
        pooled = 5000 / count.sum(1, keepdim=True).clamp(min=1)
        share = (ft + pooled * ft.sum(1, keepdim=True)) / (ff + pooled * ff.sum(1, keepdim=True)).clamp(min=1e-12)
        seen = count.sum(1, keepdim=True) > 0
        return torch.where(seen, share, 1.0).amin(0).clamp(0, 1).float()
