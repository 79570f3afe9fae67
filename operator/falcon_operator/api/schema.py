"""From pydantic's JSON schema to the structural schema that an API server takes.

References are written out, titles dropped, `anyOf: [X, null]` becomes an optional X, defaults take their wire form.
What the API server could not bound (a string or list without a maximum makes the cost of CEL rules unknown) or would
not understand is refused here, at generation, with its path.
"""

from collections.abc import Iterable
from typing import Any

from falcon_trainer.wire import decimal_text

Schema = dict[str, Any]

RULES = "x-kubernetes-validations"
KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "default",
    "anyOf",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    RULES,
)
"""Keywords of the result, in the order in which they are written."""
DROPPED = frozenset({"title", "$defs"})


class SchemaError(ValueError):
    """A model that has no structural schema; says where and why."""


def structural_schema(schema: Schema) -> Schema:
    """The structural form of a whole model's JSON schema. Raises SchemaError where there is none."""
    found = _structural(schema, schema.get("$defs", {}), "")
    for path, problem in _unbounded(found, ""):
        raise SchemaError(f"{path}: {problem}")
    return found


def _structural(schema: Schema, models: dict[str, Schema], path: str) -> Schema:
    node = _inlined(schema, models)
    unknown = set(node) - set(KEPT) - DROPPED
    if unknown:
        raise SchemaError(f"{path}: {', '.join(sorted(unknown))} has no place in a structural schema")
    if "properties" in node:
        node["properties"] = {
            name: _structural(part, models, f"{path}.{name}") for name, part in node["properties"].items()
        }
    for inner in ("items", "additionalProperties"):
        if isinstance(node.get(inner), dict):
            node[inner] = _structural(node[inner], models, f"{path}[]")
    if node.get("additionalProperties") is False:  # the API server prunes or refuses unknown fields by itself
        del node["additionalProperties"]
    if "default" in node:
        _set_default(node, node.pop("default"))
    return {key: node[key] for key in KEPT if key in node}


def _inlined(schema: Schema, models: dict[str, Schema]) -> Schema:
    """`schema` with references and optional alternatives written out; what stands beside them goes first."""
    node = dict(schema)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    parts = [part for part in node.get("anyOf", []) if part.get("type") != "null"]
    if len(parts) == 1:
        del node["anyOf"]
        return _over(_inlined(parts[0], models), node)
    if "$ref" in node:
        name = node.pop("$ref").removeprefix("#/$defs/")
        return _over(_inlined(models[name], models), node)
    return node


def _over(below: Schema, above: Schema) -> Schema:
    found = below | above
    if below.get(RULES) and above.get(RULES):
        found[RULES] = [*below[RULES], *above[RULES]]
    return found


def _set_default(node: Schema, default: object) -> None:
    """Objects default to {}: the API server then fills in the defaults of their fields, which are the models' own."""
    if default is None or default == []:
        return
    if node.get("type") == "object":
        node["default"] = {}
    elif node.get("type") == "string" and isinstance(default, (int, float)):
        node["default"] = decimal_text(default)
    else:
        node["default"] = default


def _unbounded(node: Schema, path: str) -> Iterable[tuple[str, str]]:
    kind = node.get("type")
    if kind == "string" and not node.keys() & {"maxLength", "enum"} and node.get("format") != "date-time":
        yield path, "a string needs a maximum length"
    if kind == "array" and "maxItems" not in node:
        yield path, "a list needs a maximum number of items"
    if "additionalProperties" in node and "maxProperties" not in node:
        yield path, "a map needs a maximum number of entries"
    for name, part in node.get("properties", {}).items():
        yield from _unbounded(part, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in node:
            yield from _unbounded(node[inner], f"{path}[]")
