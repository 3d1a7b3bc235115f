"""Imputation of ETTh1-like recordings: accuracy, coverage and time of diffad and its peers, one table.

Split 60/20/20 in time, standardised on the training part, windows of 48 steps, five patterns of
missing values; errors on the hidden entries in training standard deviations.

    python pipelines/benchmarks/imputation.py --csv ../shared/data/series/ETTh1.csv
    python pipelines/benchmarks/imputation.py --csv FILE --part validation --steps 2000 --seeds 0 1 2

Textbook CSDI is ours with ``prior=None`` and the same training.  PyPOTS' SAITS joins when it is installed.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from numpy.typing import NDArray

from diffad import SeriesImputer, Training
from diffad.metrics import coverage, crps

LENGTH = 48
Array = NDArray[np.float64]


def load(path: Path, part: str) -> tuple[Array, Array]:
    """Return training rows and windows (n, 48, channels) of the part that is scored."""
    rows = pd.read_csv(path, index_col=0).to_numpy(float)
    train, validation = int(0.6 * len(rows)), int(0.8 * len(rows))
    rows = (rows - rows[:train].mean(0)) / rows[:train].std(0)
    scored = rows[train:validation] if part == "validation" else rows[validation:]
    n = len(scored) // LENGTH
    return rows[:train], scored[: n * LENGTH].reshape(n, LENGTH, -1)


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
    name: str, impute: Callable[[Array, Array], Array], train: Array, truth: Array, seed: int
) -> list[dict]:
    """Score a peer that gives one value per gap: its CRPS is its MAE."""
    result = []
    for pattern, mask in masks(truth.shape, seed).items():
        started = time.perf_counter()
        filled = impute(train, np.where(mask, truth, np.nan))
        error = np.abs(filled - truth)[~mask].mean()
        result.append(row(name, pattern, seed, error, error, np.nan, time.perf_counter() - started, 0.0))
    return result


def score_samples(name: str, model: SeriesImputer, train: Array, truth: Array, seed: int, n_samples: int) -> list[dict]:
    """Score samples and calibrated bands of a model of ours."""
    started = time.perf_counter()
    model.fit(train)
    fit_seconds = time.perf_counter() - started
    result = []
    for pattern, mask in masks(truth.shape, seed).items():
        gaps, gap = np.where(mask, truth, np.nan), ~mask
        started = time.perf_counter()
        samples = model.sample(gaps, n_samples=n_samples)[:, gap]
        seconds = time.perf_counter() - started
        lower, upper = model.interval(gaps, 0.9, n_samples=n_samples)
        mae = np.abs(np.median(samples, 0) - truth[gap]).mean()
        covered = coverage(lower[gap], upper[gap], truth[gap])
        result.append(row(name, pattern, seed, mae, crps(samples, truth[gap]).mean(), covered, seconds, fit_seconds))
    for entry in model.history_:
        print(f"  {name}: {entry['seconds']:.0f} s, loss {entry['loss']:.4f}, held out {entry['validation']:.4f}")
    return result


def row(name: str, pattern: str, seed: int, *values: float) -> dict:
    """Name the figures of one line of the table."""
    keys = ("MAE", "CRPS", "coverage", "seconds", "fit seconds")
    return {"method": name, "pattern": pattern, "seed": seed} | dict(zip(keys, values, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=Path("../shared/data/series/ETTh1.csv"))
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--steps", type=int, default=Training().max_steps)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--csdi", action="store_true", help="also train the network without a prior")
    args = parser.parse_args()
    print(f"python {platform.python_version()} torch {torch.__version__} scikit-learn {sklearn.__version__}")
    print(f"{torch.get_num_threads()} threads; {vars(args)}")
    train, truth = load(args.csv, args.part)
    lines: list[dict] = []
    for seed in args.seeds:
        lines += score_points("interpolation", interpolation, train, truth, seed)
        for peer in ("KNNImputer", "IterativeImputer"):
            lines += score_points(peer, row_imputer(peer), train, truth, seed)
        models = {"prior alone": SeriesImputer(training=Training(max_steps=0), random_state=seed)}
        if args.csdi:
            models["textbook CSDI"] = SeriesImputer(
                prior=None, training=Training(max_steps=args.steps), random_state=seed
            )
        models["diffad"] = SeriesImputer(training=Training(max_steps=args.steps), random_state=seed)
        for name, model in models.items():
            lines += score_samples(name, model, train, truth, seed, args.samples)
    table = pd.DataFrame(lines).groupby(["method", "pattern"], sort=False).mean().drop(columns="seed")
    print(table.round(3).to_string())
    mean = table["CRPS"].unstack()
    ratio = mean.loc["diffad"] / mean.loc["prior alone"]
    print("CRPS of diffad / prior alone:", ratio.round(3).to_dict(), "mean", round(float(ratio.mean()), 3))


if __name__ == "__main__":
    main()
