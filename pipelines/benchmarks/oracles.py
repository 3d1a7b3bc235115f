"""How much of what a Gaussian cannot know the network learns, where the exact posterior is known.

    python -m pipelines.benchmarks.oracles
    python -m pipelines.benchmarks.oracles --steps 3000 --only double-well

A mixture of normals in 20 columns: independent rows, filled by `TabularImputer` with all its closed
forms and with the Gaussian alone. A double-well series with a noisy square of it, Lorenz-96 with
noise: `SeriesImputer` with and without its network. They and the exact posterior fill the same
windows, which nobody was trained on.  Errors are in training standard deviations per
channel.  Closed is the share of the Gaussian's excess CRPS over the exact posterior's that the
network removes, +- one standard error over windows; coverage is that of the central 90 % of 59
samples (the third and the third last: exactly 90 % if they come from the truth's law).

The posterior of Lorenz-96 is a particle smoother's: its CRPS with a quarter of the particles is
printed below the table, so that its own error can be judged.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from diffad import SeriesImputer, TabularImputer, Training
from diffad.metrics import coverage, crps
from pipelines.benchmarks.posteriors import ParticleChain, Process, double_well, lorenz96, random_mixture

SAMPLES = 59
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: Draws hidden entries of windows (n, length, channels).
Pattern = Callable[[tuple[int, int, int], np.random.Generator], Mask]


@dataclass(frozen=True)
class Oracle:
    """A process, the window it is imputed with (1: rows of a table) and how many are scored."""

    process: Process
    window: int
    n_windows: int
    patterns: dict[str, Pattern]

    def models(self, steps: int, seed: int) -> dict[str, SeriesImputer | TabularImputer]:
        """Return the Gaussian and the default model."""
        if self.window == 1:
            return {
                name: TabularImputer(prior=prior, random_state=seed)
                for name, prior in {"Gaussian": "gaussian", "diffad": "auto"}.items()
            }
        return {
            name: SeriesImputer(window=self.window, prior=prior, training=Training(max_steps=n), random_state=seed)
            for name, prior, n in (("Gaussian", "gaussian", 0), ("diffad", "auto", steps))
        }


def points(share: float) -> Pattern:
    """Hide a share of the entries."""
    return lambda shape, rng: rng.random(shape) < share


def block(shape: tuple[int, int, int], rng: np.random.Generator) -> Mask:
    """Hide half of the window in one channel."""
    hidden = np.zeros(shape, bool)
    for window in hidden:
        start = rng.integers(shape[1] // 2 + 1)
        window[start : start + shape[1] // 2, rng.integers(shape[2])] = True
    return hidden


def outage(shape: tuple[int, int, int], rng: np.random.Generator) -> Mask:
    """Hide a quarter of the window in all channels."""
    return np.stack([_run(shape[1], shape[1] // 4, rng)[:, None].repeat(shape[2], 1) for _ in range(shape[0])])


def half_of_the_channels(shape: tuple[int, int, int], rng: np.random.Generator) -> Mask:
    """Hide half of the channels, side by side, in every row of the window."""
    return np.stack([_run(shape[2], shape[2] // 2, rng)[None].repeat(shape[1], 0) for _ in range(shape[0])])


def _run(length: int, size: int, rng: np.random.Generator) -> Mask:
    start = rng.integers(length - size + 1)
    return (np.arange(length) >= start) & (np.arange(length) < start + size)


ROWS: dict[str, Pattern] = {"50 % points": points(0.5), "90 % points": points(0.9), "10 channels": half_of_the_channels}
SERIES: dict[str, Pattern] = {"50 % points": points(0.5), "24-step block": block, "12-step outage": outage}
ORACLES: dict[str, Oracle] = {
    "mixture": Oracle(random_mixture(), 1, 600, ROWS),
    "double-well": Oracle(double_well(), 48, 150, SERIES),
    "Lorenz-96": Oracle(lorenz96(), 48, 80, SERIES),
}


def score(oracle: Oracle, steps: int, rows: int, seed: int) -> tuple[list[dict], list[str]]:
    """Return one line of figures per pattern, and remarks."""
    rng = np.random.default_rng(seed)
    train = oracle.process.simulate(rows, rng)
    truth = oracle.process.simulate(oracle.n_windows * oracle.window, rng)
    # A panel: every window is on its own, as for the exact posterior.
    truth = truth.reshape(oracle.n_windows, oracle.window, -1)
    scale = train.std(0)
    models = oracle.models(steps, seed)
    started = time.perf_counter()
    for model in models.values():
        model.fit(train)
    fit_seconds = time.perf_counter() - started
    trained = models["diffad"]
    remarks = [trained.prior_ if isinstance(trained, TabularImputer) else f"network gain {trained.network_gain_:.3f}"]
    lines = []
    for pattern, hide in oracle.patterns.items():
        hidden = hide(truth.shape, rng)
        gaps = np.where(hidden, np.nan, truth)
        started = time.perf_counter()
        draws = {name: _draw(model, gaps) for name, model in models.items()}
        seconds = time.perf_counter() - started
        draws["exact"] = oracle.process.complete(gaps, SAMPLES, rng)
        error = {name: _per_window(crps(d / scale, truth / scale), hidden) for name, d in draws.items()}
        lines.append({"pattern": pattern} | {f"CRPS {name}": e.sum() / hidden.sum() for name, e in error.items()})
        lines[-1] |= _closed(**{name.lower(): e for name, e in error.items()})
        for name in ("diffad", "exact"):
            distance = np.abs(np.median(draws[name], 0) - truth) / scale
            lower, upper = np.quantile(draws[name][:, hidden], [0.05, 0.95], axis=0, method="weibull")
            lines[-1][f"MAE {name}"] = distance[hidden].mean()
            lines[-1][f"covered {name}"] = coverage(lower, upper, truth[hidden])
        lines[-1] |= {"fit seconds": fit_seconds, "seconds": seconds}
        if isinstance(oracle.process, ParticleChain):
            fewer = replace(oracle.process, n_particles=oracle.process.n_particles // 4)
            rough = _per_window(crps(fewer.complete(gaps, SAMPLES, rng) / scale, truth / scale), hidden)
            remarks.append(f"{pattern}: CRPS {rough.sum() / hidden.sum():.4f} with {fewer.n_particles} particles")
    return lines, remarks


def _draw(model: SeriesImputer | TabularImputer, gaps: Array) -> Array:
    """Sample windows (n, length, channels): (SAMPLES, n, length, channels)."""
    if isinstance(model, SeriesImputer):
        return model.sample(gaps, n_samples=SAMPLES)
    return np.asarray(model.sample(gaps.reshape(-1, gaps.shape[-1]), n_samples=SAMPLES)).reshape(SAMPLES, *gaps.shape)


def _per_window(values: Array, hidden: Mask) -> Array:
    """Return the sum over hidden entries of each window, (n,)."""
    return np.where(hidden, values, 0.0).sum((1, 2))


def _closed(gaussian: Array, diffad: Array, exact: Array) -> dict[str, float]:
    """Return the share of the gap closed and its standard error (of a ratio of means, to first order)."""
    gap, won = gaussian - exact, gaussian - diffad
    share = won.sum() / gap.sum()
    return {"closed": share, "+-": np.std(won - share * gap) * np.sqrt(len(gap)) / abs(gap.sum())}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=Training().max_steps, help="of training")
    parser.add_argument("--rows", type=int, default=20_000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(ORACLES), nargs="+", default=list(ORACLES))
    args = parser.parse_args()
    print(
        f"python {platform.python_version()} torch {torch.__version__}, {torch.get_num_threads()} threads; {vars(args)}"
    )
    lines: list[dict] = []
    for name in args.only:
        scored, remarks = score(ORACLES[name], args.steps, args.rows, args.seed)
        lines += [{"oracle": name} | line for line in scored]
        print(*(f"{name}: {remark}" for remark in remarks), sep="\n", flush=True)
    print(pd.DataFrame(lines).set_index(["oracle", "pattern"]).round(3).to_string())


if __name__ == "__main__":
    main()
