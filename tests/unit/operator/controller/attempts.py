"""Records of attempts, and the pods and Jobs that decide how they end."""

from datetime import timedelta

from falcon_operator.api.status import AttemptStatus, FalconFineTuneStatus
from tests.unit.operator.api.runs import ADAPTER
from tests.unit.operator.policy.pods import NOW, at, outcome, pod

ADAPTED = {"adapter": ADAPTER.to_wire(), "step": 60, "loss": "0.0321"}
BOTH = [pod("a", index=0), pod("b", index=1)]
CRASH, FINAL = outcome("InternalError", "a traceback"), outcome("DataDamaged", "a hole", retryable=False)
FAILING = {"status": {"conditions": [{"type": "FailureTarget", "status": "True", "lastTransitionTime": at(0)}]}}
COMPLETE = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
GONE = {"metadata": {"deletionTimestamp": at(0)}}


def record(
    number: int, state: str = "Running", reason: str | None = None, *, over: bool = True, **more: object
) -> AttemptStatus:
    """The record of an attempt; of one that ended, unless `over` is False, its pods are gone."""
    end = NOW - timedelta(seconds=60) if over and state != "Running" else None
    told = {"retryable": True, "message": "it broke"} if reason else {}
    fields = {"state": state, "reason": reason, "end_time": end, "job_uid": f"uid-r-train-{number}"} | told | more
    return AttemptStatus.model_validate({"attempt": number, "start_time": NOW - timedelta(seconds=120)} | fields)


def records(status: FalconFineTuneStatus) -> list[tuple[int, str, str | None, bool]]:
    """Attempt, state, reason, and whether it is over."""
    return [(each.attempt, each.state, each.reason, each.end_time is not None) for each in status.attempts]
