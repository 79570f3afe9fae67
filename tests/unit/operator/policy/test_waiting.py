"""Why pods do not run yet."""

import pytest

from falcon_operator.objects import Object
from falcon_operator.policy.waiting import problem
from tests.unit.operator.policy.pods import NOW, deleted, outcome, pod, unschedulable, waiting, warning

PULL = 'failed to pull and unpack image "img:1": not found'
CRASH = {"terminated": {"exitCode": 64, "message": outcome("InvalidConfiguration", "bad", retryable=False).encode()}}
MISSING = '0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes'

Case = tuple[list[Object], list[Object], str, str]
"""Pods, Events, reason, a part of the message."""

CASES: dict[str, Case] = {
    "an image that is not there": ([waiting("p", "ErrImagePull", PULL)], [], "ImagePullBackOff", "img:1"),
    "the same image, later": (
        [waiting("p", "ImagePullBackOff", f'Back-off pulling image "img:1": ErrImagePull: {PULL}')],
        [],
        "ImagePullBackOff",
        PULL,
    ),
    "a name that is none": ([waiting("p", "InvalidImageName", "invalid")], [], "InvalidImageName", "img:1"),
    "a policy that forbids the pull": ([waiting("p", "ErrImageNeverPull", "never")], [], "ErrImageNeverPull", "img:1"),
    "a Secret that is missing": (
        [waiting("p", "CreateContainerConfigError", 'secret "hub" not found')],
        [],
        "CreateContainerConfigError",
        'secret "hub" not found',
    ),
    "a server that ends again and again, with what it said": (
        [waiting("p", "CrashLoopBackOff", "back-off", lastState=CRASH)],
        [],
        "CrashLoopBackOff",
        "InvalidConfiguration: bad",
    ),
    "a claim that does not exist": ([unschedulable(MISSING)], [], "ClaimNotFound", '"data"'),
    "a claim without a volume": (
        [unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.")],
        [],
        "ClaimPending",
        "storageClassName",
    ),
    "too few GPUs": (
        [unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")],
        [],
        "Unschedulable",
        "Insufficient nvidia.com/gpu",
    ),
    "an error of the scheduler's own, which is no want of nodes": (
        [unschedulable('running PreBind plugin "VolumeBinding": Operation cannot be', reason="SchedulerError")],
        [],
        "SchedulerError",
        "tries again",
    ),
    "one pod of the gang is enough": (
        [pod("a"), unschedulable("2 Insufficient cpu", "b")],
        [],
        "Unschedulable",
        "pod b",
    ),
    "a quota, known to the Job alone": (
        [],
        [warning("FailedCreate", 'pods "x" is forbidden: exceeded quota: q', kind="Job", name="r-prepare")],
        "QuotaExceeded",
        "Job r-prepare",
    ),
    "a namespace whose profile forbids the pod": (
        [],
        [warning("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted:latest"', kind="Job")],
        "PodSecurityViolated",
        "restricted",
    ),
    "an admission webhook that says no": (
        [],
        [warning("FailedCreate", "admission webhook denied the request", kind="Job")],
        "PodsRefused",
        "webhook",
    ),
    "a volume that cannot be mounted": (
        [waiting("p", "ContainerCreating")],
        [warning("FailedMount", 'configmap "c" not found')],
        "MountFailed",
        'configmap "c" not found',
    ),
    "a claim whose storage class is missing": (
        [pod("p", "Pending")],
        [warning("ProvisioningFailed", 'storageclass "fast" not found', kind="PersistentVolumeClaim", name="w")],
        "ClaimPending",
        "PersistentVolumeClaim w",
    ),
    "the newest warning goes first": (
        [waiting("p", "ContainerCreating")],
        [
            warning("FailedMount", "old", after=-100),
            warning("FailedCreatePodSandBox", "no address is left", after=-5),
        ],
        "SandboxFailed",
        "no address is left",
    ),
    "a container's state goes before an Event": (
        [waiting("p", "ErrImagePull", PULL)],
        [warning("FailedMount", "old")],
        "ImagePullBackOff",
        "img:1",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reason_is_named(case: str) -> None:
    pods, events, reason, words = CASES[case]
    found = problem(pods, events, NOW)
    assert found
    assert found.reason == reason
    assert words in found.message


NONE: dict[str, tuple[list[Object], list[Object]]] = {
    "pods that run": ([pod("a"), pod("b")], [warning("FailedMount", "it took two attempts")]),
    "a pod that only needs time": ([waiting("p", "ContainerCreating")], []),
    "no pods yet": ([], []),
    "a warning of an hour ago": ([waiting("p", "ContainerCreating")], [warning("FailedMount", "x", after=-3600)]),
    "a pod that was unschedulable once": (
        [waiting("p", "ContainerCreating")],
        [warning("FailedScheduling", "0/2 nodes are available")],
    ),
    "a pod that is being deleted": ([deleted(waiting("p", "ErrImagePull", PULL))], []),
    "an Event that is no warning": ([pod("p", "Pending")], [warning("FailedMount", "x") | {"type": "Normal"}]),
    "a warning about something else": ([pod("p", "Pending")], [warning("Unhealthy", "readiness probe failed")]),
}


@pytest.mark.parametrize("case", NONE)
def test_nothing_is_wrong(case: str) -> None:
    assert problem(*NONE[case], NOW) is None


def test_the_kubelets_two_words_for_an_image_give_one_message() -> None:
    first = problem([waiting("p", "ErrImagePull", PULL)], [], NOW)
    second = problem([waiting("p", "ImagePullBackOff", f'Back-off pulling image "i": ErrImagePull: {PULL}')], [], NOW)
    assert first == second
