"""From a week of good sensor data to explained alarms, tracked in MLflow.

    python pipelines/sensors.py                                     the embedded recording
    python pipelines/sensors.py --normal good.csv --new today.csv --alarms-per-day 2

Clean, fit, calibrate, detect, explain, log: copy it and put your own tables in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlflow
import pandas as pd

from diffad import AlarmsPerDay, FalseAlarmRate, SeriesDetector, autolog
from diffad.datasets import load_telemetry
from diffad.detectability import LEAST_ROWS, REPORT, detectability
from diffad.files.tables import read_table, write_table
from diffad.plot import plot_detectability, plot_detection, write_picture
from diffad.series.recordings import read


def load(normal: Path | None, new: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return normal rows and the rows to judge, on regular grids; without files, the embedded recording."""
    if normal and new:
        recording, period = read(read_table(normal), regularize=True)
        return recording.template, read(read_table(new), regularize=True, period=period)[0].template
    rows, _ = load_telemetry()
    half = len(rows) // 2  # the second half holds provoked faults
    return rows.iloc[:half], rows.iloc[half : half + 1200]


def clean(table: pd.DataFrame) -> pd.DataFrame:
    """Keep numbers only; what a sensor could not have said becomes missing, not zero."""
    numbers = table.select_dtypes("number")
    return numbers.where(numbers.abs() < 1e12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normal", type=Path)
    parser.add_argument("--new", type=Path)
    parser.add_argument("--alarms-per-day", type=float)
    parser.add_argument("--output", type=Path, default=Path("sensors-output"))
    parser.add_argument("--no-detectability", action="store_true", help="do not measure what the detector can see")
    options = parser.parse_args()
    if (options.normal is None) != (options.new is None):
        parser.error("give both --normal and --new, or neither for the embedded recording")
    normal, new = (clean(t) for t in load(options.normal, options.new))
    threshold = AlarmsPerDay(options.alarms_per_day) if options.alarms_per_day is not None else FalseAlarmRate(0.001)

    autolog()
    options.output.mkdir(parents=True, exist_ok=True)
    with mlflow.start_run(run_name="sensors"):
        # The last fifth of the good data is not fitted on: it shows whether the threshold holds.
        cut = int(0.8 * len(normal))
        detector = SeriesDetector(threshold=threshold).fit(normal.iloc[:cut])
        held = float((detector.decision_function(normal.iloc[cut:]) < 0).mean())
        events, explanation = detector.events(new), detector.explain(new)
        mlflow.log_params({"threshold": str(threshold), "channels": normal.shape[1], "rows": cut})
        mlflow.log_metrics({"alarm_share_held_out": held, "events": len(events)})
        print(f"Alarm on {held:.2%} of the normal rows held out. {len(events)} events:")
        print(
            events.assign(channels=events["channels"].map(", ".join)).round({"severity": 4, "p_value": 4}).to_string()
        )

        write_table(events.assign(channels=events["channels"].map(";".join)), options.output / "events.csv")
        blame = explanation.share.sum().sort_values(ascending=False).index[:6]
        figure = plot_detection(new[list(blame)], explanation, -detector.score_samples(new), detector.offset_, events)
        write_picture(figure, options.output / "events.png")
        if not options.no_detectability and len(normal) - cut >= LEAST_ROWS:
            table = detectability(detector, normal.iloc[cut:][list(normal.columns)], **REPORT)
            write_table(table, options.output / "detectability.csv")
            write_picture(plot_detectability(table), options.output / "detectability.png")
        mlflow.log_artifacts(str(options.output))
    print(f"Events and pictures: {options.output}")


if __name__ == "__main__":
    main()
