"""Alerts as JSON lines that log stores know: the Elastic Common Schema (ECS 8)."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import numpy as np
import pandas as pd

from diffad.flows.reasons import why


def ecs_lines(alerts: pd.DataFrame) -> list[str]:
    """Return alerts as JSON lines with the field names of the Elastic Common Schema (ECS 8).

    ``event.risk_score`` is the severity: it ranks flows that alarm by themselves and because of their source alike.
    What ECS has no name for is under ``diffad``, the flow's own score among it.
    """
    return [json.dumps(_pruned(_ecs(alert)), allow_nan=False) for alert in alerts.to_dict("records")]


def _ecs(alert: dict[str, Any]) -> dict[str, Any]:
    ends = {
        end: {
            "address": alert[end],
            "ip": _ip(alert[end]),
            "port": alert[f"{end}_port"],
            "bytes": _count(alert[f"bytes_{way}"]),
            "packets": _count(alert[f"packets_{way}"]),
        }
        for end, way in (("source", "out"), ("destination", "in"))
    }
    return {
        "@timestamp": alert["start"].isoformat(),
        "ecs": {"version": "8.11.0"},
        "event": {
            "kind": "alert",
            "category": ["network"],
            "duration": None if pd.isna(alert["duration"]) else round(alert["duration"] * 1e9),
            "risk_score": alert["severity"],
            "reason": why(alert["reasons"]),
        },
        **ends,
        "network": {"transport": alert["protocol"], "protocol": alert["service"]},
        "diffad": {
            "incident": alert["incident"],
            "score": alert["score"],
            "p_value": alert["p_value"],
            "state": alert["state"],
            "reasons": [_typed(reason) for reason in alert["reasons"]],
        },
    }


def _count(number: float) -> int | None:
    return None if pd.isna(number) else int(number)


def _typed(reason: dict[str, Any]) -> dict[str, Any]:
    """Keep numbers and text under different names: a database refuses a field that is now this, now that."""
    kinds = {key: value for key, value in reason.items() if key in ("value", "expected")}
    return reason | dict.fromkeys(kinds) | {f"{k}_text" if isinstance(v, str) else k: v for k, v in kinds.items()}


def _ip(address: Any) -> str | None:
    """Return the address if it is one: a database that knows ECS refuses pseudonyms as `ip`."""
    try:
        return str(ip_address(address)).partition("%")[0]  # a zone is no part of the address
    except ValueError:
        return None


def _pruned(value: Any) -> Any:
    """Leave out what is missing; turn NumPy's numbers into Python's."""
    if isinstance(value, dict):
        kept = {k: _pruned(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v is not None}
    if isinstance(value, list):
        return [_pruned(v) for v in value]
    if value is None or pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
