"""Train: one attempt of the gang after the other, until rank 0 reports an adapter or nothing more can be tried.

no attempt ──► Job 1 ──► runs ──► rank 0 reports an adapter: Trained
                           │
                           ▼ a pod failed, was deleted, or is lost
                         ending: why is written down, the other pods are asked to stop and may save
                           │
                           ▼ all pods are gone
                         ended: counted, and the time of the next attempt written down ──► Job 2 ──► …
"""

from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import AttemptStatus, ConditionType, TrainingStatus
from falcon_operator.controller.flow import gang, ledger
from falcon_operator.controller.flow.attempt import Attempt, start
from falcon_operator.controller.flow.attempt_end import between, ending, seconds_left, why_it_ends
from falcon_operator.controller.flow.children import children, compare, newest_attempt
from falcon_operator.controller.flow.hold import held_attempt, paused
from falcon_operator.controller.flow.pending import PATIENCE, name_conflict, patience, waiting
from falcon_operator.controller.flow.report import Report
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object, status
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.config import Artifact


def train(snapshot: Snapshot, run: FalconFineTune, settings: StageSettings, now: datetime) -> Report:
    """The train stage."""
    wanting = compare(snapshot, run, children(run, settings, "train"))
    if wanting.conflict:
        return name_conflict(ConditionType.TRAINED, wanting.conflict)
    number = newest_attempt(run.status, dict(snapshot.attempts))
    before = run.status.training or TrainingStatus()
    job = snapshot.attempts.get(number)
    present = _present(snapshot, job)
    attempt = Attempt(
        snapshot=present,
        run=run,
        settings=settings,
        now=now,
        number=number,
        job=job,
        record=_record(snapshot, run, number, before) if number else None,
        training=ledger.reached(ledger.advanced(before, snapshot.progress), gang.outcomes(present.pods)),
        support=wanting,
    )
    if number == 0:
        return paused(ConditionType.TRAINED) if run.spec.suspend else start(attempt, "the first attempt starts")
    return _look(attempt)


def _record(snapshot: Snapshot, run: FalconFineTune, number: int, before: TrainingStatus) -> AttemptStatus:
    record = ledger.record_of(run.status.attempts, number, snapshot.attempts.get(number), before)
    return ledger.placed(ledger.resumed(record, snapshot.progress), snapshot.pods)


def _present(snapshot: Snapshot, job: Object | None) -> Snapshot:
    return replace(snapshot, pods=gang.of_incarnation(snapshot.pods, job))


def _look(attempt: Attempt) -> Report:
    if attempt.book.end_time is not None:
        return between(attempt)
    if (result := gang.result(attempt.snapshot.pods)) is not None:
        return _succeeded(attempt, result)
    if gang.tells_nothing(attempt.snapshot.pods):
        return _unknown_result(attempt, "rank 0's pod succeeded and tells no adapter")
    if report := held_attempt(attempt):
        return report
    if why := why_it_ends(attempt):
        return ending(attempt, why)
    return _running(attempt)


def _succeeded(attempt: Attempt, result: dict[str, object]) -> Report:
    try:
        adapter = Artifact.model_validate(result["adapter"])
    except ValidationError as error:
        return _unknown_result(attempt, str(error))
    training = ledger.completed(attempt.training, result)
    record = attempt.book.model_copy(
        update={
            "state": "Succeeded",
            "end_time": attempt.now,
            "last_step": training.step,
            "reason": None,
            "message": None,
            "retryable": None,
        }
    )
    text = f"attempt {attempt.number} trained the adapter {adapter.path} ({adapter.bytes} bytes)"
    return attempt.report("True", "Trained", text, record=record, training=training, facts={"adapter": adapter})


def _unknown_result(attempt: Attempt, detail: str) -> Report:
    text = f"the stage's result is not what this operator knows, do the two images belong together? {detail}"
    return attempt.report("False", "UnknownResult", text, final=True)


def _running(attempt: Attempt) -> Report:
    pods, job, nodes = attempt.snapshot.pods, attempt.job, attempt.nodes
    assert job is not None, "an attempt without a Job is ending"
    record = ledger.released(attempt.book)
    again = min(patience(pods, job, attempt.now), seconds_left(attempt) or PATIENCE)
    if problem := waiting(attempt.snapshot, attempt.now):
        return attempt.report("False", problem.reason, problem.message, record=record, again=again)
    if not gang.running(pods, nodes):
        up = sum(status(pod).get("phase") == "Running" for pod in pods)
        text = f"attempt {attempt.number} starts: {up} of {nodes} pods run"
        return attempt.report("Unknown", "Starting", text, record=record, again=again)
    said = attempt.snapshot.progress
    text = f"attempt {attempt.number} runs" + (f": {said.phase}" if said else "")
    return attempt.report("Unknown", "Running", text, record=record, again=again)
