"""Filling gaps of tables: errors of diffad and its peers where a fifth of the entries is hidden.

    python pipelines/benchmarks/tabular_imputation.py DATA/tabular/*.npz
    python pipelines/benchmarks/tabular_imputation.py DATA/tabular/*.npz --rows 4000 --network 3000
    python pipelines/benchmarks/tabular_imputation.py --nsl-kdd DATA/nsl-kdd

Entries are hidden at random, or by value (the chance grows with the value's rank from 0 to 40 %, so
that what is missing differs from what is left).  Every method fits on the table with gaps and fills
it; peers see standardised columns.  MAE, CRPS and the coverage of 90 % bands are in standard
deviations of the complete columns; a method without a distribution has its MAE as CRPS.  On NSL-KDD
the share of right categories in its text columns is compared with gradient-boosted trees that are
trained for each of them on all other columns.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler
from tabular_anomaly import NSL_COLUMNS

import diffad
from diffad import TabularImputer, Training
from diffad.metrics import coverage, crps

Array = NDArray[np.float64]

TEXT = ("protocol_type", "service", "flag")
N_SAMPLES = 50
PEERS: dict[str, Callable[[], object]] = {
    "mean": SimpleImputer,
    "KNNImputer": KNNImputer,
    "IterativeImputer": lambda: IterativeImputer(random_state=0),
}


def hide(X: Array, mechanism: str, seed: int) -> Array:
    """Return a copy with gaps, at least one value left in each row."""
    rng = np.random.default_rng(seed)
    rank = np.argsort(np.argsort(X + 1e-9 * rng.random(X.shape), 0), 0) / len(X)
    gap = rng.random(X.shape) < (0.2 if mechanism == "random" else 0.4 * rank)
    gap[gap.all(1)] = False
    return np.where(gap, np.nan, X)


def numbers(file: Path, rows: int, seed: int) -> Array:
    """Read a random part of a set; columns of one value have nothing to fill in."""
    X = np.asarray(np.load(file, allow_pickle=True)["X"], float)
    X = X[np.random.default_rng(seed).permutation(len(X))[:rows]]
    return X[:, X.std(0) > 0]


def judged(X: Array, holes: Array, ours: dict[str, Training | None]) -> list[tuple[str, float, float, float, float]]:
    """Return method, MAE, CRPS, coverage and seconds."""
    gap, unit = np.isnan(holes), X.std(0)
    scaler = StandardScaler().fit(holes)
    lines = []
    for name, make in PEERS.items():
        started = time.perf_counter()
        filled = scaler.inverse_transform(make().fit_transform(scaler.transform(holes)))
        error = float((np.abs(filled - X) / unit)[gap].mean())
        lines.append((name, error, error, np.nan, time.perf_counter() - started))
    for name, training in ours.items():
        started = time.perf_counter()
        imputer = TabularImputer(training=training).fit(holes)
        filled = imputer.transform(holes)
        seconds = time.perf_counter() - started
        samples = imputer.sample(holes, N_SAMPLES)
        lower, upper = imputer.interval(holes, 0.9)
        score = float((crps(samples, X) / unit)[gap].mean())
        error = float((np.abs(filled - X) / unit)[gap].mean())
        lines.append((name, error, score, coverage(lower[gap], upper[gap], X[gap]), seconds))
    return lines


def tables(files: list[Path], rows: int, seeds: list[int], ours: dict[str, Training | None]) -> None:
    for mechanism in ("random", "by value"):
        lines = []
        for file in files:
            for seed in seeds:
                X = numbers(file, rows, seed)
                found = judged(X, hide(X, mechanism, seed), ours)
                lines += [(file.stem.split("_")[-1], seed, *line) for line in found]
        table = pd.DataFrame(lines, columns=["set", "seed", "method", "MAE", "CRPS", "coverage", "seconds"])
        print(f"\nHidden {mechanism}, {rows} rows at most, seeds {seeds}: mean over {len(files)} sets")
        print(table.groupby("method")[["MAE", "CRPS", "coverage", "seconds"]].mean().round(3).to_string())
        per_set = table.pivot_table(index="set", columns="method", values="MAE")
        print(per_set.round(3).to_string())
        if len(ours) > 1:
            print(table.pivot_table(index="set", columns="method", values="CRPS")[list(ours)].round(3).to_string())
        best = per_set.drop(columns=list(ours)).min(axis=1)
        lost = per_set.index[per_set["diffad"] > best].tolist()
        print(f"sets where a peer has the smaller MAE: {lost or 'none'}", flush=True)


def categories(folder: Path, rows: int, seeds: list[int]) -> None:
    full = pd.read_csv(folder / "KDDTrain+_20Percent.txt", names=NSL_COLUMNS, header=None)
    full = full.drop(columns=["label", "difficulty"])
    lines = []
    for seed in seeds:
        X = full.sample(rows, random_state=seed, ignore_index=True)
        gap = pd.DataFrame(np.random.default_rng(seed).random(X.shape) < 0.2, columns=X.columns)
        holes = X.astype({c: float for c in X if c not in TEXT}).mask(gap)
        filled = TabularImputer().fit_transform(holes)
        typed = holes.astype(dict.fromkeys(TEXT, "category"))
        for name in TEXT:
            here, others = gap[name], typed.drop(columns=name)
            trees = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, random_state=0)
            trees.fit(others[~here], X[name][~here])
            right = X[name][here]
            told = {
                "diffad": filled[name][here],
                "boosted trees": trees.predict(others[here]),
                "most frequent": holes[name].mode()[0],
            }
            lines += [(name, method, float((values == right).mean())) for method, values in told.items()]
    table = pd.DataFrame(lines, columns=["column", "method", "share of right categories"])
    print(f"\nNSL-KDD, {rows} rows, seeds {seeds}")
    print(table.pivot_table(index="column", columns="method").round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--nsl-kdd", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--network", type=int, default=0, help="also with a network, trained for so many steps")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*Early stopping criterion.*")
    versions = f"diffad {diffad.__version__}, scikit-learn {sklearn.__version__}, torch {torch.__version__}"
    print(f"{versions}, Python {platform.python_version()}, {torch.get_num_threads()} thread(s)")
    if options.files:
        ours: dict[str, Training | None] = {"diffad": None}
        if options.network:
            ours["diffad with a network"] = Training(max_steps=options.network)
        tables(options.files, options.rows, options.seeds, ours)
    if options.nsl_kdd:
        categories(options.nsl_kdd, options.rows, options.seeds)


if __name__ == "__main__":
    main()
