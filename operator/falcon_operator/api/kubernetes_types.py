"""The parts of Kubernetes' own API that a pod template may hold.

What has few fields is typed, so that the API server refuses a misspelt one with its path; what is large or grows with
Kubernetes (affinity terms, volume sources, env sources) stays free in form and is passed on as it is written.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema

from falcon_trainer.config import Name
from falcon_trainer.wire import Wire, cel

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
MAX_ITEMS = 64


def _quantity(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(QUANTITY_PATTERN, value):
        return value
    raise ValueError("is not a quantity such as 2, 500m or 16Gi")


Quantity = Annotated[
    int | str,
    AfterValidator(_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "maxLength": 32,
        }
    ),
]
"""A Kubernetes quantity: `2`, `500m`, `16Gi`."""

Free = Annotated[
    dict[str, JsonValue],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object that Kubernetes checks when the pod is created."""

ShortString = Annotated[str, Field(max_length=253)]
LongString = Annotated[str, Field(max_length=4096)]
DnsLabel = Annotated[str, Field(pattern=LABEL_PATTERN, min_length=1, max_length=63)]
StringMap = Annotated[dict[str, ShortString], Field(max_length=MAX_ITEMS)]
Quantities = Annotated[dict[str, Quantity], Field(max_length=32)]


class Toleration(Wire):
    """A core/v1 Toleration."""

    key: ShortString | None = None
    operator: Literal["Exists", "Equal", "Lt", "Gt"] | None = None
    value: ShortString | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(default=None, ge=0, le=31_536_000)


class Affinity(Wire):
    """A core/v1 Affinity."""

    node_affinity: Free | None = None
    pod_affinity: Free | None = None
    pod_anti_affinity: Free | None = None


class Resources(Wire):
    """Requests and limits of the stage's container."""

    requests: Quantities | None = None
    limits: Quantities | None = None


class EnvVar(Wire):
    """A core/v1 EnvVar."""

    name: str = Field(pattern=ENV_PATTERN, min_length=1, max_length=253)
    value: LongString | None = None
    value_from: Free | None = Field(default=None, description="A core/v1 EnvVarSource.")


class Volume(Wire):
    """A volume and where the stage's container sees it."""

    name: DnsLabel
    mount_path: str = Field(pattern=r"^/", min_length=2, max_length=1024)
    sub_path: str | None = Field(default=None, min_length=1, max_length=1024)
    read_only: bool | None = None
    source: Free = Field(
        description="A core/v1 volume source, such as {persistentVolumeClaim: {claimName: cache}}.",
        json_schema_extra={"minProperties": 1, "maxProperties": 1},
    )


class LocalObject(Wire):
    """The name of an object in the run's namespace."""

    name: Name


ENV_RULE = cel(
    "self.all(e, !(has(e.value) && has(e.valueFrom)))", "give each variable a value or a valueFrom source, not both"
)


def wire_or_empty(model: Wire | None) -> dict[str, Any]:
    """`model` as JSON; an absent one is empty."""
    return model.to_wire() if model else {}
