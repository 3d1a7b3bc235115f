"""Anomaly detection on series: accuracy per row and per event, false alarms, speed; diffad and its peers.

    python pipelines/benchmarks/series_anomaly.py telemetry
    python pipelines/benchmarks/series_anomaly.py skab --data DATA/skab/valve1
    python pipelines/benchmarks/series_anomaly.py inject --csv DATA/series/ETTh1.csv --draws 1 2
    python pipelines/benchmarks/series_anomaly.py inject --csv DATA/series/ETTh1.csv --network 3000
    python pipelines/benchmarks/series_anomaly.py univariate
    python pipelines/benchmarks/series_anomaly.py promise --csv DATA/series/ETTh1.csv

``telemetry`` is the embedded recording with provoked faults; ``skab`` fits on the first 400 rows of
every file; ``inject`` puts faults of six kinds into the last fifth of a recording, or into every
second block of 500 rows (``--blocks``), fitted on the rest; ``univariate`` are two series embedded in
aeon (``pip install aeon``); ``promise`` counts false alarms on four stretches of fault-free recordings after the
rows fitted on, readings that were carried forward left out.  Nothing is point-adjusted.  ``position``
sees only the row number, ``random`` nothing: what they reach is what a data set gives away.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from diffad import SeriesDetector, SeriesImputer, Training, carried_forward
from diffad.datasets import load_telemetry
from diffad.demo import UNITS
from diffad.detection import DriftWarning
from diffad.evidence.window_model import KINDS
from diffad.faults import inject
from diffad.metrics import vus_pr
from diffad.thresholds import AlarmsPerDay, FalseAlarmRate, Threshold, merge

Array = NDArray[np.float64]
#: (rows to fit on, rows to score) -> strangeness per row
Method = Callable[[Array, Array], Array]


class Case(NamedTuple):
    """One recording: rows to fit on, rows to score, labels, the channel at fault (-1: unknown), VUS buffer."""

    name: str
    normal: Array
    new: Array
    y: NDArray[np.int64]
    channel: NDArray[np.int64] | None
    buffer: int


def windows(X: Array, length: int, centred: bool) -> Array:
    """Return one flat window per row, the edges repeated."""
    after = length // 2 if centred else 0
    padded = np.pad(X, ((length - 1 - after, after), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, length, 0).reshape(len(X), -1)


def on_windows(length: int, centred: bool, fit: Callable[[Array], Callable[[Array], Array]]) -> Method:
    """Turn a method for rows into one for windows of standardised series."""

    def score(normal: Array, new: Array) -> Array:
        scaler = StandardScaler().fit(normal)
        a, b = scaler.transform(normal), scaler.transform(new)
        return fit(windows(a, length, centred))(windows(b, length, centred))

    return score


def _residual(components: float | int) -> Callable[[Array], Callable[[Array], Array]]:
    def fit(Z: Array) -> Callable[[Array], Array]:
        pca = PCA(components).fit(Z)
        return lambda Q: ((Q - pca.inverse_transform(pca.transform(Q))) ** 2).sum(1)

    return fit


def _t2_and_q(Z: Array) -> Callable[[Array], Array]:
    """Hotelling's T2 and the squared prediction error, each over its 99 % quantile; the larger."""
    pca = PCA(0.8).fit(Z)

    def both(Q: Array) -> tuple[Array, Array]:
        t = pca.transform(Q)
        return (t**2 / pca.explained_variance_).sum(1), ((Q - pca.inverse_transform(t)) ** 2).sum(1)

    limits = [np.quantile(v, 0.99) for v in both(Z)]
    return lambda Q: np.max([v / m for v, m in zip(both(Q), limits, strict=True)], 0)


def _autoencoder(Z: Array) -> Callable[[Array], Array]:
    net = MLPRegressor(hidden_layer_sizes=(64, 16, 64), early_stopping=len(Z) > 200, max_iter=200, random_state=0).fit(
        Z, Z
    )
    return lambda Q: ((Q - net.predict(Q)) ** 2).sum(1)


def _scored_by(detector: Any, most: int = 5000) -> Callable[[Array], Callable[[Array], Array]]:
    def fit(Z: Array) -> Callable[[Array], Array]:
        fitted = clone(detector).fit(Z[:: 1 + len(Z) // most])
        return lambda Q: -fitted.score_samples(Q)

    return fit


def _neighbours(Z: Array) -> Callable[[Array], Array]:
    index = NearestNeighbors(n_neighbors=5).fit(Z)
    return lambda Q: index.kneighbors(Q)[0].mean(1)


def peers(centred: bool) -> dict[str, Method]:
    """Return the peers; window lengths are those that did best for each in the literature or here."""
    methods = {
        "Isolation Forest": on_windows(1, False, _scored_by(IsolationForest(random_state=0))),
        "LOF": on_windows(1, False, _scored_by(LocalOutlierFactor(novelty=True))),
        "one-class SVM": on_windows(1, False, _scored_by(OneClassSVM(nu=0.05))),
        "autoencoder 16": on_windows(16, centred, _autoencoder),
        "kNN 16": on_windows(16, centred, _neighbours),
        "T2+Q 16": on_windows(16, centred, _t2_and_q),
    }
    for length in (16, 32):
        methods[f"PCA residual {length}"] = on_windows(length, centred, _residual(0.8))
    for length in (10, 16, 45):
        methods[f"Mahalanobis {length}"] = on_windows(length, centred, lambda Z: LedoitWolf().fit(Z).mahalanobis)
    methods["position"] = lambda normal, new: -np.abs(np.arange(len(new)) - 365.0)
    methods["random"] = lambda normal, new: np.random.default_rng(0).random(len(new))
    return methods


def telemetry() -> Iterator[Case]:
    """Fit on the fault-free half of the embedded recording, score the half with provoked faults."""
    rows, faults = load_telemetry()
    half = len(rows) // 2
    y = np.zeros(len(rows), np.int64)
    for fault in faults.itertuples():
        y[(rows.index >= fault.start) & (rows.index <= fault.end)] = 1
    # The peers cannot take missing values.
    filled = rows.interpolate(limit_direction="both").to_numpy()
    yield Case("telemetry", filled[:half], filled[half:], y[half:], None, 50)


def skab(folder: Path) -> Iterator[Case]:
    """Fit on rows 0-399 of each file, score the rest."""
    for file in sorted(folder.glob("*.csv")):
        table = pd.read_csv(file, sep=";", index_col=0)
        X, y = table.iloc[:, :8].to_numpy(float), table["anomaly"].to_numpy(int)
        if y[400:].any() and y[:400].mean() <= 0.5:
            yield Case(file.name, X[:400], X[400:], y[400:], None, 25)


def injected(file: Path, draws: list[int], blocks: bool) -> Iterator[Case]:
    """Fit on part of a quiet recording, put faults into the rest."""
    separator = ";" if ";" in file.open().readline() else ","
    X = pd.read_csv(file, sep=separator, index_col=0).select_dtypes("number").to_numpy(float)
    X = X[:, [k for k in range(X.shape[1]) if len(np.unique(X[:, k])) > 2]]
    rows = np.arange(len(X))
    scored = (rows // 500) % 2 == 1 if blocks else rows >= int(0.8 * len(X))
    normal = X[~scored]
    for draw in draws:
        for kind in ("spike", "shift", "drift", "stuck", "noise", "decorrelate"):
            faulty = inject(X[scored], kind, int(scored.sum()) // 190, random_state=draw)
            yield Case(kind, normal, faulty.X, faulty.y, faulty.channel, 25)


def univariate() -> Iterator[Case]:
    """Two series that come with aeon."""
    found = importlib.util.find_spec("aeon")  # its data are enough: importing it compiles for a minute
    if found is None or found.origin is None:
        raise SystemExit("aeon is not installed: pip install aeon")
    folder = Path(found.origin).parent / "datasets" / "data"
    for name, normal, new, buffer in (
        ("KDD-TSAD 135", "KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TRAIN.csv", "TEST.csv", 183),
        ("ECG", "UnitTest/ecg-diff-count-3_TRAIN_NA.csv", "TEST.csv", 20),
    ):
        table = pd.read_csv(folder / (normal.rsplit("_TRAIN", 1)[0] + "_" + new))
        X = pd.read_csv(folder / normal).iloc[:, [1]].to_numpy(float)
        yield Case(name, X, table.iloc[:, [1]].to_numpy(float), table.iloc[:, -1].to_numpy(int), None, buffer)


def ours(context: str, kinds: tuple[str, ...] | None = None, steps: int = 0) -> Method:
    """Return the detector as one more method, with the residuals of a network where `steps` says so."""
    fitted: list[Any] = []

    def score(normal: Array, new: Array) -> Array:
        # Cases often share their normal rows; a network is trained once for them.
        if not fitted or fitted[0] is not normal:
            model = SeriesImputer(training=Training(max_steps=steps)) if steps else None
            fitted[:] = [normal, SeriesDetector(context=context, kinds=kinds, model=model).fit(normal)]
            if model is not None:
                print(f"  share of the network: {fitted[1].weights_['model']:.2f}")
        return -fitted[1].score_samples(new)

    return score


def accuracy(cases: list[Case], methods: dict[str, Method]) -> pd.DataFrame:
    """Return VUS-PR (all, and per kind where there are several), PR-AUC and ROC-AUC, means over cases."""
    kinds = list(dict.fromkeys(c.name for c in cases))
    lines = {}
    for name, method in methods.items():
        started, per_case = time.perf_counter(), []
        for case in cases:
            s = method(case.normal, case.new)
            per_case.append(
                (
                    case.name,
                    vus_pr(case.y, s, case.buffer),
                    average_precision_score(case.y, s),
                    roc_auc_score(case.y, s),
                )
            )
        table = pd.DataFrame(per_case, columns=["case", "VUS-PR", "PR-AUC", "ROC-AUC"])
        lines[name] = table.drop(columns="case").mean()
        if 1 < len(kinds) <= 6:
            lines[name] = pd.concat([lines[name], table.groupby("case")["VUS-PR"].mean()[kinds]])
        lines[name]["seconds"] = time.perf_counter() - started
        print(f"  {name}: VUS-PR {lines[name]['VUS-PR']:.3f}", flush=True)
    return pd.DataFrame(lines).T


def decisions(cases: list[Case], context: str) -> pd.Series:
    """Return what an operator sees at the default threshold: events found, delay, false alarms, blame."""
    found, delays, blamed, flagged, rows = [], [], [], [], 0
    false_events, tp, fp, fn = 0, 0, 0, 0
    started = 0.0
    for case in cases:
        detector = SeriesDetector(context=context).fit(case.normal)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DriftWarning)
            alarm = detector.predict(case.new) < 0
        started += time.perf_counter() - began
        rows += len(alarm)
        share = detector.explain(case.new).share.to_numpy() if case.channel is not None else None
        flagged.append(alarm[case.y == 0].mean())
        tp, fp, fn = (
            tp + (alarm & (case.y == 1)).sum(),
            fp + (alarm & (case.y == 0)).sum(),
            fn + (~alarm & (case.y == 1)).sum(),
        )
        false_events += sum(not case.y[a:b].any() for a, b in merge(alarm))
        for first, stop in merge(case.y == 1, gap=8):
            hit = np.flatnonzero(alarm[first:stop])
            found.append(len(hit) > 0)
            delays += [hit[0]] if len(hit) else []
            if share is not None:
                blamed.append(share[first:stop].sum(0).argmax() == case.channel[first])
    return pd.Series(
        {
            "events found": np.mean(found),
            "median delay [rows]": np.median(delays) if delays else np.nan,
            "false-alarm rate (asked 0.01)": np.mean(flagged),
            "false events per 1,000 rows": 1000 * false_events / rows,
            "F1 per row": 2 * tp / (2 * tp + fp + fn),
            "F1 of all-positive": np.mean([2 * c.y.mean() / (1 + c.y.mean()) for c in cases]),
            "blamed channel right": np.mean(blamed) if blamed else np.nan,
            "rows scored per second": rows / started,
        }
    )


#: Parts of a recording before rows that are scored, and how much is scored.
ORIGINS, SCORED = (0.4, 0.55, 0.7, 0.85), 0.15


def promises(file: Path, context: str) -> pd.DataFrame:
    """Return asked and seen alarms on good rows after those fitted on: means of four stretches of each recording.

    ``fitted`` has seen everything before a stretch; ``recalibrated`` was fitted without the stretch before it and
    calibrated on that.
    """
    rows, _ = load_telemetry()
    other = pd.read_csv(file, index_col=0, parse_dates=True).select_dtypes("number")
    # ETTh1 repeats one reading for the last day of most months, and two of its sensors are stuck for a week.
    other = other.mask(carried_forward(other))
    asked: dict[str, Threshold] = {
        "1 %": FalseAlarmRate(0.01),
        "0.1 %": FalseAlarmRate(0.001),
        "1 a day": AlarmsPerDay(1),
    }
    lines = []
    for name, good in (("embedded, 8 channels", rows[list(UNITS)].iloc[: len(rows) // 2]), (file.stem, other)):
        edges = [(np.array([o - SCORED, o, o + SCORED]) * len(good)).astype(int) for o in ORIGINS]
        for label, threshold in asked.items():
            for when in ("fitted", "recalibrated"):
                found = [_alarms(threshold, context, good, a, b, c, when) for a, b, c in edges]
                lines.append({"recording": name, "asked": label, "when": when} | _pooled(found))
                print(f"  {lines[-1]}", flush=True)
    return pd.DataFrame(lines).set_index(["recording", "asked", "when"])


class Alarms(NamedTuple):
    """False alarms on a stretch of good rows: share of rows, merged events a day, whether drift was warned of."""

    rows: float
    events: float
    warned: bool


def _alarms(threshold: Threshold, context: str, good: pd.DataFrame, a: int, b: int, c: int, when: str) -> Alarms:
    """Score rows b to c after fitting those before b, or those before a and recalibrating on a to b."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DriftWarning)
        detector = SeriesDetector(context=context, threshold=threshold).fit(good.iloc[: b if when == "fitted" else a])
        if when == "recalibrated":
            detector.recalibrate(good.iloc[a:b])
        alarm = detector.predict(good.iloc[b:c]) < 0
    days = (good.index[c - 1] - good.index[b]).total_seconds() / 86400
    return Alarms(alarm.mean(), len(merge(alarm)) / days, any(w.category is DriftWarning for w in said))


def _pooled(found: list[Alarms]) -> dict[str, Any]:
    quiet = [f.rows for f in found if not f.warned]
    return {
        "rows": np.mean([f.rows for f in found]),
        "events a day": np.mean([f.events for f in found]),
        "warned of drift": sum(f.warned for f in found),
        "rows where not warned": np.mean(quiet) if quiet else np.nan,
        "each": " ".join(f"{f.rows:.4f}{'!' * f.warned}" for f in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["telemetry", "skab", "inject", "univariate", "promise"])
    parser.add_argument("--data", type=Path, help="folder of SKAB files")
    parser.add_argument("--csv", type=Path, help="recording to put faults into")
    parser.add_argument("--draws", type=int, nargs="+", default=[1])
    parser.add_argument("--blocks", action="store_true", help="fit and score alternate blocks of 500 rows")
    parser.add_argument("--context", choices=["both", "past"], default="both")
    parser.add_argument("--ablation", action="store_true", help="also leave out each kind of evidence")
    parser.add_argument("--network", type=int, default=0, help="also join an imputer trained for so many steps")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "promise":
        print(promises(options.csv, options.context).round(4).to_string())
        return
    sources: dict[str, Callable[[], Iterator[Case]]] = {
        "telemetry": telemetry,
        "skab": lambda: skab(options.data),
        "inject": lambda: injected(options.csv, options.draws, options.blocks),
        "univariate": univariate,
    }
    cases = list(sources[options.what]())
    print(
        f"{platform.machine()}, {options.threads} thread(s), torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    )
    methods = peers(options.context == "both") | {"diffad": ours(options.context)}
    if options.network:
        methods["diffad with a network"] = ours(options.context, steps=options.network)
    if options.ablation:
        for kind in KINDS:
            rest = tuple(k for k in KINDS if k != kind)
            methods |= {
                f"diffad without {kind}": ours(options.context, rest),
                f"diffad {kind} alone": ours(options.context, (kind,)),
            }
    table = accuracy(cases, methods)
    print(table.round(3).to_string())
    print(decisions(cases, options.context).round(3).to_string())


if __name__ == "__main__":
    main()
