"""Why a pod or a gang ended."""

import pytest

from falcon_operator.objects import Object
from falcon_operator.policy.failure import Failure, Kind, of_gang, of_pod, result_of, stronger
from falcon_trainer.outcome import ExitCode, Outcome
from tests.unit.operator.policy.pods import NOW, deleted, disrupted, ended, job, outcome, pod

FAULT, DISRUPTION = Kind.FAULT, Kind.DISRUPTION
FINAL = outcome("DataDamaged", retryable=False)
CRASH = outcome("InternalError", "a traceback")
LOST = outcome("RankLost", "another rank went away")
STOPPED = outcome("Stopped", "train was stopped on request")

Expected = tuple[str, Kind, bool, str]
"""Reason, kind, retryable, a part of the message."""

PODS: dict[str, tuple[Object, Expected]] = {
    "the outcome of the stage goes before its exit code": (
        ended("p", 70, outcome("OutOfGpuMemory", "lower microBatchSize")),
        ("OutOfGpuMemory", FAULT, True, "pod p: lower microBatchSize"),
    ),
    "an outcome says itself that it is final": (
        ended("p", 65, FINAL),
        ("DataDamaged", FAULT, False, "it went wrong"),
    ),
    "without an outcome a known exit code is translated": (
        ended("p", ExitCode.NO_INPUT, "no such file"),
        ("InputMissing", FAULT, False, "exit code 66); its last words: no such file"),
    ),
    "an unknown exit code may pass": (
        ended("p", 3),
        ("Crashed", FAULT, True, "exit code 3"),
    ),
    "a container that used up its memory": (
        ended("p", 137, reason="OOMKilled"),
        ("OutOfMemory", FAULT, True, "podTemplate.train.resources.limits.memory"),
    ),
    "a kill by nobody knows whom": (
        ended("p", 137),
        ("Killed", FAULT, True, "SIGKILL"),
    ),
    "a runtime that cannot start the container": (
        ended("p", 128, "exec: no such file", reason="StartError"),
        ("CannotStart", FAULT, True, "exec: no such file"),
    ),
    "a stop on request of a pod that nobody deleted": (
        ended("p", 143, STOPPED),
        ("Stopped", FAULT, True, "stopped on request"),
    ),
    "a pod that waited in vain for the rest of its gang": (
        ended("p", 75, outcome("RendezvousTimeout", "rank 0's pod could not be reached")),
        ("RendezvousTimeout", DISRUPTION, True, "rank 0's pod"),
    ),
    "a node that forgot the container": (
        ended("p", 137, reason="ContainerStatusUnknown"),
        ("NodeLost", DISRUPTION, True, "node"),
    ),
    "a pod that somebody deletes": (
        deleted(pod("p")),
        ("PodDeleted", DISRUPTION, True, "pod p was deleted"),
    ),
    "a deleted pod that ended as asked": (
        deleted(ended("p", 143, STOPPED, after=2)),
        ("PodDeleted", DISRUPTION, True, "pod p was deleted"),
    ),
    "a deleted pod that crashed while it stopped": (
        deleted(ended("p", 70, CRASH, after=2)),
        ("PodDeleted", DISRUPTION, True, "pod p was deleted"),
    ),
    "a pod that had failed before it was deleted": (
        deleted(ended("p", 70, CRASH, after=-5)),
        ("InternalError", FAULT, True, "a traceback"),
    ),
    "a final outcome is final, whatever happened to the pod": (
        disrupted(ended("p", 65, FINAL, after=9), "EvictionByEvictionAPI"),
        ("DataDamaged", FAULT, False, "it went wrong"),
    ),
    "preemption": (
        disrupted(deleted(pod("p")), "PreemptionByScheduler"),
        ("Preempted", DISRUPTION, True, "higher priority"),
    ),
    "a drain": (
        disrupted(deleted(pod("p")), "EvictionByEvictionAPI"),
        ("Evicted", DISRUPTION, True, "drain"),
    ),
    "a node that stopped reporting": (
        disrupted(deleted(pod("p")), "DeletionByTaintManager"),
        ("NodeLost", DISRUPTION, True, "node n1"),
    ),
    "a node that is gone": (
        disrupted(pod("p", "Failed"), "DeletionByPodGC"),
        ("NodeLost", DISRUPTION, True, "n1 is gone"),
    ),
    "an eviction for want of the node's memory": (
        disrupted(pod("p", "Failed", reason="Evicted", message="low on memory"), "TerminationByKubelet", "low"),
        ("EvictedByNode", DISRUPTION, True, "n1"),
    ),
    "an eviction for the pod's own limits is a fault": (
        pod("p", "Failed", reason="Evicted", message="Usage of EmptyDir volume exceeds the limit 1Gi."),
        ("OverItsLimits", FAULT, True, "exceeds the limit 1Gi"),
    ),
    "a disruption with a reason of a later Kubernetes": (
        disrupted(pod("p"), "SomethingNew", "because"),
        ("Disrupted", DISRUPTION, True, "because"),
    ),
    "a node that never took the pod": (
        pod("p", "Failed", reason="UnexpectedAdmissionError", message="no GPU is healthy"),
        ("RefusedByNode", DISRUPTION, True, "UnexpectedAdmissionError: no GPU is healthy"),
    ),
}


@pytest.mark.parametrize("case", PODS)
def test_why_a_pod_ended(case: str) -> None:
    found, (reason, kind, retryable, words) = PODS[case]
    failure = of_pod(found)
    assert failure
    assert (failure.reason, failure.kind, failure.retryable) == (reason, kind, retryable)
    assert words in failure.message


HEALTHY = {
    "a running pod": pod(),
    "a pending pod": pod(phase="Pending"),
    "a pod that succeeded": ended(code=0, message=outcome("Completed")),
    "a pod that succeeded and was deleted": deleted(ended(code=0)),
    "a pod whose main container ended well": ended(code=0) | {"status": {"phase": "Running"}},
}


@pytest.mark.parametrize("case", HEALTHY)
def test_no_failure(case: str) -> None:
    assert of_pod(HEALTHY[case]) is None


GANGS: dict[str, tuple[Object | None, list[Object], str | None]] = {
    "all is well": (job(), [pod("a"), pod("b")], None),
    "one pod is enough": (job(), [pod("a"), ended("b", 70, CRASH)], "InternalError"),
    "the cause goes before its consequence, though it is reported later": (
        job("j", "FailureTarget"),
        [ended("a", 75, LOST, after=0), ended("b", 70, CRASH, after=3)],
        "InternalError",
    ),
    "the earlier goes before the later": (
        job("j", "FailureTarget"),
        [ended("a", 70, CRASH, after=4), ended("b", 70, outcome("OutOfMemory"), after=1)],
        "OutOfMemory",
    ),
    "a deletion explains the crashes behind it": (
        job("j"),
        [deleted(pod("a"), after=0), ended("b", 70, CRASH, after=2)],
        "PodDeleted",
    ),
    "a fault in the second in which the Job controller deletes the others stays a fault": (
        job("j", "FailureTarget"),
        [ended("a", 70, CRASH, after=1), deleted(pod("b"), after=1)],
        "InternalError",
    ),
    "what the Job controller deletes explains nothing: the pod on a node that has just lost its power, say": (
        job("j", "FailureTarget"),
        [deleted(pod("a"), after=0), ended("b", 75, LOST, after=0)],
        "RankLost",
    ),
    "nor does what we delete where the Job controller sees nothing": (
        job("j"),
        [deleted(pod("a"), after=2), ended("b", 75, LOST, after=0)],
        "RankLost",
    ),
    "once the node is given up, it is the cause": (
        job("j", "FailureTarget"),
        [disrupted(deleted(pod("a"), after=0), "DeletionByTaintManager", after=50), ended("b", 75, LOST, after=0)],
        "NodeLost",
    ),
    "a person's deletion is the cause of what the others lose": (
        job("j"),
        [deleted(ended("a", 143, STOPPED, after=1), after=0), ended("b", 75, LOST, after=0)],
        "PodDeleted",
    ),
    "a final fault goes before another one of the same second": (
        job("j", "FailureTarget"),
        [ended("a", 70, CRASH, after=1), ended("b", 65, FINAL, after=1)],
        "DataDamaged",
    ),
    "a Job that failed and whose pods are gone": (job("j", "FailureTarget"), [], "PodLost"),
    "a Job that failed long ago": (job("j", "Failed"), [], "PodLost"),
    "a Job that lost a pod and does not say so yet": (job("j", failed=1), [pod("a")], "PodLost"),
    "no Job and no pod": (None, [], None),
}


@pytest.mark.parametrize("case", GANGS)
def test_why_a_gang_ended(case: str) -> None:
    found_job, pods, reason = GANGS[case]
    failure = of_gang(found_job, pods)
    assert (failure.reason if failure else None) == reason


def test_what_is_written_down_gives_way_only_to_something_more_telling() -> None:
    lost = Failure(reason="PodLost", message="m", time=NOW)
    consequence = Failure(reason="RankLost", message="m", time=NOW)
    cause = Failure(reason="OutOfMemory", message="m", time=NOW)
    assert stronger(consequence, lost)
    assert stronger(cause, consequence)
    assert not stronger(consequence, cause)
    assert not stronger(cause, cause)


def test_the_result_of_a_pod() -> None:
    told = Outcome(reason="Completed", message="done", result={"adapter": 1})
    assert result_of(ended(code=0, message=told)) == {"adapter": 1}
    assert result_of(ended(code=0, message="cut by the kubel")) is None
    assert result_of(ended(code=70, message=told)) is None
    assert result_of(pod()) is None
