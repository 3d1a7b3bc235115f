"""Imputation of ETTh1-like recordings: accuracy, coverage and time of diffad and its peers, one table.

Split 60/20/20 in time, standardised on the training part, windows of 48 steps, five patterns of
missing values; errors on the hidden entries in training standard deviations.

    python pipelines/benchmarks/imputation.py --csv DATA/series/ETTh1.csv
    python pipelines/benchmarks/imputation.py --csv FILE --parts validation --steps 2000 --seeds 0 1 2

    python pipelines/benchmarks/imputation.py --telemetry --steps 0    # the embedded recording, closed form
    python pipelines/benchmarks/imputation.py --csv FILE --curve 0.125 0.25 0.5   # CRPS after shares of the training
    python pipelines/benchmarks/imputation.py --csv FILE --speed                  # sampling beside PyPOTS' CSDI

Textbook CSDI is ours with ``prior=None`` and the same training.  PyPOTS' SAITS joins when it is
installed (extra ``bench``), as shipped and with the spread of its own errors on the last tenth of
the training part as a distribution; its CSDI where ``--csdi-epochs`` says for how long.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from numpy.typing import NDArray
from scipy import stats

from diffad import SeriesImputer, Training
from diffad.datasets import load_telemetry
from diffad.metrics import coverage, crps

LENGTH = 48
#: What is not the default prior.
PRIORS = {"plain Gaussian": "gaussian", "textbook CSDI": None}
Array = NDArray[np.float64]


def load(path: Path | None) -> tuple[Array, dict[str, Array]]:
    """Return training rows, and windows (n, 48, channels) of each part that can be scored.

    Without a file: the fault-free half of the embedded recording.
    """
    rows = pd.read_csv(path, index_col=0).to_numpy(float) if path else load_telemetry()[0].to_numpy(float)
    rows = rows if path else rows[: len(rows) // 2]
    train, validation = int(0.6 * len(rows)), int(0.8 * len(rows))
    rows = (rows - rows[:train].mean(0)) / rows[:train].std(0)
    parts = {"validation": rows[train:validation], "test": rows[validation:]}
    return rows[:train], {
        name: scored[: len(scored) // LENGTH * LENGTH].reshape(-1, LENGTH, rows.shape[1])
        for name, scored in parts.items()
    }


def masks(shape: tuple[int, ...], seed: int) -> dict[str, NDArray[np.bool_]]:
    """Return the five patterns, True = observed."""
    n, length, channels = shape
    patterns = {f"{p:.0%} points": np.random.default_rng(seed).random(shape) >= p for p in (0.1, 0.5, 0.9)}
    rng = np.random.default_rng(seed)
    blocks, outage = np.ones(shape, bool), np.ones(shape, bool)
    for i in range(n):
        for _ in range(4):
            channel, start = rng.integers(channels), rng.integers(length - 23)
            blocks[i, start : start + 24, channel] = False
    for i in range(n):
        start = rng.integers(length - 11)
        outage[i, start : start + 12] = False
    return patterns | {"24-step blocks": blocks, "12-step outage": outage}


def cases(parts: dict[str, Array], seed: int) -> Iterator[tuple[str, str, Array, NDArray[np.bool_]]]:
    """Yield part, pattern, truth and mask of everything that is scored."""
    for part, truth in parts.items():
        for pattern, mask in masks(truth.shape, seed).items():
            yield part, pattern, truth, mask


def interpolation(train: Array, gaps: Array) -> Array:
    """Linear interpolation per window and channel; the mean where nothing is observed."""
    return np.stack([pd.DataFrame(w).interpolate(limit_direction="both").fillna(0.0).to_numpy() for w in gaps])


def row_imputer(name: str) -> Callable[[Array, Array], Array]:
    """KNNImputer or IterativeImputer on single rows, as users apply them."""

    def impute(train: Array, gaps: Array) -> Array:
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer, KNNImputer

        model = KNNImputer() if name == "KNNImputer" else IterativeImputer(random_state=0)
        model.fit(train[:: max(1, len(train) // 4000)])
        return model.transform(gaps.reshape(-1, gaps.shape[-1])).reshape(gaps.shape)

    return impute


def score_points(
    name: str, impute: Callable[[Array, Array], Array], train: Array, parts: dict[str, Array], seed: int
) -> list[dict]:
    """Score a peer that gives one value per gap: its CRPS is its MAE."""
    result = []
    for part, pattern, truth, mask in cases(parts, seed):
        started = time.perf_counter()
        filled = impute(train, np.where(mask, truth, np.nan))
        error = np.abs(filled - truth)
        seconds = time.perf_counter() - started
        mae, each = error[~mask].mean(), per_window(error, mask)
        result.append(row(name, part, pattern, seed, mae, each, np.nan, seconds, 0.0))
    return result


def peer_windows(train: Array) -> tuple[Array, Array]:
    """Return windows to train a peer on, every other one, and later ones that it does not see."""
    windows = np.lib.stride_tricks.sliding_window_view(train, LENGTH, 0).transpose(0, 2, 1)
    cut = int(0.9 * len(windows))
    return np.ascontiguousarray(windows[:cut:2]), np.ascontiguousarray(windows[cut + LENGTH :: 12])


def score_saits(train: Array, parts: dict[str, Array], seed: int, epochs: int, n_samples: int) -> list[dict]:
    """Score PyPOTS' SAITS: its value, and its value plus errors it makes on held-out training windows."""
    from pypots.imputation import SAITS

    torch.manual_seed(seed)
    windows, held_out = peer_windows(train)
    sizes = {"n_layers": 2, "d_model": 128, "n_heads": 4, "d_k": 32, "d_v": 32, "d_ffn": 256}
    model = SAITS(LENGTH, train.shape[1], **sizes, epochs=epochs, verbose=False)
    started = time.perf_counter()
    model.fit({"X": windows.astype(np.float32)})
    fit_seconds = time.perf_counter() - started
    rng, result = np.random.default_rng(seed), []
    for part, pattern, truth, mask in cases(parts, seed):
        here = masks(held_out.shape, seed + 1)[pattern]
        errors = (held_out - model.predict({"X": np.where(here, held_out, np.nan)})["imputation"])[~here]
        started = time.perf_counter()
        filled = model.predict({"X": np.where(mask, truth, np.nan)})["imputation"]
        seconds = time.perf_counter() - started
        samples = filled[:, None] + rng.choice(errors, (len(truth), n_samples, *truth.shape[1:]))
        samples = samples.transpose(1, 0, 2, 3)
        lower, upper = filled + np.quantile(errors, 0.05), filled + np.quantile(errors, 0.95)
        covered = coverage(lower[~mask], upper[~mask], truth[~mask])
        mae = np.abs(filled - truth)[~mask].mean()
        each = per_window(crps(samples, truth), mask)
        result.append(row("SAITS + residuals", part, pattern, seed, mae, each, covered, seconds, fit_seconds))
    return result


def peer_csdi(channels: int, epochs: int, batch_size: int) -> Any:
    """Return PyPOTS' CSDI at the sizes of its paper."""
    from pypots.imputation import CSDI

    sizes = {"n_layers": 4, "n_heads": 8, "n_channels": 64}
    embeddings = {"d_time_embedding": 128, "d_feature_embedding": 16, "d_diffusion_embedding": 128}
    return CSDI(LENGTH, channels, **sizes, **embeddings, epochs=epochs, batch_size=batch_size, verbose=False)


def score_csdi(train: Array, parts: dict[str, Array], seed: int, epochs: int, n_samples: int) -> list[dict]:
    """Score PyPOTS' CSDI: the median and the quantiles of its samples; the epoch that is best on held-out windows."""
    torch.manual_seed(seed)
    windows, held_out = (w.astype(np.float32) for w in peer_windows(train))
    model = peer_csdi(train.shape[1], epochs, batch_size=64)
    gaps = np.where(np.random.default_rng(seed).random(held_out.shape) < 0.5, np.nan, held_out)
    started = time.perf_counter()
    model.fit({"X": windows}, {"X": gaps, "X_ori": held_out})
    fit_seconds = time.perf_counter() - started
    result = []
    for part, pattern, truth, mask in cases(parts, seed):
        started = time.perf_counter()
        gaps = np.where(mask, truth, np.nan).astype(np.float32)
        samples = model.predict({"X": gaps}, n_sampling_times=n_samples)["imputation"].swapaxes(0, 1)
        seconds = time.perf_counter() - started
        lower, upper = np.quantile(samples, [0.05, 0.95], axis=0)
        covered = coverage(lower[~mask], upper[~mask], truth[~mask])
        mae = np.abs(np.median(samples, 0) - truth)[~mask].mean()
        each = per_window(crps(samples, truth), mask)
        result.append(row("PyPOTS' CSDI", part, pattern, seed, mae, each, covered, seconds, fit_seconds))
    return result


def per_window(values: Array, mask: NDArray[np.bool_]) -> Array:
    """Return the sum over hidden entries of each window and their number: (n, 2)."""
    return np.stack([np.where(mask, 0.0, values).sum((1, 2)), (~mask).sum((1, 2))], 1)


def score_samples(
    name: str, model: SeriesImputer, train: Array, parts: dict[str, Array], seed: int, n_samples: int
) -> list[dict]:
    """Score samples and calibrated bands of a model of ours."""
    started = time.perf_counter()
    model.fit(train)
    fit_seconds = time.perf_counter() - started
    result = []
    for part, pattern, truth, mask in cases(parts, seed):
        gaps, gap = np.where(mask, truth, np.nan), ~mask
        started = time.perf_counter()
        samples = model.sample(gaps, n_samples=n_samples)[:, gap]
        seconds = time.perf_counter() - started
        lower, upper = model.interval(gaps, 0.9, n_samples=n_samples)
        mae = np.abs(np.median(samples, 0) - truth[gap]).mean()
        covered = coverage(lower[gap], upper[gap], truth[gap])
        error = np.zeros(truth.shape)
        error[gap] = crps(samples, truth[gap])
        result.append(row(name, part, pattern, seed, mae, per_window(error, mask), covered, seconds, fit_seconds))
    for entry in model.history_:
        print(f"  {name}: {entry['seconds']:.0f} s, loss {entry['loss']:.4f}, held out {entry['validation']:.4f}")
    return result


def row(
    name: str,
    part: str,
    pattern: str,
    seed: int,
    mae: float,
    each: Array,
    covered: float,
    seconds: float,
    fit_seconds: float,
) -> dict:
    """Name the figures of one line of the table; `each` holds the CRPS of every window."""
    return {
        "method": name,
        "part": part,
        "pattern": pattern,
        "seed": seed,
        "MAE": mae,
        "CRPS": each[:, 0].sum() / each[:, 1].sum(),
        "coverage": covered,
        "seconds": seconds,
        "fit seconds": fit_seconds,
        "windows": each[:, 0] / np.maximum(each[:, 1], 1),
    }


def compare(lines: list[dict], ours: str) -> None:
    """Print paired tests over windows (Wilcoxon's signed ranks) of our CRPS against every other method's."""
    frame = pd.DataFrame(lines).set_index(["method", "part", "pattern", "seed"])["windows"].sort_index()
    print(f"CRPS per window of {ours} against others: ratio of means, share of windows better, p")
    for method in frame.index.unique("method").drop(ours):
        for part, pattern in frame.loc[method].index.droplevel("seed").unique():
            a, b = (np.concatenate(frame.loc[m, part, pattern].to_list()) for m in (ours, method))
            p = stats.wilcoxon(a, b).pvalue
            ratio, better = a.mean() / b.mean(), (a < b).mean()
            print(f"  {method:18s} {part:11s} {pattern:15s} {ratio:.3f}  {better:.2f}  {p:.1e}")


def compare_speed(train: Array, n_windows: int, steps: int) -> None:
    """Print the seconds for the median of 20 samples of windows that miss half, ours and PyPOTS' CSDI."""
    windows = np.lib.stride_tricks.sliding_window_view(train, LENGTH, 0).transpose(0, 2, 1)[:: len(train) // n_windows]
    gaps = np.where(np.random.default_rng(0).random(windows.shape) < 0.5, np.nan, windows)
    ours = SeriesImputer(training=Training(max_steps=steps)).fit(train)
    started = time.perf_counter()
    np.median(ours.sample(gaps, n_samples=20), 0)
    own = (time.perf_counter() - started) / len(gaps)
    theirs = peer_csdi(train.shape[1], epochs=1, batch_size=8)
    theirs.fit({"X": gaps[:8].astype(np.float32)})
    started = time.perf_counter()
    theirs.predict({"X": gaps[:8].astype(np.float32)}, n_sampling_times=20)
    peer = (time.perf_counter() - started) / 8
    print(
        f"seconds a window: ours {own:.4f} ({len(gaps)} windows), CSDI {peer:.3f} (8 windows), ratio {peer / own:.0f}; "
        f"the gate admits {ours.network_gain_:.1%} (at 0 no network is run)"
    )


def score_all(train: Array, parts: dict[str, Array], seed: int, args: argparse.Namespace) -> list[dict]:
    """Return the lines of every method; `seed` is that of the gaps and of the training."""
    lines = score_points("interpolation", interpolation, train, parts, seed)
    for peer in ("KNNImputer", "IterativeImputer"):
        lines += score_points(peer, row_imputer(peer), train, parts, seed)
    if importlib.util.find_spec("pypots"):
        lines += score_saits(train, parts, seed, args.saits_epochs, args.samples)
    if args.csdi_epochs:
        lines += score_csdi(train, parts, seed, args.csdi_epochs, args.samples)
    trained = {"plain Gaussian": 0, "prior alone": 0}
    trained |= {f"diffad, {share:.0%} of the steps": int(share * args.steps) for share in args.curve}
    trained |= {"textbook CSDI": args.steps} if args.csdi else {}
    for name, steps in (trained | {"diffad": args.steps}).items():
        model = SeriesImputer(prior=PRIORS.get(name, "auto"), training=Training(max_steps=steps), random_state=seed)
        lines += score_samples(name, model, train, parts, seed, args.samples)
    return lines


def report(lines: list[dict]) -> None:
    """Print the means over seeds, the paired tests and the ratios to the plain Gaussian."""
    table = pd.DataFrame(lines).drop(columns="windows").groupby(["part", "method", "pattern"], sort=False).mean()
    print(table.drop(columns="seed").round(4).to_string())
    compare(lines, "diffad")
    for part, mean in table["CRPS"].unstack(sort=False).groupby("part", sort=False):
        ratio = mean.droplevel("part") / mean.loc[part, "plain Gaussian"]
        print(f"CRPS / plain Gaussian, {part}")
        print(ratio.assign(mean=ratio.mean(axis=1)).round(3).to_string())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--telemetry", action="store_true", help="the embedded recording instead of a file")
    parser.add_argument("--parts", choices=["validation", "test"], nargs="+", default=["validation", "test"])
    parser.add_argument("--steps", type=int, default=Training().max_steps)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--csdi", action="store_true", help="also train the network without a prior")
    parser.add_argument("--curve", type=float, nargs="+", default=[], help="also train for these shares of the steps")
    parser.add_argument("--saits-epochs", type=int, default=20)
    parser.add_argument("--csdi-epochs", type=int, default=0, help="also train PyPOTS' CSDI (hours without a GPU)")
    parser.add_argument("--speed", action="store_true", help="only compare the speed of sampling")
    args = parser.parse_args()
    if args.csv is None and not args.telemetry:
        parser.error("give --csv FILE, or --telemetry")
    print(f"python {platform.python_version()} torch {torch.__version__} scikit-learn {sklearn.__version__}")
    print(f"{torch.get_num_threads()} threads; {vars(args)}")
    train, both = load(None if args.telemetry else args.csv)
    parts = {part: both[part] for part in args.parts}
    if args.speed:
        return compare_speed(train, 1000, args.steps)
    lines: list[dict] = []
    for seed in args.seeds:
        lines += score_all(train, parts, seed, args)
    report(lines)


if __name__ == "__main__":
    main()
