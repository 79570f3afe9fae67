"""Pods and Jobs as the API server sends them, in the states that decisions are made of."""

from datetime import UTC, datetime, timedelta
from typing import Any

from falcon_operator.objects import Object, stamp
from falcon_trainer.outcome import Outcome

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    """The timestamp of NOW plus `seconds`."""
    return stamp(NOW + timedelta(seconds=seconds))


def pod(name: str = "p", phase: str = "Running", *, index: int | None = None, uid: str = "", **status: Any) -> Object:
    """A pod on node n1."""
    labels = {"falcon-finetune.dev/stage": "train"}
    if index is not None:
        labels["batch.kubernetes.io/job-completion-index"] = str(index)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "uid": uid or f"uid-{name}", "labels": labels, "creationTimestamp": at(-60)},
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, **status},
    }


def ended(
    name: str = "p",
    code: int = 1,
    message: Outcome | str = "",
    *,
    after: float = 0.0,
    reason: str = "Error",
    **more: Any,
) -> Object:
    """A pod whose container ended with this code `after` seconds from NOW."""
    text = message.encode() if isinstance(message, Outcome) else message
    state = {"terminated": {"exitCode": code, "reason": reason, "message": text, "finishedAt": at(after)}}
    statuses = [{"name": "stage", "state": state}]
    return pod(name, "Succeeded" if code == 0 else "Failed", containerStatuses=statuses, **more)


def outcome(reason: str, message: str = "it went wrong", *, retryable: bool = True) -> Outcome:
    """An outcome of the trainer."""
    return Outcome(reason=reason, message=message, retryable=retryable)


def deleted(found: Object, *, after: float = 0.0, grace: int = 30) -> Object:
    """The pod, once its deletion was asked for `after` seconds from NOW."""
    times = {"deletionTimestamp": at(after + grace), "deletionGracePeriodSeconds": grace}
    return found | {"metadata": found["metadata"] | times}


def disrupted(found: Object, reason: str, message: str = "", *, after: float = 0.0) -> Object:
    """The pod with the condition DisruptionTarget."""
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": at(after),
    }
    conditions = [*(found["status"].get("conditions") or []), condition]
    return found | {"status": found["status"] | {"conditions": conditions}}


def waiting(name: str = "p", reason: str = "", message: str = "", **more: Any) -> Object:
    """A pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(name, "Pending", containerStatuses=[{"name": "stage", "image": "img:1", "state": state} | more])


def unschedulable(message: str, name: str = "p", *, reason: str = "Unschedulable") -> Object:
    """A pod that the scheduler cannot place."""
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    found = pod(name, "Pending", conditions=[condition])
    return found | {"spec": {}}


def warning(reason: str, message: str, *, kind: str = "Pod", name: str = "p", after: float = -10.0) -> Object:
    """A core/v1 Event of type Warning, last seen `after` seconds from NOW."""
    return {
        "metadata": {"name": "e", "creationTimestamp": at(-3600)},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": kind, "name": name},
        "lastTimestamp": at(after),
    }


def job(name: str = "r-train-1", *conditions: str, failed: int = 0) -> Object:
    """A Job with these conditions True."""
    found = [
        {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "m", "lastTransitionTime": at(0)}
        for kind in conditions
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": at(-60)},
        "spec": {"completions": 2},
        "status": {"conditions": found, "failed": failed, "startTime": at(-60)},
    }
