"""Held back: a stage whose pods must not run, since the run is suspended, or do not run yet, since it waits in a queue.

A Job is held by its own `suspend`: its pods are asked to stop, save, and come again under the same Job once it is
released. So neither costs an attempt. Of a run in a queue the queue alone releases the Job; to suspend such a run the
Job is deleted, since the queue would release it again at once.
"""

from datetime import datetime

from falcon_operator.api.names import HASH_ANNOTATION
from falcon_operator.api.status import AttemptStatus, ConditionType
from falcon_operator.controller.flow import gang, ledger
from falcon_operator.controller.flow.attempt import Attempt
from falcon_operator.controller.flow.pending import PATIENCE, STOPPING
from falcon_operator.controller.flow.report import Change, Occasion, Report
from falcon_operator.objects import Object, annotations, being_deleted, holds, suspended, uid
from falcon_operator.policy.conditions import Finding
from falcon_operator.stages.train import queue_labels, train_job

PAUSED = "the run is suspended, nothing of it runs: set spec.suspend to false to let it go on"


def paused(kind: ConditionType) -> Report:
    """A stage that is suspended before anything of it was made."""
    return Report(finding=Finding(type=kind, status="Unknown", reason="Suspended", message=PAUSED, paused=True))


def held_job(kind: ConditionType, job: Object, left: int, *, suspend: bool) -> Report | None:
    """A stage of one pod whose Job is to be held or released; `left` counts its pods that have not stopped. None where
    the Job is as it should be, or has ended.
    """
    if _over(job) or (not suspend and not suspended(job)):
        return None
    if not suspend:
        finding = Finding(type=kind, status="Unknown", reason="Starting", message="the stage goes on")
        return Report(finding=finding, change=(Change(job, {"suspend": False}),), again=PATIENCE)
    if suspended(job) and not left:
        return paused(kind)
    change = () if suspended(job) else (Change(job, {"suspend": True}),)
    finding = Finding(type=kind, status="Unknown", reason="Suspending", message=_stopping(left))
    return Report(finding=finding, change=change, again=STOPPING)


def held_attempt(attempt: Attempt) -> Report | None:
    """The report of an attempt that is held; None of one that runs, or ends."""
    job, suspend = attempt.job, attempt.run.spec.suspend
    if job is None or being_deleted(job):
        return _leaves(attempt) if attempt.book.state == ledger.SUSPENDED else None
    if _over(job) or (not suspend and not suspended(job)):
        return None
    if suspend:
        return _suspended(attempt, job)
    return _queued(attempt, job) if queue_labels(attempt.run) else _released(attempt, job)


def _over(job: Object) -> bool:
    return any(holds(job, kind) for kind in ("FailureTarget", "Failed", "SuccessCriteriaMet", "Complete"))


def _stopping(left: int) -> str:
    return f"the run is being suspended: {left} of its pods may still save"


def _suspended(attempt: Attempt, job: Object) -> Report:
    record = _with_state(attempt, ledger.SUSPENDED)
    left = len(gang.still_there(attempt.snapshot.pods, attempt.now))
    if queue_labels(attempt.run):
        text = f"the run is being suspended: Job {job['metadata']['name']} leaves its queue"
        return attempt.report("Unknown", "Suspending", text, record=record, delete=(job,), again=STOPPING)
    if suspended(job) and not left:
        return attempt.report("Unknown", "Suspended", PAUSED, record=record, paused=True)
    change = () if suspended(job) else (Change(job, {"suspend": True}),)
    return attempt.report("Unknown", "Suspending", _stopping(left), record=record, change=change, again=STOPPING)


def _leaves(attempt: Attempt) -> Report:
    """The Job of a suspended run in a queue was deleted: the attempt is over, and counts as nothing."""
    left = len(gang.still_there(attempt.snapshot.pods, attempt.now))
    if left or attempt.job is not None:
        return attempt.report("Unknown", "Suspending", _stopping(left), again=STOPPING)
    return _over_by_suspension(attempt, ())


def _released(attempt: Attempt, job: Object) -> Report:
    """The suspension is over. A gang that the spec now wants otherwise (other nodes, another image) needs a new Job."""
    if left := len(gang.still_there(attempt.snapshot.pods, attempt.now)):
        text = f"the run goes on when {left} of its pods have saved and stopped"
        return attempt.report("Unknown", "Suspending", text, again=STOPPING)
    wanted = train_job(attempt.run, attempt.settings, attempt.number)
    if annotations(job).get(HASH_ANNOTATION) != annotations(wanted)[HASH_ANNOTATION]:
        return _over_by_suspension(attempt, (job,))
    text = f"attempt {attempt.number} goes on"
    record = _with_state(attempt, "Running")
    return attempt.report(
        "Unknown", "Starting", text, record=record, change=(Change(job, {"suspend": False}),), again=PATIENCE
    )


def _over_by_suspension(attempt: Attempt, delete: tuple[Object, ...]) -> Report:
    record = _with_state(attempt, ledger.SUSPENDED).model_copy(
        update={"end_time": attempt.now, "last_step": attempt.training.step, "message": "it was suspended"}
    )
    text = f"attempt {attempt.number} ended by a suspension; the next one goes on from its checkpoint"
    return attempt.report("Unknown", "Suspended", text, record=record, delete=delete, again=0.0)


def _queued(attempt: Attempt, job: Object) -> Report:
    name = next(iter(queue_labels(attempt.run).values()))
    record = _with_state(attempt, ledger.QUEUED)
    text = f"attempt {attempt.number} waits for its queue {name} to admit it"
    if attempt.book.state == ledger.QUEUED or attempt.training.active_since is None:
        return attempt.report("Unknown", "Queued", text, record=record, again=PATIENCE)
    evicted = f"the queue {name} stopped attempt {attempt.number}, whose pods may save; it goes on once it is admitted"
    count = (attempt.training.disruptions or 0) + 1
    training = attempt.training.model_copy(update={"disruptions": count})
    identity = f"{uid(job)}/evicted/{_text(attempt.training.active_since)}"
    told = Occasion(reason="EvictedFromQueue", message=evicted, action="train", warning=True, identity=identity)
    return attempt.report(
        "Unknown", "Queued", text, record=record, training=training, occasions=(told,), again=PATIENCE
    )


def _with_state(attempt: Attempt, state: str) -> AttemptStatus:
    return attempt.book.model_copy(update={"state": state})


def _text(moment: datetime) -> str:
    return moment.isoformat()
