"""Network traffic: flow logs of any common kind as one table, features of flows, explained alerts.

`load_flows` -> `FlowFeatures` -> `diffad.TabularDetector` -> `FlowModel.alerts` -> incidents, ECS lines.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffad.flows.alerts import FlowModel
    from diffad.flows.features import FlowFeatures
    from diffad.flows.readers import FORMATS, load_flows, read_flows
    from diffad.flows.table import COLUMNS, ReadReport

__all__ = ["COLUMNS", "FORMATS", "FlowFeatures", "FlowModel", "ReadReport", "load_flows", "read_flows"]

_HOMES = {
    "COLUMNS": "table",
    "FORMATS": "readers",
    "FlowFeatures": "features",
    "FlowModel": "alerts",
    "ReadReport": "table",
    "load_flows": "readers",
    "read_flows": "readers",
}


def __getattr__(name: str) -> Any:
    # The command line imports this package for its options alone: nothing heavy until it is used.
    if name not in _HOMES:
        raise AttributeError(f"module 'diffad.flows' has no attribute {name!r}")
    return getattr(import_module(f"diffad.flows.{_HOMES[name]}"), name)
