"""What a stage concludes from a snapshot, and the Plan that all stages together make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from falcon_operator.api.status import FalconFineTuneStatus
from falcon_operator.objects import Object
from falcon_operator.policy.conditions import Finding


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """Something that happened once and becomes an Event."""

    reason: str
    message: str
    action: str
    warning: bool = False
    identity: str
    """The same for the same occasion, however often it is told: the Event's name is made from it."""


@dataclass(frozen=True)
class Change:
    """Fields of a Job's spec to be set, on the Job as it was seen and no other."""

    job: Object
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One stage's conclusion."""

    finding: Finding
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the status that this stage sets."""
    write: tuple[Object, ...] = ()
    """Children to create (or to apply, if their kind is one that changes with the spec), in this order."""
    delete: tuple[Object, ...] = ()
    change: tuple[Change, ...] = ()
    occasions: tuple[Occasion, ...] = ()
    again: float | None = None
    """Seconds until the run must be looked at even if nothing happens."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is to be done for a run, in this order: Events, status, deletions, changes, writes."""

    status: FalconFineTuneStatus | None = None
    """The new status, or None where it stays as it is."""
    occasions: tuple[Occasion, ...] = ()
    delete: tuple[Object, ...] = ()
    change: tuple[Change, ...] = ()
    write: tuple[Object, ...] = ()
    again: float | None = None
