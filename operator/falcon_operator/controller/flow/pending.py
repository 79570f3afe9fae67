"""What all stages share: names that are taken, pods that wait, and how soon to look again without an event."""

from collections.abc import Iterable
from datetime import datetime

from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow.report import Report
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object, moment, status
from falcon_operator.policy.conditions import Finding
from falcon_operator.policy.waiting import Problem, problem

PATIENCE = 60.0
"""Seconds until a run that is under way is looked at although no event came: a lost event costs at most this."""
FIRST_LOOKS = ((120.0, 5.0), (900.0, 15.0))
"""(age of the wait, pause): Events are not watched, so pods that do not start are asked about, ever more rarely."""
STOPPING = 5.0
"""Seconds between two looks at pods that are asked to stop; their own events usually come first."""
PROGRESS = 10.0
"""Seconds between two looks at a running pod's progress."""


def name_conflict(kind: ConditionType, sentence: str) -> Report:
    """The run stops in front of a name that something else has taken; it is looked at again, as names become free."""
    finding = Finding(type=kind, status="False", reason="NameConflict", message=sentence, final=True)
    return Report(finding=finding, again=PATIENCE)


def waiting(snapshot: Snapshot, now: datetime) -> Problem | None:
    """Why the stage's pods do not run."""
    return problem(snapshot.pods, snapshot.events, now)


def any_runs(pods: Iterable[Object]) -> bool:
    """Whether a pod of the stage runs, so that its Events need no reading and its progress may be asked."""
    return any(status(pod).get("phase") == "Running" for pod in pods)


def patience(pods: Iterable[Object], parent: Object, now: datetime) -> float:
    """Seconds until the next look at a stage that is under way; `parent` tells how long it has been waiting."""
    if any_runs(pods):
        return PROGRESS
    age = (now - moment(parent["metadata"]["creationTimestamp"])).total_seconds()
    return next((pause for limit, pause in FIRST_LOOKS if age < limit), PATIENCE)
