"""The pods of one attempt: whether they succeeded, and whether they are gone."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from falcon_operator.objects import Object, being_deleted, condition, holds, labels, moment, status, suspended
from falcon_operator.policy.failure import outcome_of, result_of
from falcon_trainer.outcome import Outcome

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def rank_zero(pods: Iterable[Object]) -> Object | None:
    """The pod of rank 0: one that succeeded, else the newest."""
    found = [pod for pod in pods if labels(pod).get(INDEX_LABEL) == "0"]
    done = [pod for pod in found if status(pod).get("phase") == "Succeeded"]
    newest = sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    return next(iter([*done, *reversed(newest)]), None)


def of_incarnation(pods: Iterable[Object], job: Object | None) -> list[Object]:
    """The pods since the Job was released the last time: those that a suspension ended are no sign of a fault."""
    began = status(job).get("startTime") if job else None
    if job is None or began is None or suspended(job):
        return list(pods)
    if holds(job, "Suspended"):
        return []  # released, but the Job controller has not seen it: startTime is still the old one
    return [pod for pod in pods if moment(pod["metadata"]["creationTimestamp"]) >= moment(began)]


def result(pods: Sequence[Object]) -> dict[str, Any] | None:
    """What rank 0's pod reports of a training that is complete. Its adapter is verified and lies on the volume: how the
    other pods end from here on changes nothing.
    """
    first = rank_zero(pods)
    found = result_of(first) if first else None
    return found if found and "adapter" in found else None


def outcomes(pods: Iterable[Object]) -> list[Outcome]:
    """What the pods that have ended said."""
    return [outcome for pod in pods if (outcome := outcome_of(pod))]


def tells_nothing(pods: Sequence[Object]) -> bool:
    """Whether rank 0's pod succeeded without an adapter in its report: another attempt would tell the same."""
    first = rank_zero(pods)
    return first is not None and status(first).get("phase") == "Succeeded" and result(pods) is None


def completed(job: Object | None) -> bool:
    """Whether the Job controller counts the attempt as a success."""
    return job is not None and bool(holds(job, "Complete") or holds(job, "SuccessCriteriaMet"))


def running(pods: Sequence[Object], nodes: int) -> bool:
    """Whether the whole gang runs."""
    return len([pod for pod in pods if status(pod).get("phase") == "Running"]) >= nodes


def still_there(pods: Iterable[Object], now: datetime) -> list[Object]:
    """The pods that may still write: not terminal, not past their grace, not on a node that nobody hears of."""
    return [pod for pod in pods if not _gone(pod, now)]


def to_stop(pods: Iterable[Object], job: Object | None, now: datetime) -> list[Object]:
    """The pods of an attempt that is bound to end which nobody has asked to stop yet.

    The Job controller does that itself once it has seen a pod fail; it does not see a pod that is being deleted on a
    node that is silent.
    """
    if job is None or holds(job, "FailureTarget") or holds(job, "Failed") or being_deleted(job):
        return []
    return [pod for pod in still_there(pods, now) if not being_deleted(pod)]


def _gone(pod: Object, now: datetime) -> bool:
    if status(pod).get("phase") in ("Succeeded", "Failed"):
        return True
    if not being_deleted(pod):
        return False
    if now > moment(pod["metadata"]["deletionTimestamp"]):  # the time of the deletion plus the grace
        return True
    target, ready = holds(pod, "DisruptionTarget"), condition(pod, "Ready")
    unreachable = target is not None and target.get("reason") == "DeletionByTaintManager"
    return unreachable and ready is not None and ready["status"] != "True"
