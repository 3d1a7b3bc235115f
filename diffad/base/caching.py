"""Caches of what an object derives from its fields: never stored with it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class ForgetsCaches:
    """Base of dataclasses with cached properties: a pickle holds the fields alone.

    Files stay small whatever was worked out before, and a cache never outlives the code that made it.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
