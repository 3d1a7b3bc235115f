"""A masked conditional diffusion model of windows: prior, network and gate.

It knows tensors of standardised windows (n, length, channels) and masks; where they came from and
what the samples are for is the estimators' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn

from diffad.base.arguments import check_count, check_within
from diffad.base.parameters import Parameters
from diffad.diffusion import samplers
from diffad.diffusion.denoiser import precondition
from diffad.diffusion.masks import GAP_KINDS, gap_kinds
from diffad.diffusion.noise import SCHEDULES, angle_sigmas
from diffad.priors import Conditional, Prior
from diffad.priors.local_scale import LocalScale

#: Noise angles, evenly from 0 to pi/2, at which the gate is measured.
GATE_LEVELS = 6
#: Noise levels that each solver needs.
STEPS = {"angle": 5, "dpmpp_2m": 10, "heun": 18, "ddim": 50, "ddpm": 250}
#: The same of "dpmpp_2m" under schedules whose levels are not evened out.
UNEVEN = 30
#: Draws white noise (n_samples, k, length, channels) of a step for k windows, by their numbers.
Fresh = Callable[[int, Tensor], Tensor]
#: Distinct masks that are worked out at once.
MASKS = 64
#: Entries sampled at once, and by a network on a CPU, which fetches arrays of more than 32 MB from the system anew:
#: sampling takes a sixth less time with smaller ones.
MAX_ENTRIES, CPU_ENTRIES = 2**17, 2**15


@dataclass(frozen=True)
class Sampler(Parameters):
    """How to turn noise into samples.

    Parameters
    ----------
    name : {"angle", "dpmpp_2m", "heun", "ddim", "ddpm"}, default="angle"
        ``"angle"`` integrates the same ODE as ``"dpmpp_2m"`` but is exact for the prior in any
        number of steps; the others are the textbook solvers.
    n_steps : int or None, default=None
        Noise levels; cost is proportional. None is what each solver needs: 5 for ``"angle"``, 10 for ``"dpmpp_2m"``,
        18 for ``"heun"``, 50 for ``"ddim"`` and 250 for ``"ddpm"``; with much fewer these draw too wide or too narrow,
        and so does ``"dpmpp_2m"`` under another schedule than ``"karras"``, where None is 30.
    schedule : {"karras", "cosine", "linear"}, default="karras"
        Noise levels of the textbook solvers.
    eta : float, default=0.0
        Fresh noise of ``"ddim"``: 0 is deterministic, 1 is ``"ddpm"``.

    Examples
    --------
    >>> Sampler("heun").steps, Sampler("ddim", n_steps=20, eta=0.5).steps
    (18, 20)
    """

    name: str = "angle"
    n_steps: int | None = None
    schedule: str = "karras"
    eta: float = 0.0

    def __post_init__(self) -> None:
        names = ["angle", *samplers.SAMPLERS]
        if self.name not in names:
            raise ValueError(f"sampler must be one of {names}, got {self.name!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {list(SCHEDULES)}, got {self.schedule!r}")
        if self.n_steps is not None:
            check_count(self.n_steps, "n_steps")
        check_within(self.eta, "eta", 0, 1)

    def solve(
        self, velocity: samplers.Denoise, mean: Tensor, scale: Tensor, start: Tensor, fresh: Callable[[], Tensor]
    ) -> Tensor:
        """Return the samples that noise ends in.

        Parameters
        ----------
        velocity : callable
            What a network says of a state in units of `scale`, at an angle.
        mean, scale : Tensor
            Of the prior, given what is visible.
        start : Tensor
            Noise of the prior's law, centred.
        fresh : callable
            Draws more of it, for each step of a stochastic solver.

        Returns
        -------
        Tensor
            Of the shape of `start`.
        """
        if self.name == "angle":
            return mean + scale * samplers.angle(velocity, start / scale, angle_sigmas(self.steps))
        solver = samplers.SAMPLERS[self.name]
        if self.name == "ddim":
            solver = partial(samplers.ddim, eta=self.eta)
        sigmas = SCHEDULES[self.schedule](self.steps).float()
        return solver(precondition(velocity, mean, scale), mean + sigmas[0] * start, sigmas, fresh)

    @property
    def stochastic(self) -> bool:
        """Whether steps add fresh noise."""
        return self.name == "ddpm" or (self.name == "ddim" and self.eta > 0)

    @property
    def steps(self) -> int:
        """Noise levels."""
        if self.n_steps is not None:
            return int(self.n_steps)
        return UNEVEN if self.name == "dpmpp_2m" and self.schedule != "karras" else STEPS[self.name]


def as_sampler(sampler: Sampler | str) -> Sampler:
    """Return the sampler that a string names."""
    if not isinstance(sampler, str | Sampler):
        raise ValueError(f"sampler must be a Sampler or its name, got {sampler!r}")
    return Sampler(sampler) if isinstance(sampler, str) else sampler


@dataclass
class MaskedDiffusion:
    """p(hidden | visible) of windows.

    Parameters
    ----------
    prior : Prior
        Closed-form density of flattened windows.
    length, channels : int
        Shape of a window.
    network : torch.nn.Module or None
        Velocity network; None is the prior alone.
    gate : Tensor of shape (len(GAP_KINDS), GATE_LEVELS)
        Share of the network's velocity that is admitted, per kind of gap and noise level; learnt
        on held-out windows.
    device : torch.device
        Where conditionals and the network run.
    local : LocalScale or None
        Scales the prior's spread by what surprised it nearby; None is the prior's own spread. A network
        sees the surprises itself, and its samples are left alone: what they may miss is for bands to add.
    carrier : Prior or None
        Carries what is known through gaps longer than a window; None is `prior`.
    """

    prior: Prior
    length: int
    channels: int
    network: nn.Module | None = None
    gate: Tensor = field(default_factory=lambda: torch.zeros(len(GAP_KINDS), GATE_LEVELS))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    local: LocalScale | None = None
    carrier: Prior | None = None

    def condition(self, visible: Tensor, hidden: Tensor) -> Conditional:
        """Condition the prior on masks (M, length, channels)."""
        return to_device(self.prior.condition(visible.flatten(1), hidden.flatten(1)), self.device)

    def context(self, given: Conditional, x: Tensor) -> Context:
        """Return what the network sees of windows x (M, B, d) under the masks of `given`."""
        return Context.build(given, x, (self.length, self.channels))

    def sample(
        self,
        windows: Tensor,
        visible: Tensor,
        hidden: Tensor,
        noise: Tensor,
        sampler: Sampler,
        generator: torch.Generator,
        max_entries: int | None = None,
        fresh: Fresh | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sample the hidden entries of windows.

        Parameters
        ----------
        windows : Tensor of shape (n, length, channels)
            Standardised; only entries with `visible` true are read.
        visible, hidden : Tensor of shape (n, length, channels), bool
            Given and wanted entries; padding is neither.
        noise : Tensor of shape (n_samples, n, length, channels)
            White noise; equal noise gives equal samples.
        sampler : Sampler
        generator : torch.Generator
            Fresh noise of the stochastic samplers.
        max_entries : int, optional
            Bound on the entries that pass at once; None is `MAX_ENTRIES`, less for a network on a CPU.
        fresh : callable, optional
            ``fresh(step, numbers)`` is the white noise (n_samples, k, length, channels) that a stochastic sampler adds
            to windows, given their numbers (k,): where windows overlap, it must be one. None draws from `generator`.

        Returns
        -------
        samples : Tensor of shape (n_samples, n, length, channels)
            Samples at hidden entries, `windows` at visible ones, 0 at padding.
        scale : Tensor of shape (n, length, channels)
            The closed form's conditional standard deviation at hidden entries, 1 elsewhere.
        restless : Tensor of shape (n, length, channels)
            How much wider than the samples this place may be by what surprised the prior nearby; 1 at visible
            entries, and everywhere without a network, whose part the samples have in them.
        """
        if max_entries is None:
            max_entries = CPU_ENTRIES if self.network is not None and self.device.type == "cpu" else MAX_ENTRIES
        result = torch.where(visible, windows, 0.0).expand(noise.shape).clone()
        scale, restless = torch.ones(windows.shape), torch.ones(windows.shape)
        for masks, members in _groups_of_equal_masks(visible, hidden):
            given = self.condition(visible[masks], hidden[masks])
            for index, group in _batches(members, noise[:, 0].numel(), max_entries):
                part = given.select(index.to(self.device))
                x = windows[group].to(self.device).flatten(2)
                context = self.context(part, x)
                local = None if self.local is None else self.local(context.surprise, part.visible)
                if local is not None and self.network is None:
                    context = replace(context, scale=torch.where(context.hidden, context.scale * local, context.scale))
                elif local is not None:
                    factor = torch.where(context.hidden, local, 1.0).cpu()
                    restless[group] = factor.unflatten(-1, (self.length, self.channels))
                white = noise[:, group].to(self.device).flatten(3)

                def of_step(step: int, group: Tensor = group, white: Tensor = white) -> Tensor:
                    if fresh is None:
                        return torch.randn(white.shape, generator=generator).to(self.device)
                    return fresh(step, group.flatten()).unflatten(1, group.shape).to(self.device).flatten(3)

                draws = self._sample_group(part, context, white, sampler, of_step)
                draws = draws.unflatten(-1, (self.length, self.channels)).cpu()
                result[:, group] = torch.where(hidden[group], draws, result[:, group])
                scale[group] = context.scale.cpu().unflatten(-1, (self.length, self.channels))
        return result, scale, restless

    def _sample_group(
        self,
        given: Conditional,
        context: Context,
        noise: Tensor,
        sampler: Sampler,
        of_step: Callable[[int], Tensor],
    ) -> Tensor:
        """Sample B windows under each of M masks: context (M, B, d), noise (S, M, B, d) -> (S, M, B, d)."""
        n_samples, _, n_windows, _ = noise.shape

        def color(white: Tensor) -> Tensor:
            return given.color(white.permute(1, 0, 2, 3).flatten(1, 2))  # (M, S * B, d)

        context = context.repeat(n_samples)
        mean, scale = context.mean, context.scale
        start = scale / given.scale[:, None] * color(noise)
        if self.network is None:
            state = mean + start
        else:
            steps = count()
            state = sampler.solve(self._velocity(context), mean, scale, start, lambda: color(of_step(next(steps))))
        return state.unflatten(1, (n_samples, n_windows)).permute(1, 0, 2, 3)

    def _velocity(self, context: Context) -> samplers.Denoise:
        network = self.network
        assert network is not None
        gate = self.gate.to(context.mean.device)[context.kinds]  # (M, 1, d, levels)

        def velocity(z: Tensor, theta: Tensor) -> Tensor:
            angles = torch.full(z.shape[:2], float(theta), device=z.device)
            return admitted(gate, theta) * context.velocity(network, z, angles)

        return velocity


def gate_position(theta: Tensor) -> Tensor:
    """Return the position of an angle on the gate's axis: 0 at theta = 0, GATE_LEVELS - 1 at pi/2."""
    return (theta / (torch.pi / 2) * (GATE_LEVELS - 1)).clamp(0, GATE_LEVELS - 1)


def admitted(gate: Tensor, theta: Tensor) -> Tensor:
    """Return how much of the network a gate (..., levels) admits at an angle, between two of its levels: (...)."""
    level = float(gate_position(theta))  # theta lives on the CPU: no device sync
    low, high = int(level), min(int(level) + 1, GATE_LEVELS - 1)
    return torch.lerp(gate[..., low], gate[..., high], level - low)


@dataclass(frozen=True)
class Context:
    """What the network sees of windows apart from the noisy entries; all (M, B, d)."""

    mean: Tensor  # conditional mean at hidden entries, 0 elsewhere
    value: Tensor  # visible value or conditional mean
    surprise: Tensor  # at visible entries
    scale: Tensor  # standard deviation of hidden entries, 1 elsewhere
    centre: Tensor  # mean of the windows this is one of, 0 in padding
    visible: Tensor
    hidden: Tensor
    shape: tuple[int, int]

    @classmethod
    def build(cls, given: Conditional, x: Tensor, shape: tuple[int, int]) -> Context:
        explained = given.explain(x)
        visible = given.visible[:, None].expand(x.shape)
        hidden = given.hidden[:, None].expand(x.shape)
        mean = torch.where(hidden, explained, 0.0)
        scale = given.scale[:, None].expand(x.shape)
        return cls(
            mean,
            torch.where(visible, x, mean),
            torch.where(visible, explained, 0.0),
            scale,
            torch.where(visible | hidden, given.centre(x), 0.0),
            visible,
            hidden,
            shape,
        )

    def repeat(self, n_samples: int) -> Context:
        """Repeat every window for each sample: (M, B, d) -> (M, S * B, d)."""
        fields = ("mean", "value", "surprise", "scale", "centre", "visible", "hidden")
        return replace(self, **{name: getattr(self, name).repeat(1, n_samples, 1) for name in fields})

    @property
    def kinds(self) -> Tensor:
        """Kind of gap of every entry of the masks, (M, 1, d), as an index into GAP_KINDS."""
        hidden = self.hidden[:, 0].unflatten(1, self.shape)
        return gap_kinds(hidden).flatten(1)[:, None]

    def velocity(self, network: nn.Module, z: Tensor, theta: Tensor) -> Tensor:
        """Run the network on noisy entries (M, B, d) at angles (M, B)."""
        inputs = torch.stack(
            [
                self.value.clamp(-8, 8),
                self.surprise.clamp(-8, 8),
                torch.where(self.hidden, z, 0.0).clamp(-8, 8),
                self.scale.log(),
                self.centre,
                self.visible.float(),
                self.hidden.float(),
            ],
            -1,
        )
        inputs = inputs.flatten(0, 1).unflatten(1, self.shape)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=use_bfloat16(z.device)):
            out = network(inputs, theta.reshape(-1))
        return out.float().flatten(1).view(z.shape)


def use_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 matrix products are fast on this device (CUDA, or a CPU with AMX or AVX512-BF16)."""
    if device.type == "cpu":
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.backends.mkldnn.is_available() and fast
    return device.type == "cuda"


def to_device(given: Conditional, device: torch.device) -> Conditional:
    """Move a conditional's tensors."""
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(given).items()}
    return type(given)(**moved)


def _groups_of_equal_masks(visible: Tensor, hidden: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield, for up to `MASKS` distinct masks, one example window of each and all windows of each."""
    code = torch.cat([visible.flatten(1), hidden.flatten(1)], 1).to(torch.uint8)
    _, inverse = torch.unique(code, dim=0, return_inverse=True)
    order = torch.argsort(inverse, stable=True)
    members = order.split(torch.bincount(inverse).tolist())
    # Neighbours in this order have similar numbers of members, so that batches are rectangular.
    members = sorted((m for m in members if bool(hidden[m[0]].any())), key=len)
    for start in range(0, len(members), MASKS):
        part = members[start : start + MASKS]
        yield torch.stack([m[0] for m in part]), list(part)


def _batches(members: list[Tensor], entries: int, max_entries: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut windows grouped by mask into rectangles (masks, windows) of bounded size."""
    room = max(1, max_entries // max(1, entries))
    start = 0
    while start < len(members):
        size = len(members[start])
        stop = start
        while stop < len(members) and len(members[stop]) == size and stop - start < max(1, room // size):
            stop += 1
        index = torch.arange(start, stop)
        for columns in torch.arange(size).split(room):
            yield index, torch.stack([members[i][columns] for i in index])
        start = stop
