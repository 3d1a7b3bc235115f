"""One-class anomaly detection on tables: ROC-AUC, PR-AUC and ranks of diffad and its peers.

    python pipelines/benchmarks/tabular_anomaly.py DATA/tabular/*.npz --nsl-kdd DATA/nsl-kdd
    python pipelines/benchmarks/tabular_anomaly.py DATA/tabular/*.npz --train-rows 100
    python pipelines/benchmarks/tabular_anomaly.py DATA/tabular/*.npz --contamination 0.05
    python pipelines/benchmarks/tabular_anomaly.py DATA/tabular/*.npz --network 500 --wrong-entries

Fit on a random half of the normal rows, score the other half and all anomalies (the split of
Livernoche et al. 2024); peers see standardised columns, one default setting everywhere.  NSL-KDD:
fit on the normal rows of the 20 % training file, score KDDTest+, categories as they are for diffad
and as indicators for the peers.  PyOD's ECOD joins where it is installed.

``--network`` adds diffad with networks of so many steps.  ``--wrong-entries`` looks for other anomalies: normal rows in
which one entry is another row's.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from diffad import TabularDetector, Training
from diffad.tails import LogTail

Array = NDArray[np.float64]

NSL_COLUMNS = [
    "duration",
    "protocol_type",
    "service",
    "flag",
    "src_bytes",
    "dst_bytes",
    "land",
    "wrong_fragment",
    "urgent",
    "hot",
    "num_failed_logins",
    "logged_in",
    "num_compromised",
    "root_shell",
    "su_attempted",
    "num_root",
    "num_file_creations",
    "num_shells",
    "num_access_files",
    "num_outbound_cmds",
    "is_host_login",
    "is_guest_login",
    "count",
    "srv_count",
    "serror_rate",
    "srv_serror_rate",
    "rerror_rate",
    "srv_rerror_rate",
    "same_srv_rate",
    "diff_srv_rate",
    "srv_diff_host_rate",
    "dst_host_count",
    "dst_host_srv_count",
    "dst_host_same_srv_rate",
    "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate",
    "dst_host_srv_diff_host_rate",
    "dst_host_serror_rate",
    "dst_host_srv_serror_rate",
    "dst_host_rerror_rate",
    "dst_host_srv_rerror_rate",
    "label",
    "difficulty",
]


class Case(NamedTuple):
    """Rows to fit on and to score, as tables, and which of the scored are anomalies."""

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    y: NDArray[np.int64]


def adbench(file: Path, seed: int, train_rows: int | None, contamination: float) -> Case:
    """Split one set; `contamination` puts a share of anomalies among the training rows."""
    data = np.load(file, allow_pickle=True)
    X, y = pd.DataFrame(np.asarray(data["X"], float)), np.asarray(data["y"]).astype(int).ravel()
    rng = np.random.default_rng(seed)
    normal, strange = rng.permutation(np.flatnonzero(y == 0)), rng.permutation(np.flatnonzero(y == 1))
    half = len(normal) // 2
    train = normal[:half][:train_rows]
    n_bad = min(round(contamination * len(train) / (1 - contamination)), len(strange) // 2)
    train, strange = np.r_[train, strange[:n_bad]], strange[n_bad:]
    test = np.r_[normal[half:], strange]
    return Case(file.stem.split("_")[-1], X.iloc[train], X.iloc[test], y[test])


def nsl_kdd(folder: Path, seed: int, train_rows: int | None) -> Case:
    """Read NSL-KDD; the seed draws 80 % of the normal training rows."""
    train, test = (
        pd.read_csv(folder / name, names=NSL_COLUMNS, header=None)
        for name in ("KDDTrain+_20Percent.txt", "KDDTest+.txt")
    )
    train = train[train["label"] == "normal"].sample(frac=0.8, random_state=seed)[:train_rows]
    y = (test["label"] != "normal").to_numpy().astype(int)
    tables = [t.drop(columns=["label", "difficulty"]) for t in (train, test)]
    for table in tables:  # a flow of a gigabyte must not flatten the rest
        for name in ("duration", "src_bytes", "dst_bytes"):
            table[name] = np.log1p(table[name])
    return Case("nsl-kdd", *tables, y)


def wrong_entries(case: Case, seed: int) -> Case:
    """Replace the anomalies by as many normal rows as there are, each with one entry of another of them."""
    rng = np.random.default_rng(seed)
    normal = case.test[case.y == 0].reset_index(drop=True)
    wrong, column = normal.copy(), rng.integers(0, normal.shape[1], len(normal))
    for k in range(normal.shape[1]):
        values = normal.iloc[rng.permutation(len(normal)), k].to_numpy()
        wrong.isetitem(k, np.where(column == k, values, normal.iloc[:, k].to_numpy()))
    test = pd.concat([normal, wrong], ignore_index=True)
    return case._replace(test=test, y=np.repeat([0, 1], len(normal)))


def as_numbers(case: Case) -> tuple[Array, Array]:
    """Return standardised arrays for the peers, categories as indicators, NaN as the mean."""
    text = case.train.select_dtypes(exclude="number").columns
    train = pd.get_dummies(case.train, columns=list(text), dtype=float)
    test = pd.get_dummies(case.test, columns=list(text), dtype=float).reindex(columns=train.columns, fill_value=0.0)
    train, test = train.fillna(train.mean()), test.fillna(train.mean())
    scaler = StandardScaler().fit(train.to_numpy())
    return scaler.transform(train.to_numpy()), scaler.transform(test.to_numpy())


def _scored(detector: Any, most: int | None = None) -> Callable[[Array, Array], Array]:
    return lambda train, test: -detector.fit(train[:most]).score_samples(test)


def _neighbours(train: Array, test: Array) -> Array:
    return NearestNeighbors(n_neighbors=min(5, len(train))).fit(train).kneighbors(test)[0].mean(1)


def _mixture(train: Array, test: Array) -> Array:
    pca = PCA(min(30, *train.shape), random_state=0).fit(train)
    model = GaussianMixture(max(1, min(8, len(train) // 200)), reg_covar=1e-3, random_state=0).fit(pca.transform(train))
    left_out = ((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(1)
    return left_out - model.score_samples(pca.transform(test))


def _principal(train: Array, test: Array) -> Array:
    pca = PCA(0.9, random_state=0).fit(train)
    return ((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(1)


def _both(train: Array, test: Array) -> Array:
    """Neighbours and mixture, each as minus the log of a probability that cross-fitting calibrated."""
    order = np.random.default_rng(0).permutation(len(train))
    halves = train[order[::2]], train[order[1::2]]
    methods = (_neighbours, _mixture)
    normal = [np.stack([m(a, b) for m in methods], 1) for a, b in (halves, halves[::-1])]
    evidence = np.stack([m(train, test) for m in methods], 1)
    return np.asarray(LogTail.fit(np.concatenate(normal))(evidence).sum(1), dtype=np.float64)


PEERS: dict[str, Callable[[Array, Array], Array]] = {
    "kNN": _neighbours,
    "mixture": _mixture,
    "LOF": _scored(LocalOutlierFactor(novelty=True)),
    "Isolation Forest": _scored(IsolationForest(random_state=0)),
    "one-class SVM": _scored(OneClassSVM(nu=0.1), 5000),
    "PCA residual": _principal,
    "kNN + mixture": _both,
}
if importlib.util.find_spec("pyod"):
    from pyod.models.ecod import ECOD

    PEERS["ECOD"] = lambda train, test: ECOD().fit(train).decision_function(test)


def results(cases: Iterator[tuple[int, Case]], contamination: float, steps: int) -> pd.DataFrame:
    """Return one line per case and method."""
    lines = []
    detectors = {"diffad": TabularDetector(contamination=contamination)}
    if steps:
        trained = TabularDetector(contamination=contamination, training=Training(max_steps=steps))
        detectors["diffad, network"] = trained
    for seed, case in cases:
        train, test = as_numbers(case)
        methods: dict[str, Callable[[], Array]] = {n: partial(m, train, test) for n, m in PEERS.items()}
        for name, detector in detectors.items():
            methods[name] = lambda d=detector, c=case: -d.fit(c.train).score_samples(c.test)
        for name, method in methods.items():
            started = time.perf_counter()
            s = method()
            seconds = time.perf_counter() - started
            lines.append((case.name, seed, name, roc_auc_score(case.y, s), average_precision_score(case.y, s), seconds))
        print(f"  {case.name}, seed {seed}: {len(case.train)} rows to fit on", flush=True)
    return pd.DataFrame(lines, columns=["set", "seed", "method", "ROC", "PR", "seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--nsl-kdd", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-rows", type=int)
    parser.add_argument("--contamination", type=float, default=0.0)
    parser.add_argument("--network", type=int, default=0, metavar="STEPS")
    parser.add_argument("--wrong-entries", action="store_true")
    options = parser.parse_args()

    def cases() -> Iterator[tuple[int, Case]]:
        for seed in options.seeds:
            for file in options.files:
                yield seed, adbench(file, seed, options.train_rows, options.contamination)
            if options.nsl_kdd:
                yield seed, nsl_kdd(options.nsl_kdd, seed, options.train_rows)

    chosen = ((seed, wrong_entries(case, seed) if options.wrong_entries else case) for seed, case in cases())
    table = results(chosen, options.contamination, options.network)
    means = table.groupby("method")[["ROC", "PR", "seconds"]].mean()
    per_set = table.groupby(["method", "set"])[["ROC", "PR"]].mean().unstack("method")
    for figure in ("ROC", "PR"):
        means[f"{figure} rank"] = per_set[figure].rank(axis=1, ascending=False).mean()
        gain = per_set[figure].sub(per_set[figure]["kNN"], axis=0)
        means[f"{figure} median over kNN"] = gain.median()
        means[f"{figure} sets lost by .01"] = (gain < -0.01).sum()
    print(means.sort_values("ROC", ascending=False).round(3).to_string())


if __name__ == "__main__":
    main()
