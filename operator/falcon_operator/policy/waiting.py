"""Why a stage's pods do not run yet: a reason and a sentence, while the run waits for it to be mended.

The most telling source goes first: container states, then scheduling, then Events. Events are asked for only while
nothing runs: quota, admission and mount failures show nowhere else.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from falcon_operator.objects import Object, being_deleted, condition, moment, status
from falcon_trainer.outcome import Outcome

FRESH = timedelta(minutes=5)
"""An older warning may be mended by now; kubelets and controllers repeat themselves within about two minutes."""


@dataclass(frozen=True)
class Problem:
    """What keeps pods from running."""

    reason: str
    message: str


IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
CONTAINER_REASONS = {
    "CreateContainerConfigError": "a Secret, a ConfigMap or a user that the pod names is not as it should be",
    "CreateContainerError": "the container runtime cannot create the container",
    "RunContainerError": "the container runtime cannot start the container",
}
MISSING_CLAIM = re.compile(r'persistentvolumeclaims? "([^"]+)" (?:is )?(?:not found|being deleted)')
UNBOUND_CLAIM = re.compile(r"unbound immediate PersistentVolumeClaims|unbound PersistentVolumeClaims", re.IGNORECASE)
EVENT_REASONS = {
    "FailedMount": ("MountFailed", "a volume cannot be mounted"),
    "FailedAttachVolume": ("MountFailed", "a volume cannot be attached"),
    "FailedMapVolume": ("MountFailed", "a volume cannot be mapped"),
    "FailedScheduling": ("Unschedulable", "no node can take the pod"),
    "FailedCreatePodSandBox": ("SandboxFailed", "the node cannot set up the pod"),
    "ProvisioningFailed": ("ClaimPending", "the volume for a claim cannot be made"),
    "FailedBinding": ("ClaimPending", "no volume fits a claim"),
}


def problem(pods: Iterable[Object], events: Iterable[Object], now: datetime) -> Problem | None:
    """The most telling reason why pods wait; None where they run, or only need time."""
    waiting = [
        pod for pod in pods if status(pod).get("phase") in (None, "Pending", "Running") and not being_deleted(pod)
    ]
    for source in (_of_containers, _of_scheduling):
        for pod in waiting:
            if found := source(pod):
                return found
    if any(status(pod).get("phase") == "Running" for pod in waiting):
        return None
    return _of_events(events, scheduled=any((pod.get("spec") or {}).get("nodeName") for pod in waiting), now=now)


def _of_containers(pod: Object) -> Problem | None:
    found = status(pod)
    states = [*(found.get("initContainerStatuses") or []), *(found.get("containerStatuses") or [])]
    for container in states:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if result := _of_waiting(pod["metadata"]["name"], container, waiting):
            return result
    return None


def _of_waiting(pod: str, container: dict[str, Any], waiting: dict[str, Any]) -> Problem | None:
    reason, detail = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_REASONS:
        # The kubelet alternates between ErrImagePull and ImagePullBackOff: one word for both keeps the status still.
        word = "ImagePullBackOff" if reason == "ErrImagePull" else reason
        text = f"pod {pod} cannot get its image {container.get('image')}: {_detail(detail)}. Check the name, the tag"
        return Problem(word, f"{text} and imagePullSecrets; the run goes on by itself once the image can be pulled")
    if reason == "CrashLoopBackOff":
        return Problem("CrashLoopBackOff", f"pod {pod} ends again and again: {_last_end(container)}")
    if reason in CONTAINER_REASONS:
        return Problem(reason, f"pod {pod} cannot start, {CONTAINER_REASONS[reason]}: {detail or 'no details'}")
    return None


def _detail(message: str) -> str:
    """What lies behind `Back-off pulling image …: ErrImagePull: `, the same text in both of the kubelet's states."""
    return (message.rpartition("ErrImagePull: ")[2] or "no details").rstrip(". ")


def _last_end(container: dict[str, Any]) -> str:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    message = str(ended.get("message") or "")
    outcome = Outcome.decode(message)
    if outcome:
        return f"{outcome.reason}: {outcome.message}"
    return f"exit code {ended.get('exitCode', '?')}" + (
        f"; its last words: {message.strip()[-500:]}" if message else ""
    )


def _of_scheduling(pod: Object) -> Problem | None:
    scheduled = condition(pod, "PodScheduled")
    if not scheduled or scheduled["status"] != "False":
        return None
    return _of_scheduler(pod["metadata"]["name"], scheduled.get("reason", ""), scheduled.get("message", ""))


def _of_scheduler(pod: str, reason: str, message: str) -> Problem:
    if named := MISSING_CLAIM.search(message):
        return _missing_claim(pod, named.group(1))
    if UNBOUND_CLAIM.search(message):
        text = f"pod {pod} waits for a claim to be bound: {message} Check its storageClassName, access mode and size"
        return Problem("ClaimPending", text)
    if reason == "SchedulerError":  # two pods that were the first of one claim, say: it is over in seconds
        return Problem("SchedulerError", f"the scheduler met an error with pod {pod} and tries again: {message}")
    if reason == "SchedulingGated":
        return Problem("SchedulingGated", f"pod {pod} waits behind a scheduling gate: {message}")
    return Problem("Unschedulable", f"no node can take pod {pod}: {message or 'no details'}")


def _missing_claim(pod: str, claim: str) -> Problem:
    text = f'pod {pod} needs the PersistentVolumeClaim "{claim}", which does not exist in this namespace'
    return Problem("ClaimNotFound", f"{text}: create it, or name another one; the run goes on by itself")


def _of_events(events: Iterable[Object], *, scheduled: bool, now: datetime) -> Problem | None:
    fresh = [event for event in events if event.get("type") == "Warning" and now - _seen(event) < FRESH]
    for event in sorted(fresh, key=_seen, reverse=True):
        if scheduled and event.get("reason") == "FailedScheduling":
            continue  # it was so once
        if found := next(_readings(event), None):
            return found
    return None


def _readings(event: Object) -> Iterator[Problem]:
    reason, message = event.get("reason", ""), str(event.get("message") or "").strip()
    about = event.get("involvedObject") or {}
    what = f"{about.get('kind')} {about.get('name')}"
    if named := MISSING_CLAIM.search(message):
        yield _missing_claim(str(about.get("name")), named.group(1))
    if reason == "FailedCreate":
        yield _refused(what, message)
    if reason in EVENT_REASONS:
        word, words = EVENT_REASONS[reason]
        yield Problem(word, f"{what}: {words}: {message}")


def _refused(what: str, message: str) -> Problem:
    if "exceeded quota" in message:
        return Problem("QuotaExceeded", f"{what} cannot create its pods, the namespace's quota is used up: {message}")
    if "violates PodSecurity" in message:
        return Problem(
            "PodSecurityViolated", f"{what}: the namespace's Pod Security Standard forbids its pods: {message}"
        )
    return Problem("PodsRefused", f"{what} cannot create its pods: {message}")


def _seen(event: Object) -> datetime:
    """When the event was last seen; its two generations of fields are filled in by different components."""
    series = event.get("series") or {}
    stamps = [series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")]
    known = [moment(text) for text in [*stamps, event["metadata"].get("creationTimestamp")] if text]
    return max(known) if known else datetime.fromtimestamp(0).astimezone()
