"""The API server's defaulting (apiextensions, structural/defaulting/algorithm.go), to compare it with the models'."""

import copy
from typing import Any


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """`value` with the schema's defaults filled in, parents before children."""
    if isinstance(value, dict):
        found = dict(value)
        for name, part in schema.get("properties", {}).items():
            if name not in found and "default" in part:
                found[name] = copy.deepcopy(part["default"])
            if name in found:
                found[name] = with_defaults(found[name], part)
        return found
    if isinstance(value, list):
        return [with_defaults(item, schema["items"]) for item in value]
    return value
