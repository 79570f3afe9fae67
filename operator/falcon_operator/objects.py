"""Reading Kubernetes objects in their JSON form."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object as the API server sends it."""


class Key(NamedTuple):
    """A run."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def uid(obj: Object) -> str:
    """The object's identity; a re-created object of the same name has another one."""
    return str(obj["metadata"]["uid"])


def labels(obj: Object) -> dict[str, str]:
    """The object's labels, possibly none."""
    return dict(obj["metadata"].get("labels") or {})


def annotations(obj: Object) -> dict[str, str]:
    """The object's annotations, possibly none."""
    return dict(obj["metadata"].get("annotations") or {})


def status(obj: Object) -> dict[str, Any]:
    """The object's status, possibly empty."""
    return dict(obj.get("status") or {})


def being_deleted(obj: Object) -> bool:
    """Whether a deletion was asked for; the object may still be there for its grace period or a finalizer."""
    return "deletionTimestamp" in obj["metadata"]


def suspended(job: Object) -> bool:
    """Whether the Job has no pods because its spec says so."""
    return bool(job["spec"].get("suspend"))


def condition(obj: Object, kind: str) -> dict[str, Any] | None:
    """The condition of type `kind`, whatever its status."""
    return next((dict(each) for each in status(obj).get("conditions") or [] if each["type"] == kind), None)


def holds(obj: Object, kind: str) -> dict[str, Any] | None:
    """The condition of type `kind` if its status is True."""
    found = condition(obj, kind)
    return found if found and found["status"] == "True" else None


def owned_by(obj: Object, owner_uid: str) -> bool:
    """Whether the object's controller is the owner with this uid."""
    owners = obj["metadata"].get("ownerReferences") or []
    return any(each["uid"] == owner_uid for each in owners if each.get("controller"))


def moment(text: str) -> datetime:
    """A timestamp of the API (RFC 3339, with or without fractions of a second)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def stamp(when: datetime) -> str:
    """A timestamp for the API, in whole seconds as metav1.Time has them."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
