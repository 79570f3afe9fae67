"""Why a pod, or a gang of pods, ended: one reason, one sentence that a person can act on, and whether to try again.

Read from what Kubernetes and the stage left behind: the outcome JSON, exit codes, container states, pod conditions.
Faults and disruptions are told apart: a disruption comes from outside (preemption, eviction by the node, node loss, a
deletion by hand, a gang that was not scheduled as a whole) and never uses up a run's restarts; an eviction for the
pod's own limits is a fault.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from falcon_operator.objects import Object, being_deleted, holds, moment, status
from falcon_trainer.outcome import RETRYABLE, ExitCode, Outcome

CONTAINER = "stage"
CONSEQUENCES = frozenset({"RankLost", "Stopped"})
"""Reasons of the launcher that follow from what happened to another pod."""
NO_EVIDENCE = "PodLost"
WAITED_IN_VAIN = "RendezvousTimeout"
"""The launcher's reason where the rest of the gang did not come, mostly since it was not scheduled: to wait for GPUs
must never use up a run's restarts.
"""


class Kind(StrEnum):
    """Whether an end uses up a run's restarts."""

    FAULT = "Fault"
    DISRUPTION = "Disruption"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The end of a pod or a gang."""

    reason: str
    message: str
    kind: Kind = Kind.FAULT
    retryable: bool = True
    time: datetime | None = None

    @property
    def weight(self) -> int:
        """How telling it is: a cause before a consequence, a consequence before the mere fact."""
        if self.reason == NO_EVIDENCE:
            return 2
        return 1 if self.reason in CONSEQUENCES else 0


DISRUPTIONS: dict[str, tuple[str, str]] = {
    "PreemptionByScheduler": ("Preempted", "was preempted by a pod of higher priority"),
    "EvictionByEvictionAPI": ("Evicted", "was evicted through the API, as a node drain does"),
    "DeletionByTaintManager": ("NodeLost", "was removed because its node {node} stopped reporting or was tainted"),
    "DeletionByPodGC": ("NodeLost", "was removed because its node {node} is gone"),
    "TerminationByKubelet": ("EvictedByNode", "was ended by its node {node}: pressure, or a shutdown ({detail})"),
}
"""Reasons of the pod condition DisruptionTarget (Kubernetes: Pod disruption conditions)."""

EXIT_CODES: dict[int, tuple[str, str]] = {
    ExitCode.CONFIGURATION: ("InvalidConfiguration", "refused its configuration"),
    ExitCode.DATA: ("InvalidData", "refused the data"),
    ExitCode.NO_INPUT: ("InputMissing", "did not find its input"),
    ExitCode.UNAVAILABLE: ("RemoteUnavailable", "could not reach a remote service"),
    ExitCode.INTERNAL: ("InternalError", "ended with an internal error"),
    ExitCode.CANNOT_WRITE: ("CannotWrite", "could not write to a volume"),
    ExitCode.TRY_AGAIN: ("TryAgain", "asked to be run again"),
    ExitCode.NO_PERMISSION: ("PermissionDenied", "had no permission for a file or a remote service"),
    ExitCode.STOPPED: ("Stopped", "was stopped on request"),
    128: ("CannotStart", "could not be started by the container runtime"),
    137: ("Killed", "was killed (SIGKILL)"),
    139: ("Crashed", "crashed (SIGSEGV)"),
}


def of_gang(job: Object | None, pods: Iterable[Object]) -> Failure | None:
    """Why an attempt ended or is bound to end; None while all is well.

    One pod is enough: a gang that lost a pod is lost. Of several ends the cause goes before its consequences and the
    earlier before the later; within the same second a fault goes before a disruption, since the Job controller deletes
    the other pods in the second in which the first one fails.
    """
    found = [failure for pod in pods if (failure := of_pod(pod))]
    if found:
        return min(found, key=_urgency)
    return _of_job(job) if job else None


def stronger(new: Failure, old: Failure) -> bool:
    """Whether `new` explains the end of a gang better than what is known already."""
    return _urgency(new) < _urgency(old)


def _urgency(failure: Failure) -> tuple[int, float, bool, bool]:
    when = failure.time.timestamp() if failure.time else float("inf")
    return failure.weight, when, failure.retryable, failure.kind is Kind.DISRUPTION


def of_pod(pod: Object) -> Failure | None:
    """Why the pod ended or is bound to end; None while it lives, and where it succeeded."""
    if status(pod).get("phase") == "Succeeded":
        return None
    fault = _fault(pod)
    disruption = _disruption(pod)
    if not (fault and disruption):
        return fault or disruption
    if not fault.retryable or (fault.weight == 0 and _urgency(fault) < _urgency(disruption)):
        return fault
    return disruption


def result_of(pod: Object) -> dict[str, Any] | None:
    """The result that a pod which succeeded reports; None where it did not succeed or its report is lost."""
    if status(pod).get("phase") != "Succeeded":
        return None
    outcome = outcome_of(pod)
    return outcome.result if outcome else None


def outcome_of(pod: Object) -> Outcome | None:
    """What the stage said at its end; None while it runs, and where it ended without a word."""
    ended = _terminated(pod)
    return Outcome.decode(str(ended.get("message") or "")) if ended else None


def _disruption(pod: Object) -> Failure | None:
    name, node = pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName", "?")
    if target := holds(pod, "DisruptionTarget"):
        reason, words = DISRUPTIONS.get(target.get("reason", ""), ("Disrupted", "was disrupted ({detail})"))
        detail = target.get("message") or target.get("reason") or "no details"
        text = f"pod {name} " + words.format(node=node, detail=detail)
        return Failure(reason=reason, message=text, kind=Kind.DISRUPTION, time=_when(target, "lastTransitionTime"))
    if being_deleted(pod):
        grace = timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        asked = moment(pod["metadata"]["deletionTimestamp"]) - grace
        return Failure(reason="PodDeleted", message=f"pod {name} was deleted", kind=Kind.DISRUPTION, time=asked)
    return None


def _fault(pod: Object) -> Failure | None:
    if ended := _terminated(pod):
        return _of_container(pod, ended)
    if status(pod).get("phase") != "Failed":
        return None
    return _of_failed_phase(pod)


def _of_container(pod: Object, ended: dict[str, Any]) -> Failure | None:
    code, name = int(ended["exitCode"]), pod["metadata"]["name"]
    time = _when(ended, "finishedAt")
    outcome = Outcome.decode(str(ended.get("message") or ""))
    if code == 0:
        return None
    if status(pod).get("reason") == "Evicted":
        return replace(_of_failed_phase(pod), time=time)
    if outcome:
        return Failure(
            reason=outcome.reason,
            message=f"pod {name}: {outcome.message}",
            kind=Kind.DISRUPTION if outcome.reason == WAITED_IN_VAIN else Kind.FAULT,
            retryable=outcome.retryable,
            time=time,
        )
    if ended.get("reason") == "ContainerStatusUnknown":
        text = f"pod {name} was lost with its node's memory of it: the node was restarted or its runtime was"
        return Failure(reason="NodeLost", message=text, kind=Kind.DISRUPTION, time=time)
    if ended.get("reason") == "OOMKilled":
        stage = (pod["metadata"].get("labels") or {}).get("falcon-finetune.dev/stage", "all")
        text = f"pod {name} used up its memory and was killed: raise podTemplate.{stage}.resources.limits.memory"
        return Failure(reason="OutOfMemory", message=text, time=time)
    reason, words = EXIT_CODES.get(code, ("Crashed", "ended without saying why"))
    last = str(ended.get("message") or "").strip()[-500:]
    text = f"pod {name} {words} (exit code {code})" + (f"; its last words: {last}" if last else "")
    retryable = code in RETRYABLE or code not in {int(each) for each in ExitCode}
    return Failure(reason=reason, message=text, retryable=retryable, time=time)


def _of_failed_phase(pod: Object) -> Failure:
    """A pod that failed as a whole: the node threw it out, or never took it."""
    found, name = status(pod), pod["metadata"]["name"]
    reason, detail = found.get("reason") or "", found.get("message") or "no details"
    if reason == "Evicted":
        # An eviction by the node for lack of its resources carries DisruptionTarget; this one is for the pod's limits.
        text = f"pod {name} was evicted for what it used itself: {detail} Raise that limit in podTemplate"
        return Failure(reason="OverItsLimits", message=text)
    text = f"the node {(pod.get('spec') or {}).get('nodeName', '?')} refused pod {name}: {reason or 'Failed'}: {detail}"
    return Failure(reason="RefusedByNode", message=text, kind=Kind.DISRUPTION)


def _of_job(job: Object) -> Failure | None:
    for kind in ("FailureTarget", "Failed"):
        if found := holds(job, kind):
            return _lost(job, f"{found.get('reason')}: {found.get('message')}", _when(found, "lastTransitionTime"))
    if status(job).get("failed"):
        return _lost(job, f"{status(job)['failed']} of its pods failed", None)
    return None


def _lost(job: Object, detail: str, time: datetime | None) -> Failure:
    text = f"Job {job['metadata']['name']} lost a pod, and the pod that could say why is gone ({detail})"
    return Failure(reason=NO_EVIDENCE, message=text, kind=Kind.DISRUPTION, time=time)


def _terminated(pod: Object) -> dict[str, Any] | None:
    """The end of the stage's container; of another one (a sidecar that was injected) only if it failed."""
    ends = {
        each["name"]: each["state"]["terminated"]
        for each in status(pod).get("containerStatuses") or []
        if "terminated" in (each.get("state") or {})
    }
    if CONTAINER in ends:
        return dict(ends[CONTAINER])
    return next((dict(each) for each in ends.values() if each["exitCode"] != 0), None)


def _when(found: dict[str, Any], field: str) -> datetime | None:
    return moment(found[field]) if found.get(field) else None
