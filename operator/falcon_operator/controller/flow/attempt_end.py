"""How an attempt ends, and what comes after it."""

from falcon_operator.api.status import AttemptStatus, ConditionType, TrainingStatus
from falcon_operator.controller.flow import gang, ledger
from falcon_operator.controller.flow.attempt import Attempt, start
from falcon_operator.controller.flow.hold import paused
from falcon_operator.controller.flow.pending import STOPPING
from falcon_operator.controller.flow.report import Occasion, Report
from falcon_operator.objects import being_deleted
from falcon_operator.policy import assembly, failure, restart
from falcon_operator.policy.failure import Failure, Kind
from falcon_operator.stages.naming import train_job_name
from falcon_operator.stages.train import queue_labels

EXHAUSTED = "RestartsExhausted"
DEADLINE = "DeadlineExceeded"


def why_it_ends(attempt: Attempt) -> Failure | None:
    """Why the attempt is bound to end; None while it may still succeed. What was written down stays unless something
    more telling is found, since pods vanish with what they could say.
    """
    known = ledger.known_failure(attempt.book, attempt.training)
    found = _of_job(attempt) or failure.of_gang(attempt.job, attempt.snapshot.pods) or _in_time(attempt)
    if known and found:
        return found if failure.stronger(found, known) else known
    return found or known


def _of_job(attempt: Attempt) -> Failure | None:
    name = train_job_name(attempt.run, attempt.number)
    if attempt.job is None or being_deleted(attempt.job):
        return Failure(reason="JobDeleted", message=f"Job {name} was deleted", kind=Kind.DISRUPTION, time=attempt.now)
    if gang.completed(attempt.job):
        text = (
            f"Job {name} succeeded, but the pod of rank 0 is gone and its result with it; the next attempt reports it"
        )
        return Failure(reason="ResultLost", message=text, kind=Kind.DISRUPTION, time=attempt.now)
    return None


def seconds_left(attempt: Attempt) -> float | None:
    """Of gang.activeDeadlineSeconds; None where there is none."""
    deadline = attempt.run.spec.gang.active_deadline_seconds
    if deadline is None:
        return None
    training = ledger.clocked(attempt.training, attempt.since, attempt.now)
    return max(0.0, deadline - (ledger.active_seconds(training, attempt.now) or 0))


def _in_time(attempt: Attempt) -> Failure | None:
    """The two ends that the operator itself decides: the deadline, and a gang that keeps nodes from others in vain."""
    run = attempt.run
    if seconds_left(attempt) == 0:
        text = f"the attempts together took the {run.spec.gang.active_deadline_seconds} s of gang.activeDeadlineSeconds"
        return Failure(reason=DEADLINE, message=text, retryable=False, time=attempt.now)
    if attempt.since is None or queue_labels(run):
        return None
    waited = (attempt.now - attempt.since).total_seconds()
    if not assembly.given_up(attempt.snapshot.pods, waited, run.spec.gang.assembly_timeout_seconds, run.metadata.uid):
        return None
    text = f"after {waited:.0f} s no node can take all pods of the gang: those that hold a node release it"
    return Failure(reason=assembly.REASON, message=text, kind=Kind.DISRUPTION, time=attempt.now)


def ending(attempt: Attempt, why: Failure) -> Report:
    """Writes down why; stops what is left of the gang; once nothing is left, judges."""
    record = ledger.with_failure(attempt.book, why)
    training = ledger.failed(attempt.training, attempt.number, why)
    pods, now = attempt.snapshot.pods, attempt.now
    if not (left := gang.still_there(pods, now)):
        return _judge(attempt, why, record, training)
    text = f"attempt {attempt.number} ends ({why.message.rstrip('.')}); waits for {len(left)} of its pods to stop"
    stop = tuple(gang.to_stop(pods, attempt.job, now))
    word = "Restarting" if why.retryable else "Stopping"
    return attempt.report("Unknown", word, text, record=record, training=training, delete=stop, again=STOPPING)


def _judge(attempt: Attempt, why: Failure, record: AttemptStatus, training: TrainingStatus) -> Report:
    verdict = restart.decide(
        why,
        restarts=training.restarts or 0,
        disruptions=training.disruptions or 0,
        newer_checkpoint=ledger.newer_checkpoint(record, training),
        max_restarts=attempt.run.spec.gang.max_restarts,
        spread=assembly.spread(attempt.run.metadata.uid),
    )
    over = record.model_copy(update={"end_time": attempt.now, "last_step": training.step})
    counted = ledger.judged(training, verdict, attempt.now)
    text = f"attempt {attempt.number} ended: {why.message}"
    identity = f"{over.job_uid}/ended"
    told = (Occasion(reason=why.reason, message=text, action="train", warning=True, identity=identity),)
    if not verdict.restart:
        reason, message = _final(attempt, over, counted)
        return attempt.report("False", reason, message, final=True, record=over, training=counted, occasions=told)
    text += f". Attempt {attempt.number + 1} starts " + (f"in {verdict.pause:.0f} s" if verdict.pause else "now")
    return attempt.report(
        "Unknown", "Restarting", text, record=over, training=counted, occasions=told, again=verdict.pause
    )


def between(attempt: Attempt) -> Report:
    """After an attempt: the pause, the next one, or a stop that only a person can undo."""
    record, training = attempt.book, attempt.training
    if attempt.run.spec.suspend:
        return paused(ConditionType.TRAINED)
    following = f"attempt {attempt.number + 1} starts; attempt {attempt.number} ended: {record.message}"
    if attempt.job is not None and (_for_a_person(attempt) or exhausted(attempt)):
        reason, message = _final(attempt, record, training)
        return attempt.report("False", reason, message, final=True)
    pause = (training.next_attempt_time - attempt.now).total_seconds() if training.next_attempt_time else 0.0
    if pause > 0:
        text = f"attempt {attempt.number} ended: {record.message}. Attempt {attempt.number + 1} waits for its turn"
        return attempt.report("Unknown", "Restarting", text, again=pause)
    return start(attempt, following)


def _for_a_person(attempt: Attempt) -> bool:
    """Whether the end is one that another attempt would meet again; more time undoes an exceeded deadline."""
    more_time = attempt.book.reason == DEADLINE and seconds_left(attempt) != 0
    return attempt.book.retryable is False and not more_time


def exhausted(attempt: Attempt) -> bool:
    """Whether faults used up the restarts; raising gang.maxRestarts undoes it."""
    faulted = attempt.book.state == ledger.STATES[Kind.FAULT]
    return faulted and (attempt.training.restarts or 0) > attempt.run.spec.gang.max_restarts


def _final(attempt: Attempt, record: AttemptStatus, training: TrainingStatus) -> tuple[str, str]:
    """Why nothing more is tried, and what a person can do. Deleting the last Job is the sign to try once more."""
    command = f"kubectl delete job {train_job_name(attempt.run, attempt.number)} -n {attempt.run.namespace}"
    last = (record.message or "").rstrip(". ")
    if record.reason == DEADLINE:
        return DEADLINE, f"{last}. Raise gang.activeDeadlineSeconds to go on from the newest checkpoint"
    if record.retryable is False:
        text = f"attempt {attempt.number}: {last}. Once that is mended, `{command}` starts the next attempt"
        return record.reason or "Failed", text
    allowed = attempt.run.spec.gang.max_restarts
    faults = "1 fault" if training.restarts == 1 else f"{training.restarts} faults"
    text = f"{faults} without a newer checkpoint, gang.maxRestarts allows {allowed}; the last: {last}"
    return EXHAUSTED, f"{text}. Raise gang.maxRestarts, or `{command}` for one more attempt"
