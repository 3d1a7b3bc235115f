"""The demonstration: gaps cut into the embedded recording, filled, measured, drawn and tracked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.datasets import load_telemetry
from diffad.metrics import coverage, crps
from diffad.plot import plot_imputation
from diffad.series import SeriesImputer
from diffad.tables import write_table
from diffad.tracking import autolog
from diffad.training import Training

UNITS = {
    "cpu0": "%",
    "cpu_nice": "%",
    "ctx_switches": "1/s",
    "interrupts": "1/s",
    "lo_bytes": "kB/s",
    "web_requests": "1/s",
    "mem_dirty": "MB",
    "compression": "MB/s",
}


def run(folder: Path, steps: int) -> None:
    """Fit on the first 40 % of the recording, fill gaps in the following 10 %, print and draw."""
    import mlflow

    rows, _ = load_telemetry()
    rows = rows[list(UNITS)]
    half = len(rows) // 2  # the second half holds provoked faults
    train, truth = rows.iloc[: int(0.8 * half)], rows.iloc[int(0.8 * half) : half].dropna()
    gaps = hide(truth, np.random.default_rng(0))
    autolog()
    with mlflow.start_run(run_name="demo"):
        print(f"Fitting {train.shape[1]} channels x {len(train)} rows ({steps} steps of training) ...")
        imputer = SeriesImputer(training=Training(max_steps=steps, progress=True)).fit(train)
        table, median, lower, upper = measure(imputer, gaps, truth, train)
        print("Errors in standard deviations of each channel; coverage of the 90 % bands:")
        print(table.round(3).to_string())
        folder.mkdir(parents=True, exist_ok=True)
        filled = pd.DataFrame(median, gaps.index, gaps.columns)
        write_table(filled, folder / "filled.csv")
        view = slice(60, 300)
        figure = plot_imputation(
            gaps.iloc[view],
            median[view],
            lower[view],
            upper[view],
            truth.iloc[view],
            UNITS,
            "Two minutes of the embedded recording",
        )
        figure.savefig(folder / "filled.png", dpi=110)
        figures = {f"{c}/{r}": float(table.loc[r, c]) for r in table.index for c in table.columns}
        mlflow.log_metrics({name: value for name, value in figures.items() if np.isfinite(value)})
        mlflow.log_artifacts(str(folder))
    autolog(False)
    print(f"Filled values: {folder / 'filled.csv'}   picture: {folder / 'filled.png'}")
    print("Open the tracked run with: .venv/bin/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db")


def hide(truth: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Cut scattered points, sensor failures and outages into a complete recording."""
    values = truth.to_numpy(copy=True)
    n, channels = values.shape
    gap = rng.random(values.shape) < 0.1
    for _ in range(n // 40):
        start = rng.integers(n - 24)
        gap[start : start + 24, rng.integers(channels)] = True
    for start in range(150, n - 12, 200):
        gap[start : start + 12] = True
    values[gap] = np.nan
    return pd.DataFrame(values, truth.index, truth.columns)


def measure(
    imputer: SeriesImputer, gaps: pd.DataFrame, truth: pd.DataFrame, train: pd.DataFrame
) -> tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compare with interpolation and the prior alone, in standard deviations of each channel."""
    gap = gaps.isna().to_numpy()
    unit = np.broadcast_to(train.std().to_numpy(), gap.shape)[gap]
    prior = SeriesImputer(training=Training(max_steps=0)).fit(train)
    table = {}
    for name, model in (("closed form alone", prior), ("diffad", imputer)):
        median = model.transform(gaps).to_numpy()
        lower, upper = model.interval(gaps, 0.9)
        samples = model.sample(gaps, n_samples=50)[:, gap]
        table[name] = {
            "MAE": np.mean(np.abs(median - truth.to_numpy())[gap] / unit),
            "CRPS": np.mean(crps(samples, truth.to_numpy()[gap]) / unit),
            "coverage": coverage(lower[gap], upper[gap], truth.to_numpy()[gap]),
        }
    linear = gaps.interpolate(limit_direction="both").to_numpy()
    error = np.mean(np.abs(linear - truth.to_numpy())[gap] / unit)
    table = {"linear interpolation": {"MAE": error, "CRPS": error, "coverage": np.nan}} | table
    return pd.DataFrame(table).T, median, lower, upper
