"""From pictures of good parts to a report of defects with heat maps, tracked in MLflow.

    python pipelines/inspection.py                                 scikit-learn's digits, one class good
    python pipelines/inspection.py --good good_parts --new today   your folders of PNG, JPEG, TIFF

Read, fit, calibrate, judge, explain, report, log: copy it and put your own folders in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from diffad import FalseAlarmRate, ImageDetector, autolog
from diffad.base.whole_files import replacing
from diffad.files.tables import write_table
from diffad.inspection.folders import Folder, read_folder
from diffad.inspection.pictures import plot_scores
from diffad.inspection.report import Inspection, html
from diffad.plot import write_picture

#: The digit that plays the good part.
GOOD_DIGIT = 3
#: Digits of every other class among those to judge.
OTHERS = 5


def digits() -> tuple[Folder, Folder, np.ndarray]:
    """Return good digits, digits to judge, and which of the latter are of another class."""
    images, kind = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    # The last digits of the file are of other writers: as with parts of another machine, more of them would alarm.
    good = np.random.default_rng(0).permutation(np.flatnonzero(kind == GOOD_DIGIT))
    cut = int(0.8 * len(good))
    others = np.concatenate([np.flatnonzero(kind == k)[:OTHERS] for k in range(10) if k != GOOD_DIGIT])
    return (
        _folder(images, kind, good[:cut]),
        _folder(images, kind, np.r_[good[cut:], others]),
        np.r_[np.zeros(len(good) - cut, bool), np.ones(len(others), bool)],
    )


def _folder(images: np.ndarray, kind: np.ndarray, chosen: np.ndarray) -> Folder:
    return Folder([f"digit {kind[i]}, image {i}" for i in chosen], images[chosen], size=(8, 8))


def write(inspection: Inspection, good: Folder, normal: np.ndarray, output: Path) -> None:
    """Write the report, the scores as CSV and the two pictures into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "report.html") as draft:
        draft.write_text(html(inspection, good, normal), encoding="utf-8", errors="backslashreplace")
    columns = {
        "file": inspection.folder.names,
        "score": inspection.strangeness,
        "p_value": inspection.p_values,
        "alarm": inspection.alarms,
    }
    write_table(pd.DataFrame(columns), output / "scores.csv")
    write_picture(inspection.sheet(), output / "worst.png")
    write_picture(plot_scores(normal, inspection.strangeness, inspection.threshold), output / "scores.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=Path, help="folder of good parts")
    parser.add_argument("--new", type=Path, help="folder to judge")
    parser.add_argument("--false-alarm-rate", type=float, default=0.05, help="below 1 / good images it is a guess")
    parser.add_argument("--output", type=Path, default=Path("inspection-output"))
    options = parser.parse_args()
    if (options.good is None) != (options.new is None):
        parser.error("give both --good and --new, or neither for the digits")
    defective = None
    if options.good and options.new:
        good = read_folder(options.good)
        new = read_folder(options.new, like=good)
    else:
        good, new, defective = digits()

    autolog()
    with mlflow.start_run(run_name="inspection"):
        detector = ImageDetector(threshold=FalseAlarmRate(options.false_alarm_rate)).fit(good.images)
        inspection = Inspection.of(detector, new)
        write(inspection, good, detector.normal_.scores, options.output)
        asked = {"good_images": len(good.names), "size": str(good.images.shape[1:3])}
        mlflow.log_params(asked | {"false_alarm_rate": options.false_alarm_rate})
        mlflow.log_metrics({"images": len(new.names), "alarms": int(inspection.alarms.sum())})
        print(f"{inspection.alarms.sum()} of {len(new.names)} images alarm; the strangest:")
        for i in inspection.worst[:8]:
            print(f"  {new.names[i]:24s} score {inspection.strangeness[i]:8.3g}  p {inspection.p_values[i]:.3f}")
        if defective is not None:
            roc = roc_auc_score(defective, inspection.strangeness)
            false, found = (inspection.alarms[defective == d].mean() for d in (False, True))
            print(f"other digits: ROC-AUC {roc:.3f}, {found:.0%} alarm; good ones: {false:.0%} alarm")
            mlflow.log_metrics({"roc_auc": float(roc), "found": float(found), "false_alarms": float(false)})
        mlflow.log_artifacts(str(options.output))
    print(f"Report and pictures: {options.output}")


if __name__ == "__main__":
    main()
