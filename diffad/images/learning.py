"""Learning what the prior of images leaves over: cross-fitted cases, the loss, the gate.

A prior of as many dimensions as images explains its own training images almost exactly, so every image is
seen only through a prior fitted without it.  Posterior means, spreads and noise of the posterior's shape are
worked out before training: a step is then the network's alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from diffad.augmentation import Augmentation, enlarged
from diffad.base.defaults import seeded
from diffad.diffusion.loss import masked_mse, noisy_and_target
from diffad.diffusion.noise import LogNormalLevels
from diffad.images.diffusion import WAYS, ImageContext, ImageDiffusion, way_of
from diffad.images.fitting import box_mask, fit_prior, points_mask
from diffad.images.folds import fold_of
from diffad.images.prior import FOLDS, ImagePrior
from diffad.images.tiles import Observed, moments
from diffad.model import GATE_LEVELS
from diffad.networks.unet import UNet
from diffad.training import Progress, Training, train

#: Images that share a mask, so that one factorisation serves them.
PER_MASK = 64
#: Share of a batch that learns the posterior mean itself: nothing but noise to look at, and that left out.
MEAN_SHARE = 0.25
#: Share of labels that are withheld, for guidance.
UNLABELLED = 0.2
HALVES = 2
#: Held-out cases that judge the network.
HELD_OUT = 448


@dataclass(frozen=True)
class Cases:
    """Images, each under one observation, as a prior that has not seen them describes them."""

    context: ImageContext
    residual: Tensor  # (image - mean) / scale
    noise: Tensor  # a posterior draw's deviation / scale
    known: Tensor
    way: Tensor  # (n,)
    label: Tensor  # (n,)

    def select(self, index: Tensor) -> Cases:
        """Return some of the cases."""
        context = ImageContext(*(t[index] for t in vars(self.context).values()))
        rest = {k: v[index] for k, v in vars(self).items() if k != "context"}
        return replace(self, context=context, **rest)

    def noisy(self, theta: Tensor, mean_only: Tensor) -> tuple[Tensor, Tensor]:
        """Return noisy residuals and the velocity to learn, at angles (n,); no noise where the mean is learnt."""
        z, target = noisy_and_target(self.residual, self.noise, theta[:, None, None, None])
        only = mean_only[:, None, None, None]
        return torch.where(only, 0.0, z), torch.where(only, self.residual, target)


def learn_images(
    model: ImageDiffusion,
    images: Tensor,
    labels: Tensor,
    n_classes: int,
    kind: str | None,
    training: Training,
    seed: int,
    on_progress: Progress | None = None,
    augmentation: Augmentation | None = None,
) -> tuple[list[dict[str, float]], float]:
    """Train a network on top of `model.prior` and set `model.network` and `model.gate`.

    Parameters
    ----------
    model : ImageDiffusion
    images : Tensor of shape (n, height, width, channels)
        Standardised; NaN is missing.
    labels : Tensor of shape (n,), int64
        Class of each image; `n_classes` is none.
    n_classes : int
    kind : prior, as in `ImagePrior.fit`
    training : Training
        A batch holds ``masks_per_batch * windows_per_mask`` images.
    seed : int
    on_progress : callable, optional
    augmentation : Augmentation or None
        Copies that prior and network learn from as well; none judges.

    Returns
    -------
    history : list of dict
    gain : float
        Part of the held-out loss that the gated network removes; 0 leaves `model.network` None.
    """
    device = model.prior.device
    fold = torch.from_numpy(fold_of(len(images), FOLDS))
    folds = []
    for f in range(FOLDS):
        prior = fit_prior(images[fold != f], kind, device, augmentation)
        shown = enlarged(images[fold == f], augmentation if f else None)
        told = labels[fold == f].repeat(len(shown) // int((fold == f).sum()))
        folds.append(_cases(prior, shown, told, seed + f))
    some = torch.randperm(len(folds[0].way), generator=torch.Generator().manual_seed(seed))[:HELD_OUT]
    held, source = folds[0].select(some.to(device)), _joined(folds[1:])
    height, width, channels = images.shape[1:]
    generator = torch.Generator(device=device).manual_seed(seed)
    with seeded(seed):
        patch = 2 if min(height, width) >= 32 else 1
        network = UNet(4 * channels, channels, n_classes, patch=patch).to(device)
    levels, batch = LogNormalLevels(), training.masks_per_batch * training.windows_per_mask

    def loss(g: torch.Generator) -> Tensor:
        part = source.select(torch.randint(len(source.way), (batch,), generator=g, device=device))
        mean_only = torch.rand(batch, generator=g, device=device) < MEAN_SHARE
        theta = torch.where(mean_only, torch.pi / 2, torch.atan(levels.sample((batch,), g)))
        part = _flipped_noise(part, g)
        told = torch.rand(batch, generator=g, device=device) >= UNLABELLED
        label = torch.where(told, part.label, n_classes)
        z, target = part.noisy(theta, mean_only)
        velocity = part.context.velocity(network, z, theta, label)
        return masked_mse(velocity, target.clamp(-6, 6), part.context.hidden & part.known)

    judge = HeldOutCases(held)
    history = train(
        network,
        loss,
        lambda: judge.loss(network),
        training,
        generator,
        on_progress,
        data=(images, labels, f"{kind} {augmentation} {n_classes}"),
    )
    gate = judge.gate(network)
    gain = 1 - judge.loss(network, gate)
    if not gain > 0:
        return history, 0.0
    model.network, model.gate = network, gate
    return history, gain


def _flipped_noise(cases: Cases, generator: torch.Generator) -> Cases:
    """Give the noise a random sign: as likely, and twice as many draws."""
    sign = torch.randint(2, (len(cases.way), 1, 1, 1), generator=generator, device=cases.noise.device) * 2.0 - 1
    return replace(cases, noise=cases.noise * sign)


class HeldOutCases:
    """Held-out cases at fixed noise levels: the loss relative to the prior's, and the gate."""

    def __init__(self, cases: Cases) -> None:
        self.cases, n = cases, len(cases.way)
        position = torch.arange(n) % (GATE_LEVELS + 1)
        self.level = position.to(cases.way.device)
        angle = (position + 0.5 * (position == 0)).clamp(max=GATE_LEVELS - 1) / (GATE_LEVELS - 1) * torch.pi / 2
        self.theta = angle.to(cases.way.device)
        self.z, self.target = cases.noisy(self.theta, self.level == GATE_LEVELS)
        self.where = cases.context.hidden & cases.known

    @torch.no_grad()
    def velocity(self, network: UNet) -> Tensor:
        """Return the network's velocity of every case, 32 at a time."""
        parts = []
        for index in torch.arange(len(self.theta), device=self.theta.device).split(32):
            part = self.cases.select(index)
            parts.append(part.context.velocity(network, self.z[index], self.theta[index], part.label))
        return torch.cat(parts)

    def loss(self, network: UNet, gate: Tensor | None = None) -> float:
        """Return the mean squared error of the velocity relative to that of none."""
        velocity = self.velocity(network)
        if gate is not None:
            velocity = velocity * gate.to(velocity.device)[self.cases.way, self.level][:, None, None, None]
        prior = masked_mse(torch.zeros_like(self.target), self.target, self.where)
        return float(masked_mse(velocity, self.target, self.where) / prior)

    def gate(self, network: UNet) -> Tensor:
        """Return E[F t] / E[F^2] per way and level, in [0, 1]: the half of the cases that asks for less decides."""
        velocity = torch.where(self.where, self.velocity(network), 0.0)
        both, own = (velocity * self.target).sum((1, 2, 3)), (velocity**2).sum((1, 2, 3))
        half = torch.arange(len(both), device=both.device) // (GATE_LEVELS + 1) % HALVES
        gate = torch.zeros(WAYS, GATE_LEVELS + 1)
        for way in range(WAYS):
            for level in range(GATE_LEVELS + 1):
                here = [(self.cases.way == way) & (self.level == level) & (half == h) for h in range(HALVES)]
                if all(bool(h.any()) for h in here):
                    gate[way, level] = min(float(both[h].sum() / own[h].sum().clamp(min=1e-9)) for h in here)
        return gate.clamp(0.0, 1.0)


def _cases(prior: ImagePrior, images: Tensor, labels: Tensor, seed: int) -> Cases:
    """Describe the images of a fold, under several observations, by a prior fitted to the others."""
    device = prior.device
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    parts = []
    for truth, label in zip(images.split(PER_MASK), labels.split(PER_MASK), strict=True):
        for observed in _observations(truth, rng):
            mean, scale, deviations = moments(prior, observed, len(truth), generator, True)
            assert scale is not None
            context = ImageContext.build(mean, scale[None], device)
            size = context.scale
            known = ~truth.isnan()
            residual = ((truth.to(device) - context.mean) / size).nan_to_num().clamp(-6, 6)
            way = torch.full((len(truth),), way_of(observed), device=device)
            noise = deviations.float().to(device) / size
            parts.append(Cases(context, residual, noise, known.to(device), way, label.to(device)))
    return _joined(parts)


def _observations(images: Tensor, rng: np.random.Generator) -> list[Observed]:
    """Return images under the observations that a network learns from; nothing is seen in the first."""
    _, height, width, channels = images.shape
    masks = [np.ones((height, width), bool), *(points_mask(rng, height, width, s) for s in (0.5, 0.8))]
    masks.append(box_mask(rng, height, width, 0.4))
    result = [Observed(torch.where(torch.from_numpy(m)[..., None], torch.nan, images)) for m in masks]
    for factor in (2, 4):
        if height % factor == 0 and width % factor == 0:
            result.append(Observed(Observed(images, factor).of(images), factor))
    for level in (0.4, 1.0):
        noise = torch.from_numpy(rng.standard_normal(images.shape)).to(images)
        result.append(Observed(images + level * noise, 1, torch.full((channels,), level)))
    return result


def _joined(parts: list[Cases]) -> Cases:
    context = ImageContext(*(torch.cat([getattr(p.context, k) for p in parts]) for k in ("mean", "scale", "hidden")))
    rest = {k: torch.cat([getattr(p, k) for p in parts]) for k in ("residual", "noise", "known", "way", "label")}
    return Cases(context, **rest)
