"""Gaps longer than a window, and forecasts: accuracy and coverage of diffad beside what needs no model, one table.

Fitted on the first 60 % of a recording; in the rest a channel at a time, or all of them, are missing for one to four
windows, or the last rows are. Errors on the hidden entries in training standard deviations.

    python pipelines/benchmarks/long_gaps.py --csv DATA/series/ETTh1.csv --period 24
    python pipelines/benchmarks/long_gaps.py --telemetry
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad import SeriesImputer, Training
from diffad.datasets import load_telemetry
from diffad.metrics import coverage, crps

LENGTHS = (48, 96, 192)
#: Rows of the recording that are shown around a gap.
AROUND = 768
Array = NDArray[np.float64]


def cases(rows: Array, length: int, n: int, rng: np.random.Generator) -> Iterator[tuple[str, Array, Array]]:
    """Yield what is missing, complete rows, and the same with a gap."""
    for _ in range(n):
        start = int(rng.integers(len(rows) - AROUND + 1))
        truth = rows[start : start + AROUND]
        middle = (AROUND - length) // 2
        places = {
            "one channel": (slice(middle, middle + length), int(rng.integers(rows.shape[1]))),
            "all channels": (slice(middle, middle + length), slice(None)),
            "forecast": (slice(AROUND - length, None), slice(None)),
        }
        for name, place in places.items():
            gap = truth.copy()
            gap[place] = np.nan
            yield name, truth, gap


def simple(gap: Array, period: int | None) -> dict[str, Array]:
    """Return what interpolation, the last value and the last period fill in."""
    frame = pd.DataFrame(gap)
    filled = {"interpolation": frame.interpolate(limit_direction="both"), "last value": frame.ffill()}
    if period:
        seasonal = frame.copy()
        while seasonal.isna().any(axis=None):
            seasonal = seasonal.fillna(seasonal.shift(period))
        filled["last period"] = seasonal
    return {name: values.to_numpy() for name, values in filled.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--telemetry", action="store_true", help="the fault-free half of the embedded recording")
    parser.add_argument("--period", type=int, help="rows of a season, for the last period as a peer")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--cases", type=int, default=30)
    args = parser.parse_args()
    if not args.telemetry and args.csv is None:
        parser.error("give --csv or --telemetry")
    rows = load_telemetry()[0].to_numpy(float) if args.telemetry else pd.read_csv(args.csv, index_col=0).to_numpy(float)
    rows = rows[: len(rows) // 2] if args.telemetry else rows
    cut = int(0.6 * len(rows))
    rows = (rows - rows[:cut].mean(0)) / rows[:cut].std(0)
    model = SeriesImputer(training=Training(max_steps=args.steps)).fit(rows[:cut])
    lines = []
    for length in LENGTHS:
        for what, truth, gap in cases(rows[cut:], length, args.cases, np.random.default_rng(0)):
            hidden = np.isnan(gap)
            for name, filled in simple(gap, args.period).items():
                error = np.abs(filled - truth)[hidden].mean()
                lines.append((what, length, name, error, error, np.nan))
            samples = model.sample(gap, n_samples=args.samples)[:, hidden]
            lower, upper = (edge[hidden] for edge in model.interval(gap, 0.9, n_samples=args.samples))
            error = np.abs(model.transform(gap) - truth)[hidden].mean()
            score, covered = crps(samples, truth[hidden]).mean(), coverage(lower, upper, truth[hidden])
            lines.append((what, length, "diffad", error, score, covered))
    table = pd.DataFrame(lines, columns=["missing", "rows", "method", "MAE", "CRPS", "coverage"])
    print(table.groupby(["missing", "rows", "method"], sort=False).mean().round(3).to_string())


if __name__ == "__main__":
    main()
