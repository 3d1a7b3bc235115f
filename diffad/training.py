"""The training loop: one network, one stream of batches, the best averaged weights on held-out data.

It knows nothing of series or tables: a batch is whatever the loss function takes.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from diffad.base.arguments import check_count, check_within
from diffad.base.parameters import Parameters
from diffad.base.telling import tell
from diffad.base.whole_files import replacing
from diffad.muon import Muon

logger = logging.getLogger(__name__)

#: Rate of Muon, in units of AdamW's.
MUON_RATE = 7.5

#: Called with (step, {"loss": ..., "validation": ...}) at every look, without the latter if nothing is held out.
Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Training(Parameters):
    """How long and how fast to train.

    Parameters
    ----------
    max_steps : int, default=3000
        Optimisation steps; 0 leaves the prior alone, an instant and exact baseline. An autoencoder needs at least 1.
    masks_per_batch, windows_per_mask : int, default=16 and 4
        A batch holds ``masks_per_batch * windows_per_mask`` windows; one factorisation serves
        all windows under the same mask.
    learning_rate : float, default=2e-3
        Peak rate of AdamW, after 5 % warm-up and before a cosine to zero; Muon, which moves the matrices
        of the axial transformer, takes 7.5 times as much.
    ema : float, default=0.998
        Decay of the averaged weights that are kept.
    mixing : float, default=1.0
        Share of a batch that is a covariance-preserving mixture of two windows,
        ``x1 cos a + x2 sin a``: the prior stays exact and there is less to memorise. Of series only: rows and images
        are never mixed.
    evaluate_every : int, default=250
        Steps between looks at the held-out loss.
    patience : int, default=8
        Looks without a better held-out loss before training stops.
    checkpoint : path or None, default=None
        File to keep the state in; a run that finds it resumes to the bit. It belongs to one data
        set, one seed and one `Training`: others are refused.
    progress : bool, default=False
        Show a progress bar with loss and remaining time.

    Examples
    --------
    >>> from diffad import SeriesImputer, Training
    >>> SeriesImputer(training=Training(max_steps=300)).set_params(training__patience=4).training.patience
    4
    """

    max_steps: int = 3000
    masks_per_batch: int = 16
    windows_per_mask: int = 4
    learning_rate: float = 2e-3
    ema: float = 0.998
    mixing: float = 1.0
    evaluate_every: int = 250
    patience: int = 8
    checkpoint: str | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("max_steps", "masks_per_batch", "windows_per_mask", "evaluate_every", "patience"):
            check_count(getattr(self, name), name, least=int(name != "max_steps"))
        check_within(self.learning_rate, "learning_rate", 0)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate!r}")
        check_within(self.ema, "ema", 0, 1)
        if self.ema == 1:
            raise ValueError("ema must be below 1, which would never learn, got 1")
        check_within(self.mixing, "mixing", 0, 1)
        if not isinstance(self.checkpoint, str | PathLike | None):
            raise ValueError(f"checkpoint must be a file to write, or None, got {self.checkpoint!r}")


def check_training(training: Any, name: str = "training", default: Training | None = None) -> Training | None:
    """Return the training that an estimator's parameter asks for: None where of no steps, for "auto" the `default`.

    Raises
    ------
    ValueError
        For anything but a `Training`, None and, where there is a default, "auto".
    """
    if default is not None and isinstance(training, str) and training == "auto":
        return default
    if training is not None and not isinstance(training, Training):
        auto = "" if default is None else "'auto', "
        raise ValueError(f"{name} must be {auto}a Training or None, got {training!r}")
    return training if training is not None and training.max_steps else None


def train(
    network: nn.Module,
    batch_loss: Callable[[torch.Generator], Tensor],
    held_out_loss: Callable[[], float] | None,
    training: Training,
    generator: torch.Generator,
    on_progress: Progress | None = None,
    matrices: Sequence[nn.Parameter] = (),
    data: Sequence[Tensor | str] = (),
) -> list[dict[str, float]]:
    """Train `network` in place; it ends with the averaged weights that were best on held-out data, or the last.

    Parameters
    ----------
    network : torch.nn.Module
    batch_loss : callable
        Draws a batch with the generator and returns its loss.
    held_out_loss : callable or None
        Returns the loss of the network's present weights on held-out data; None holds nothing out, and the last
        weights stay.
    training : Training
    generator : torch.Generator
        The only source of randomness; its state is part of a checkpoint.
    on_progress : callable, optional
        Told of every look at the held-out loss.
    matrices : sequence of Parameter, optional
        Weights of `network` between hidden layers, which Muon moves; AdamW moves the others.
    data : sequence of Tensor or str, optional
        What is learnt from, and by what: a checkpoint of anything else is refused.

    Returns
    -------
    list of dict
        ``step``, ``seconds``, ``loss`` and, where something is held out, ``validation`` of every look.
    """
    loop = _Loop(network, training, generator, matrices, data)
    bar = tqdm(total=training.max_steps, initial=loop.step, desc="training", unit="step", disable=not training.progress)
    started, running = time.perf_counter(), []
    with torch.enable_grad(), bar:
        while loop.step < training.max_steps and loop.stale < training.patience:
            running.append(loop.update(batch_loss))
            bar.update()
            if loop.step % training.evaluate_every and loop.step != training.max_steps:
                continue
            loss = float(torch.stack(running).mean())
            running.clear()
            entry = {"step": float(loop.step), "seconds": loop.seconds + time.perf_counter() - started, "loss": loss}
            if held_out_loss is None:
                loop.keep()
            else:
                entry["validation"] = loop.look(held_out_loss)
            if not math.isfinite(loss):
                tell(
                    f"training met a loss of {loss} near step {loop.step} and stopped; "
                    "the best weights so far are kept",
                    RuntimeWarning,
                )
                break
            loop.history.append(entry)
            loop.save(loop.seconds + time.perf_counter() - started)
            bar.set_postfix({name: f"{value:.4f}" for name, value in entry.items() if name in ("loss", "validation")})
            logger.info("step %d loss %.4f validation %.4f", loop.step, loss, entry.get("validation", math.nan))
            if on_progress is not None:
                on_progress(loop.step, entry)
    loop.restore_best()
    return loop.history


class _Loop:
    """The state that a checkpoint has to hold: weights, averages, optimiser, randomness, best."""

    def __init__(
        self,
        network: nn.Module,
        training: Training,
        generator: torch.Generator,
        matrices: Sequence[nn.Parameter],
        data: Sequence[Tensor | str],
    ) -> None:
        self.network, self.training, self.generator = network, training, generator
        hidden = {id(p) for p in matrices}
        others = [p for p in network.parameters() if id(p) not in hidden]
        decay = [p for p in others if p.ndim > 1]
        rest = [p for p in others if p.ndim <= 1]
        rate = training.learning_rate
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}],
                lr=rate,
                betas=(0.9, 0.99),
                fused=True,
            )
        ]
        if matrices:
            self.optimizers.append(Muon(matrices, lr=MUON_RATE * rate))
        self.peaks = [o.defaults["lr"] for o in self.optimizers]
        self.average = _copy(network.state_dict())
        self.best = _copy(self.average)
        self.best_loss = math.inf
        self.step, self.stale, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, float]] = []
        self.origin = ""
        if training.checkpoint is not None:
            if not (folder := Path(training.checkpoint).parent).is_dir():
                raise FileNotFoundError(f"checkpoint {training.checkpoint}: there is no folder {folder}")
            self.origin = _origin(generator.initial_seed(), data)
            self._resume()

    def update(self, batch_loss: Callable[[torch.Generator], Tensor]) -> Tensor:
        """Take one step; a non-finite gradient counts as zero. Returns the loss."""
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = peak * self._rate()
        self.network.train()
        loss = batch_loss(self.generator)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        # Scaling by zero instead of branching keeps the device free of a sync per step.
        healthy = torch.isfinite(norm)
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.grad = torch.where(healthy, parameter.grad, 0.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(self.training.ema, (1 + self.step) / (10 + self.step))
        state = self.network.state_dict()
        averages = [self.average[k] for k in state]
        torch._foreach_lerp_(averages, list(state.values()), 1 - decay)
        return loss.detach()

    def look(self, held_out_loss: Callable[[], float]) -> float:
        """Measure the averaged weights on held-out data and remember the best."""
        now = _copy(self.network.state_dict())
        self.network.load_state_dict(self.average)
        self.network.eval()
        with torch.no_grad():
            loss = held_out_loss()
        self.network.load_state_dict(now)
        if loss < self.best_loss:
            self.best, self.best_loss, self.stale = _copy(self.average), loss, 0
        else:
            self.stale += 1
        return loss

    def keep(self) -> None:
        """Remember the averaged weights, unless training has diverged."""
        if all(bool(torch.isfinite(value).all()) for value in self.average.values()):
            self.best = _copy(self.average)

    def restore_best(self) -> None:
        self.network.load_state_dict(self.best)
        self.network.eval()

    def save(self, seconds: float) -> None:
        """Write the checkpoint, never half of it."""
        if self.training.checkpoint is None:
            return
        path = Path(self.training.checkpoint)
        state = {
            "training": repr(replace(self.training, checkpoint=None, progress=False)),
            "origin": self.origin,
            "network": self.network.state_dict(),
            "average": self.average,
            "best": self.best,
            "best_loss": self.best_loss,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "generator": self.generator.get_state(),
            "device": self.generator.device.type,
            "step": self.step,
            "stale": self.stale,
            "seconds": seconds,
            "history": self.history,
        }
        try:
            with replacing(path) as draft:
                torch.save(state, draft)
        except (OSError, RuntimeError) as error:  # torch has no error of its own for a full disk
            raise OSError(f"checkpoint {path} cannot be written: {error}") from error

    def _resume(self) -> None:
        path = self.training.checkpoint
        if path is None or not Path(path).exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = state["training"], state["origin"]
        except Exception as error:
            raise ValueError(f"checkpoint {path} is broken, or none of ours; remove it to start anew") from error
        if found[1] != self.origin:
            raise ValueError(f"checkpoint {path} was written for other data or another seed; name another file")
        if state["training"] != repr(replace(self.training, checkpoint=None, progress=False)):
            raise ValueError(
                f"checkpoint {self.training.checkpoint} was written with {state['training']}; "
                "give the same parameters or another file"
            )
        here = self.generator.device.type
        if (there := state.get("device", here)) != here:
            raise ValueError(
                f"checkpoint {path} was written on {there!r}, and its random numbers do not go on on {here!r}; give that "
                "device or another file"
            )
        self.network.load_state_dict(state["network"])
        for optimizer, found in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(found)
        self.generator.set_state(state["generator"])
        for name in ("average", "best"):
            # A state takes the place of tensors that are where they should be.
            setattr(self, name, {k: value.to(getattr(self, name)[k].device) for k, value in state[name].items()})
        for name in ("best_loss", "step", "stale", "seconds", "history"):
            setattr(self, name, state[name])

    def _rate(self) -> float:
        total = self.training.max_steps
        warm_up = max(1, total // 20)
        if self.step < warm_up:
            return (self.step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm_up) / max(1, total - warm_up)))


def _origin(seed: int, data: Sequence[Tensor | str]) -> str:
    """Return a digest of what is learnt from."""
    digest = hashlib.sha256(str(seed).encode())
    for part in data:
        if isinstance(part, str):
            digest.update(part.encode())
            continue
        digest.update(str(tuple(part.shape)).encode())
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in state.items()}
