"""The demonstration: the embedded recording with gaps filled and its provoked faults found, drawn and tracked."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.datasets import load_telemetry
from diffad.detection import DriftWarning
from diffad.files.tables import write_table
from diffad.metrics import coverage, crps
from diffad.plot import plot_detection, plot_imputation, write_picture
from diffad.series_detector import SeriesDetector
from diffad.series_imputer import SeriesImputer
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

#: Channels in the picture of alarms.
SHOWN = ("cpu1", "disk_write", "mem_used", "cpu_iowait", "tcp_inuse", "web_latency")


def run(folder: Path, steps: int) -> None:
    """Fill gaps in the fault-free half of the recording, find the faults of the other; print, draw, track."""
    import mlflow

    training = Training(max_steps=steps, progress=True)
    folder.mkdir(parents=True, exist_ok=True)
    autolog()
    with mlflow.start_run(run_name="demo"):
        fill(folder, training)
        detect(folder)
        mlflow.log_artifacts(str(folder))
    autolog(False)
    print("Open the tracked run with: .venv/bin/mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db")


def fill(folder: Path, training: Training) -> None:
    """Fit on the first 40 % of the recording, fill gaps in the following 10 %, print and draw."""
    import mlflow

    rows, _ = load_telemetry()
    rows = rows[list(UNITS)]
    half = len(rows) // 2  # the second half holds provoked faults
    train, truth = rows.iloc[: int(0.8 * half)], rows.iloc[int(0.8 * half) : half].dropna()
    gaps = hide(truth, np.random.default_rng(0))
    print(f"Fitting {train.shape[1]} channels x {len(train)} rows ({training.max_steps} steps of training) ...")
    imputer = SeriesImputer(training=training).fit(train)
    table, median, lower, upper = measure(imputer, gaps, truth, train)
    print("Errors in standard deviations of each channel; coverage of the 90 % bands:")
    print(table.round(3).to_string())
    write_table(pd.DataFrame(median, gaps.index, gaps.columns), folder / "filled.csv")
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
    write_picture(figure, folder / "filled.png")
    figures = {f"{c}/{r}": float(table.loc[r, c]) for r in table.index for c in table.columns}
    mlflow.log_metrics({name: value for name, value in figures.items() if np.isfinite(value)})
    print(f"Filled values: {folder / 'filled.csv'}   picture: {folder / 'filled.png'}")


def detect(folder: Path) -> None:
    """Fit a detector on the fault-free half, find the provoked faults of the other, print and draw."""
    import mlflow

    rows, faults = load_telemetry()
    half = len(rows) // 2
    print(f"Fitting a detector on {rows.shape[1]} channels x {half} rows without faults ...")
    detector = SeriesDetector().fit(rows.iloc[:half])
    new = rows.iloc[half:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DriftWarning)  # nearly half of these rows are faults
        events = detector.events(new)
    table = found_faults(events, faults)
    print("Provoked faults: when the first alarm came, and whom the detector blames:")
    print(table.to_string(index=False))
    alarm = detector.decision_function(new) < 0
    reach = detector.scorer_.rows_after
    print(f"Judged offline, by windows that reach up to {reach} rows beyond each; live detection is later.")
    share = float(table["late"].notna().mean())
    named = sum(
        bool({*b.split(";")} & {*c.split(";")}) for b, c in zip(table["blamed"], table["channels"], strict=True)
    )
    print(f"Found {share:.0%} of {len(table)} faults, {named} of them by an event that blames a faulty channel.")
    true, beside = during(faults, new.index, 0), during(faults, new.index, reach)
    between, near, far = (float(alarm[rows].mean()) for rows in (~true, beside & ~true, ~beside))
    print(
        f"Alarm on {between:.0%} of the rows between them: {near:.0%} where windows reach into a fault, so that an event "
        f"may begin before it; {far:.1%} elsewhere (1 % asked)."
    )
    metrics = {"faults_found": share, "faults_named": named / len(table)}
    mlflow.log_metrics(metrics | {"alarm_share_between_faults": between, "alarm_share_beyond_windows": far})
    write_table(events.assign(channels=events["channels"].map(";".join)), folder / "alarms.csv")
    view = slice(*np.searchsorted(new.index, [new.index[0], new.index[0] + pd.Timedelta(minutes=9)]))
    part, explanation = new.iloc[view], detector.explain(new.iloc[view])
    concerned = [c for c in SHOWN if c in part.columns]
    figure = plot_detection(
        part[concerned],
        explanation,
        -detector.score_samples(part),
        detector.offset_,
        events[events["start"] <= part.index[-1]].assign(end=events["end"].clip(upper=part.index[-1])),
        faults[faults["end"] <= part.index[-1]],
        title="Nine minutes of the embedded recording with provoked faults",
    )
    write_picture(figure, folder / "alarms.png")
    print(f"Alarms: {folder / 'alarms.csv'}   picture: {folder / 'alarms.png'}")


def found_faults(events: pd.DataFrame, faults: pd.DataFrame) -> pd.DataFrame:
    """Return, per true fault, how late the first event that overlaps with it began, and whom it blames.

    NaN is a missed fault; negative, an event that began before the fault: another, or a false one.
    """
    lines = []
    for fault in faults.itertuples():
        hit = events[(events["end"] >= fault.start) & (events["start"] <= fault.end)]
        late = hit.iloc[0]["start"] - fault.start if len(hit) else pd.NaT
        blamed = ";".join(hit.iloc[0]["channels"]) if len(hit) else "-"
        lines.append((fault.kind, fault.channels, late, blamed))
    table = pd.DataFrame(lines, columns=["kind", "channels", "late", "blamed"])
    return table.assign(late=table["late"].dt.total_seconds().map(lambda s: s if np.isnan(s) else round(s, 1)))


def during(faults: pd.DataFrame, index: pd.Index, margin: int) -> NDArray[np.bool_]:
    """Mark the rows of faults, and `margin` rows before and after each."""
    marked = np.zeros(len(index), bool)
    first, last = index.searchsorted(faults["start"]), index.searchsorted(faults["end"], side="right")
    for start, stop in zip(first, last, strict=True):
        marked[max(0, start - margin) : stop + margin] = True
    return marked


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
    """Compare with interpolation, a Gaussian and the closed form alone, in standard deviations of each channel."""
    gap = gaps.isna().to_numpy()
    unit = np.broadcast_to(train.std().to_numpy(), gap.shape)[gap]
    closed = Training(max_steps=0)
    models = {
        "plain Gaussian": SeriesImputer(prior="gaussian", training=closed).fit(train),
        "closed form alone": SeriesImputer(training=closed).fit(train),
        "diffad": imputer,
    }
    table = {}
    for name, model in models.items():
        median = model.transform(gaps).to_numpy()
        lower, upper = model.interval(gaps, 0.9, n_samples=20)
        samples = model.sample(gaps, n_samples=20)[:, gap]
        table[name] = {
            "MAE": np.mean(np.abs(median - truth.to_numpy())[gap] / unit),
            "CRPS": np.mean(crps(samples, truth.to_numpy()[gap]) / unit),
            "coverage": coverage(lower[gap], upper[gap], truth.to_numpy()[gap]),
        }
    linear = gaps.interpolate(limit_direction="both").to_numpy()
    error = np.mean(np.abs(linear - truth.to_numpy())[gap] / unit)
    table = {"linear interpolation": {"MAE": error, "CRPS": error, "coverage": np.nan}} | table
    return pd.DataFrame(table).T, median, lower, upper
