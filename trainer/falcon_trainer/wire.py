"""How the models of this product look on the wire: camelCase, no unknown fields, real numbers as strings.

A CRD has no floats (their text form differs between encoders), so a real number travels as a decimal string and is a
`float` in Python. The JSON schema carries the same limits as CEL rules, so that the API server refuses what the trainer
would refuse.
"""

import operator
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

REAL_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
MEMORY_PATTERN = r"^[1-9][0-9]*(Mi|Gi)$"
SIGNS = {">": operator.gt, ">=": operator.ge, "<": operator.lt}
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


class Wire(BaseModel):
    """Base of every model that crosses a process border: immutable, camelCase outside, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def to_wire(self) -> dict[str, Any]:
        """The JSON form: camelCase keys, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def cel(rule: str, message: str, field_path: str | None = None) -> dict[str, JsonValue]:
    """One entry of `x-kubernetes-validations`."""
    entry: dict[str, JsonValue] = {"rule": rule, "message": message}
    return entry | ({"fieldPath": field_path} if field_path else {})


@dataclass(frozen=True, kw_only=True)
class Real:
    """Annotation of a real number within limits: a decimal string on the wire, a `float` in Python."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None

    def limits(self) -> list[tuple[str, float]]:
        """The limits given, each with its sign."""
        named = ((">", self.above), (">=", self.at_least), ("<", self.below))
        return [(sign, float(limit)) for sign, limit in named if limit is not None]

    @property
    def sentence(self) -> str:
        return "must be a decimal number " + " and ".join(f"{sign} {limit:g}" for sign, limit in self.limits())

    def parse(self, value: object) -> float:
        """Raises ValueError where `value` is no decimal string within the limits."""
        if isinstance(value, bool) or not re.fullmatch(REAL_PATTERN, str(value)):
            raise ValueError(f'{self.sentence}, written as a string such as "0.1"')
        number = float(str(value))
        if not all(SIGNS[sign](number, limit) for sign, limit in self.limits()):
            raise ValueError(self.sentence)
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse, serialization=core_schema.plain_serializer_function_ser_schema(decimal_text)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rules = [cel(f"double(self) {sign} {limit!r}", self.sentence) for sign, limit in self.limits()]
        return {"type": "string", "pattern": REAL_PATTERN, "maxLength": 32, "x-kubernetes-validations": rules}


def decimal_text(value: float) -> str:
    """The shortest decimal text that reads back as `value`."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def seconds(duration: str) -> int:
    """Seconds of a duration such as `1h30m` or `90s` (checked against DURATION_PATTERN before)."""
    match = re.fullmatch(DURATION_PATTERN, duration)
    if not match or not duration:
        raise ValueError(f"{duration!r} is not a duration such as 1h30m or 90s")
    return sum(int((part or "0x")[:-1]) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))


def memory_bytes(quantity: str) -> int:
    """Bytes of an amount of memory such as `64Mi` or `2Gi`."""
    match = re.fullmatch(MEMORY_PATTERN, quantity)
    if not match:
        raise ValueError(f"{quantity!r} is not an amount of memory such as 256Mi or 1Gi")
    return int(quantity[:-2]) << {"Mi": 20, "Gi": 30}[match.group(1)]
