"""Why a flow is strange, in the units of its log: what it showed, and what is normal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.detection import Explanation
from diffad.tabular_detector import TabularDetector

#: Reasons named with an alert, and the share of the score below which a feature is none.
REASONS, LEAST_SHARE = 3, 0.1


def reasons_of(table: pd.DataFrame, detector: TabularDetector) -> list[list[dict[str, Any]]]:
    """Return, per row of features, what made it strange: the features most to blame that are out of their band."""
    explanation = detector.explain(table)
    lower, upper = explanation.lower, explanation.upper
    result = []
    for row in range(len(table)):
        share = explanation.share.iloc[row]
        # A category that is as expected, or a number within its band, is no reason an analyst could follow.
        plain = _objects(explanation.expected.iloc[row]) == _objects(table.iloc[row])
        plain |= [_within(*bounds) for bounds in zip(table.iloc[row], lower.iloc[row], upper.iloc[row], strict=True)]
        top = (share if plain.all() else share[~plain]).sort_values(ascending=False).head(REASONS)
        named = [str(name) for name in top.index if top[name] >= LEAST_SHARE * share.sum()] or [str(top.index[0])]
        result.append([_reason(name, table.iloc[row][name], explanation, row) for name in named])
    return result


def _within(value: Any, lower: float, upper: float) -> bool:
    return not isinstance(value, str) and not pd.isna(value) and bool(lower <= value <= upper)


def _objects(row: pd.Series) -> NDArray[np.object_]:
    """Return the values of a row, None where they are missing: pandas' NA is not even equal to itself."""
    return row.astype(object).where(row.notna(), None).to_numpy()


def _reason(name: str, value: Any, explanation: Explanation, row: int) -> dict[str, Any]:
    """Say what a feature showed and what it should have, in the units of the log."""
    values = [value, *(getattr(explanation, part)[name].iloc[row] for part in ("expected", "lower", "upper"))]
    plain = name.removeprefix("log_")
    if not isinstance(value, str):
        # Every number of a flow is at least 0; a band around it need not know.
        values = [v if pd.isna(v) or isinstance(v, str) else max(float(v), 0.0) for v in values]
    if name.startswith("log_"):
        values = [v if pd.isna(v) else float(np.expm1(v)) for v in values]
    values = [None if pd.isna(v) else v for v in values]
    shown = [_shown(plain, v) for v in values]
    label = plain.removesuffix("_ms").removesuffix("_percent").replace("_", " ")
    normal = f"normal {shown[1]}" if values[2] is None else f"normal {shown[2]} to {shown[3]}"
    keys = ("value", "expected", "lower", "upper")
    return {"feature": plain, **dict(zip(keys, values, strict=True)), "text": f"{label} {shown[0]}, {normal}"}


def _shown(name: str, value: Any) -> str:
    """Write a value with its unit."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return value
    if name.endswith("_ms"):
        return f"{value / 1000:.3g} s"
    if name.endswith("_percent"):
        return f"{value:.3g} %"
    if name.startswith("bytes"):
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if value >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.3g} B"
    return f"{value:.3g}"


def why(reasons: list[dict[str, Any]]) -> str:
    """Return the reasons of an alert as one sentence."""
    return "; ".join(reason["text"] for reason in reasons)
