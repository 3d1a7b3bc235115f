"""Why a flow is strange, in the units of its log: what it showed, and what is normal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from diffad.flows.ranges import Ranges
from diffad.tabular_detector import TabularDetector

#: Reasons named with an alert, and the share of the score below which a feature is none.
REASONS, LEAST_SHARE = 3, 0.1
#: What a quantity over a window adds to its name: one of its windows is told, or the flow itself.
WINDOW = re.compile(r"_\d+(\.\d+)?s$")
#: What is counted: its numbers are whole.
COUNTS = re.compile(r"(connections|peers|sources|ports|(bytes|packets)_(out|in))(_\d+(\.\d+)?s)?")
#: Digits of a number that was a logarithm.
DIGITS = 12

#: What each feature of a flow is, or something about it.
Row = dict[str, Any]


def reasons_of(table: pd.DataFrame, detector: TabularDetector, ranges: Ranges) -> list[list[dict[str, Any]]]:
    """Return, per row of features, what made it strange.

    Features beyond what normal flows show of them come first, the farthest at the head; then those that are out of
    their band given all others, the ones most to blame at the head.  What is missing is no reason.  Where nothing is
    out of its band by itself, those most to blame are told together.
    """
    told = detector.explain(table)
    given_others = zip(*(_rows(part) for part in (told.expected, told.lower, told.upper)), strict=True)
    met = {str(name): tuple(ranges.numbers.loc[["middle", "lower", "upper"], name]) for name in ranges.numbers}
    rows = zip(_rows(table), _rows(told.share), _rows(ranges.beyond(table)), given_others, strict=True)
    return [_reasons(*row, met) for row in rows]


def _rows(table: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _reasons(values: Row, share: Row, beyond: Row, given_others: tuple[Row, ...], met: Row) -> list[dict[str, Any]]:
    least = LEAST_SHARE * sum(share.values())
    # A number never met is a reason whatever excuses it; a rare category only if the detector minds it.
    far = {name: beyond[name] if name in met or share[name] >= least else 0.0 for name in share}
    rank = sorted(share, key=lambda name: (far[name], share[name]), reverse=True)

    def reason(name: str) -> dict[str, Any]:
        alone = name in met and far[name] > 0
        return _reason(name, values[name], met[name] if alone else tuple(part[name] for part in given_others), alone)

    found: dict[str, dict[str, Any]] = {}
    for name in rank:
        # Where nothing that is much to blame can be seen to differ, something else may.
        most = REASONS if far[name] > 0 or share[name] >= least else 1
        if len(found) >= most:
            break
        if _differs(this := reason(name)):
            found.setdefault(WINDOW.sub("", name), this)
    return list(found.values()) or _together([reason(name) for name in rank if share[name] > 0])


def _together(reasons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is strange only as a whole as one reason; none where nothing is known."""
    shown = {
        r["feature"]: f"{_label(r['feature'])} {_shown(r['feature'], r['value'])}"
        for r in reasons
        if r["value"] is not None
    }
    if not shown:
        return []
    nothing = dict.fromkeys(("value", "expected", "lower", "upper"))
    text = f"unusual as a whole, above all {', '.join(list(shown.values())[:REASONS])}"
    return [{"feature": "combination", **nothing, "text": text}]


def _reason(name: str, value: Any, normal: tuple[Any, ...], alone: bool) -> dict[str, Any]:
    """Say what a feature showed and what it should have, by itself or given all others, in the units of the log."""
    values = [value, *normal]
    plain = name.removeprefix("log_")
    if not isinstance(value, str):
        # Every number of a flow is at least 0; a band around it need not know.
        values = [v if pd.isna(v) or isinstance(v, str) else max(float(v), 0.0) for v in values]
    if name.startswith("log_"):
        values = [v if pd.isna(v) else float(f"{np.expm1(v):.{DIGITS}g}") for v in values]
    values = [None if pd.isna(v) else v for v in values]
    if COUNTS.fullmatch(plain) and None not in values[2:]:
        # Of the band its counts are told; where it has none, those next to it.
        values[2:] = sorted((float(np.ceil(values[2])), float(np.floor(values[3]))))
    text = f"{_label(plain)} {_shown(plain, values[0])}, normal {_normal(plain, alone, *values)}"
    return {"feature": plain, **dict(zip(("value", "expected", "lower", "upper"), values, strict=True)), "text": text}


def _normal(name: str, alone: bool, value: Any, expected: Any, lower: Any, upper: Any) -> str:
    """Write what is normal; of a range that the number is out of by itself, the end that it passed."""
    if lower is None:
        return _shown(name, expected)
    low, high = _shown(name, lower), _shown(name, upper)
    if low == high:
        return f"about {low}"
    if alone:
        return f"at most {high}" if value > upper else f"at least {low}"
    return f"{low} to {high}"


def _differs(reason: dict[str, Any]) -> bool:
    """Return whether a category is not the expected one, or a number not within its band nor written like its edge.

    What is missing does not differ.
    """
    name, value, lower, upper = (reason[key] for key in ("feature", "value", "lower", "upper"))
    if value is None:
        return False
    if lower is None:
        return bool(value != reason["expected"])
    return not lower <= value <= upper and _shown(name, value) not in (_shown(name, lower), _shown(name, upper))


def _label(name: str) -> str:
    """Write the name of a feature without its unit."""
    return name.removesuffix("_ms").removesuffix("_percent").replace("_", " ")


def _shown(name: str, value: Any) -> str:
    """Write a value with its unit."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return value
    if name.endswith("_ms"):
        return f"{_rounded(value / 1000)} s"
    if name.endswith("_percent"):
        return f"{_rounded(value)} %"
    if name.startswith("bytes"):
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if value >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.3g} B"
    return _rounded(value)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def why(reasons: list[dict[str, Any]]) -> str:
    """Return the reasons of an alert as one sentence."""
    return "; ".join(reason["text"] for reason in reasons)
