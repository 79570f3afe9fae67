"""The book of attempts in the status: what was tried, how it ended, how far it came.

An attempt's record is written when its Job is seen, so the number of attempts never depends on a write that may have
been lost. Its end is written in two steps: first why it is bound to end (state and reason, no endTime), while its
other pods may still save; then, when they are gone, that it is over (endTime), with the counters and the time of the
next one.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from falcon_operator.api.status import (
    MAX_ATTEMPTS,
    MAX_NODES,
    AttemptStatus,
    FailureStatus,
    TrainingStatus,
    display_duration,
    percent_done,
)
from falcon_operator.objects import Object, moment, status
from falcon_operator.policy.failure import Failure, Kind
from falcon_operator.policy.restart import Verdict
from falcon_trainer.outcome import Outcome
from falcon_trainer.progress import Notice, Progress
from falcon_trainer.wire import decimal_text

MAX_NOTICES = 8
QUEUED, SUSPENDED = "Queued", "Suspended"
HELD = (QUEUED, SUSPENDED)
"""States of an attempt whose Job exists and must not run, or not yet."""
STATES = {Kind.FAULT: "Faulted", Kind.DISRUPTION: "Disrupted"}


def record_of(
    attempts: Sequence[AttemptStatus], number: int, job: Object | None, training: TrainingStatus
) -> AttemptStatus:
    """The record of attempt `number`, a new one where its Job is seen for the first time."""
    for record in attempts:
        if record.attempt == number:
            return record
    started = status(job).get("startTime") or job["metadata"]["creationTimestamp"] if job else None
    return AttemptStatus(
        attempt=number,
        job_uid=job["metadata"]["uid"] if job else None,
        start_time=moment(started) if started else None,
        resumed_from_step=training.last_checkpoint_step,
    )


def resumed(record: AttemptStatus, said: Progress | None) -> AttemptStatus:
    """The record with the step that rank 0 really went on from: a damaged checkpoint may have been passed over."""
    if said is None or said.resumed_from_step is None:
        return record
    return record.model_copy(update={"resumed_from_step": said.resumed_from_step or None})


def released(record: AttemptStatus) -> AttemptStatus:
    """The record of an attempt that was held and runs again."""
    return record.model_copy(update={"state": "Running"}) if record.state in HELD else record


def clocked(training: TrainingStatus, since: datetime | None, now: datetime) -> TrainingStatus:
    """Counts the time that attempts take: `since` is when the present one began, None where none runs. One that runs is
    waited for no longer.
    """
    if since is not None:
        return training.model_copy(update={"active_since": training.active_since or since, "next_attempt_time": None})
    return training.model_copy(update={"active_seconds": active_seconds(training, now), "active_since": None})


def active_seconds(training: TrainingStatus, now: datetime) -> int | None:
    """Seconds that attempts took until now; None before the first one."""
    if training.active_since is None:
        return training.active_seconds
    return (training.active_seconds or 0) + max(0, round((now - training.active_since).total_seconds()))


def placed(record: AttemptStatus, pods: Iterable[Object]) -> AttemptStatus:
    """The record with the nodes of its pods, also of those that are gone by now."""
    found = {str(node) for pod in pods if (node := (pod.get("spec") or {}).get("nodeName"))}
    if record.end_time is not None or found <= set(record.nodes):
        return record
    return record.model_copy(update={"nodes": sorted(found | set(record.nodes))[:MAX_NODES]})


def news(record: AttemptStatus, said: Progress | None) -> list[Notice]:
    """What rank 0 wants a person to know and was not told yet."""
    known = set(record.notices)
    return [notice for notice in said.notices if _line(notice) not in known] if said else []


def heard(record: AttemptStatus, notices: Iterable[Notice]) -> AttemptStatus:
    """The record once these are told."""
    return record.model_copy(update={"notices": [*record.notices, *map(_line, notices)][:MAX_NOTICES]})


def _line(notice: Notice) -> str:
    return f"{notice.reason}: {notice.message}"


def entered(attempts: Sequence[AttemptStatus], record: AttemptStatus) -> list[AttemptStatus]:
    """The book with `record` in its place; only the newest attempts stay."""
    others = [each for each in attempts if each.attempt != record.attempt]
    return sorted([*others, record], key=lambda each: each.attempt)[-MAX_ATTEMPTS:]


def known_failure(record: AttemptStatus, training: TrainingStatus) -> Failure | None:
    """Why the attempt is bound to end, as far as it was written down."""
    if record.state not in STATES.values() or record.reason is None:
        return None
    kind = Kind.FAULT if record.state == STATES[Kind.FAULT] else Kind.DISRUPTION
    last = training.last_failure
    when = last.time if last and last.attempt == record.attempt else None
    retryable = record.retryable is not False
    return Failure(reason=record.reason, message=record.message or "", kind=kind, retryable=retryable, time=when)


def with_failure(record: AttemptStatus, why: Failure) -> AttemptStatus:
    """The record says why the attempt is bound to end."""
    told = {"reason": why.reason, "message": why.message[:1024], "retryable": why.retryable}
    return record.model_copy(update={"state": STATES[why.kind]} | told)


def failed(training: TrainingStatus, number: int, why: Failure) -> TrainingStatus:
    """The newest failure; speed and time left mean nothing any more."""
    last = FailureStatus(reason=why.reason, message=why.message[:4096], attempt=number, time=why.time)
    return training.model_copy(update=STANDING_STILL | {"last_failure": last})


STANDING_STILL: dict[str, Any] = {"tokens_per_second": None, "estimated_seconds_left": None, "eta": None}


def newer_checkpoint(record: AttemptStatus, training: TrainingStatus) -> bool:
    """Whether the attempt left a checkpoint beyond the one that it went on from."""
    return (training.last_checkpoint_step or 0) > (record.resumed_from_step or 0)


def judged(training: TrainingStatus, verdict: Verdict, now: datetime) -> TrainingStatus:
    """The counters after the end of an attempt, and the time of the next one, if there will be one."""
    following = now + timedelta(seconds=verdict.pause) if verdict.restart else None
    counters = {"restarts": verdict.restarts, "disruptions": verdict.disruptions, "next_attempt_time": following}
    return training.model_copy(update=counters)


def advanced(training: TrainingStatus, said: Progress | None) -> TrainingStatus:
    """How far the training is, as rank 0's pod says; what it does not say stays as it was."""
    if said is None or said.stage != "train":
        return training
    told = {
        "step": said.step,
        "total_steps": said.total_steps,
        "loss": _loss(said.loss),
        "tokens_per_second": None if said.tokens_per_second is None else round(said.tokens_per_second),
        "estimated_seconds_left": None if said.seconds_left is None else max(0, round(said.seconds_left)),
        "last_checkpoint_step": said.last_checkpoint_step,
        "evaluation_loss": _loss(said.evaluation_loss),
        "best_step": said.best_step,
    }
    return _displayed(training.model_copy(update={name: value for name, value in told.items() if value is not None}))


def reached(training: TrainingStatus, outcomes: Iterable[Outcome]) -> TrainingStatus:
    """How far the attempt came, as its pods said at their end: later than what a running pod said when it was last
    asked, which may be nothing at all.
    """
    ends = list(outcomes)
    told = {
        "step": max((end.step for end in ends if end.step is not None), default=None),
        "last_checkpoint_step": max(
            (end.last_checkpoint_step for end in ends if end.last_checkpoint_step is not None), default=None
        ),
    }
    return _displayed(training.model_copy(update={name: value for name, value in told.items() if value is not None}))


def completed(training: TrainingStatus, result: Mapping[str, Any]) -> TrainingStatus:
    """The training is over: what the result says of it, and nothing left to do."""
    step = result.get("step") or training.total_steps
    total = result.get("totalSteps") or training.total_steps or step
    loss = _loss(result.get("loss")) or training.loss
    told = {"step": step, "total_steps": total, "loss": loss, "next_attempt_time": None}
    told |= {
        "evaluation_loss": _loss(result.get("evaluationLoss")) or training.evaluation_loss,
        "best_step": result.get("bestStep", training.best_step),
        "stopped_early": result.get("stoppedEarly") or None,
    }
    over = _displayed(training.model_copy(update=STANDING_STILL | told))
    return over.model_copy(update={"percent": 100, "progress": "100%"})  # early stopping leaves no step to be done


def _loss(value: object) -> str | None:
    """A loss in four digits, as the decimal string that a custom resource needs."""
    try:
        return None if value is None else decimal_text(float(f"{float(str(value)):.4g}"))
    except ValueError:
        return None


def _displayed(training: TrainingStatus) -> TrainingStatus:
    """The columns of `kubectl get`."""
    step, total, left = training.step, training.total_steps, training.estimated_seconds_left
    percent = None if step is None or not total else percent_done(step, total)
    return training.model_copy(
        update={
            "percent": percent,
            "progress": None if percent is None else f"{percent}%",
            "eta": None if left is None else display_duration(left),
        }
    )
