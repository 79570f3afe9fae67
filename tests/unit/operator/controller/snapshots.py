"""Snapshots of runs in every stage, and the shortest way to say what a plan does."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from falcon_operator.api.names import ATTEMPT_LABEL, StageName
from falcon_operator.api.resource import FalconFineTune, spec_hash
from falcon_operator.api.status import (
    AttemptStatus,
    Condition,
    EvaluationStatus,
    FalconFineTuneStatus,
    TrainingStatus,
)
from falcon_operator.controller.flow.children import children
from falcon_operator.controller.flow.course import current_stage, stages_beside
from falcon_operator.controller.flow.report import Plan
from falcon_operator.controller.flow.snapshot import Sight, Snapshot, reference
from falcon_operator.controller.reconcile import reconcile
from falcon_operator.objects import Object
from falcon_operator.stages.settings import StageSettings
from falcon_operator.stages.train import train_job
from falcon_trainer.progress import Progress
from tests.unit.operator.api.runs import ADAPTER, MERGED, a_run, laid_over
from tests.unit.operator.policy.pods import NOW, at, ended, outcome

SETTINGS = StageSettings(image="trainer:test")
ORDER = ("Accepted", "Prepared", "Trained", "Merged", "Serving")
EVALUATION = EvaluationStatus(merged=MERGED.digest, prompts=4, answered=4, changed=3)


def run_at(done: Sequence[str], /, status: Mapping[str, Any] | None = None, **spec: Any) -> FalconFineTune:
    """A run whose conditions `done` are True, with what these stages leave in the status."""
    run = a_run("r", **laid_over({"gang": {"nodes": 2, "gpusPerNode": 0}, "serve": {"replicas": 1}}, spec))
    conditions = [
        Condition(type=kind, status="True", observed_generation=1, last_transition_time=NOW, reason=kind, message="m")
        for kind in done
    ]
    facts: dict[str, Any] = {"conditions": conditions, "observed_generation": 1}
    facts |= {"accepted_spec_hash": spec_hash(run.spec)} if "Accepted" in done else {}
    facts |= {"adapter": ADAPTER} if "Trained" in done else {}
    facts |= {"merged": MERGED} if "Merged" in done else {}
    facts |= {"evaluation": EVALUATION} if "Evaluated" in done else {}
    return run.model_copy(update={"status": FalconFineTuneStatus(**(facts | dict(status or {})))})


def existing(child: Object, **more: Any) -> Object:
    """The child as the API server has it."""
    name = child["metadata"]["name"]
    made = {"uid": f"uid-{name}", "creationTimestamp": at(-60), "resourceVersion": "1", "generation": 1}
    return laid_over(child | {"metadata": child["metadata"] | made}, more)


def stage_objects(run: FalconFineTune, stage: Any) -> list[Object]:
    """All children that the stage wants, as they exist."""
    return [existing(child) for child in children(run, SETTINGS, stage)]


def train_jobs(run: FalconFineTune, *numbers: int, **more: Any) -> dict[int, Object]:
    """The Jobs of these attempts."""
    return {number: existing(train_job(run, SETTINGS, number), **more) for number in numbers}


def snapshot(
    run: FalconFineTune,
    objects: Iterable[Object] = (),
    *,
    attempts: Mapping[int, Object] | None = None,
    pods: Sequence[Object] = (),
    events: Sequence[Object] = (),
    progress: Progress | None = None,
    beside: Mapping[StageName, Sequence[Object]] | None = None,
) -> Snapshot:
    """What was seen of the run; `beside` are the pods of the stages beside the current one."""
    return Snapshot(
        metadata=run.metadata,
        status=run.status,
        run=run,
        objects={reference(obj): obj for obj in objects},
        attempts=dict(attempts or {}),
        pods=pods,
        events=events,
        progress=progress,
        beside={stage: Sight(pods=pods) for stage, pods in (beside or {}).items()},
    )


def at_train(
    *numbers: int,
    pods: Sequence[Object] = (),
    attempts: Sequence[AttemptStatus] = (),
    training: TrainingStatus | None = None,
    progress: Progress | None = None,
    job: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Snapshot:
    """A run that trains, with the Jobs of these attempts; `job` is laid over the newest one."""
    status = {"attempts": list(attempts), "training": training}
    run = run_at(ORDER[:2], status, **spec)
    jobs = train_jobs(run, *numbers)
    if job is not None:
        jobs[max(numbers)] = laid_over(jobs[max(numbers)], job)
    return snapshot(run, stage_objects(run, "train"), attempts=jobs, pods=pods, progress=progress)


def look(seen: Snapshot, now: datetime = NOW) -> Plan:
    """The plan. Whatever was decided, a second look after its status was written must not change the status again."""
    plan = reconcile(seen, SETTINGS, now)
    if plan.status is not None and seen.run is not None:
        written = replace(seen, status=plan.status, run=seen.run.model_copy(update={"status": plan.status}))
        if plan.status.accepted_spec_hash and not _moves_on(seen, written):
            again = reconcile(written, SETTINGS, now)
            assert again.status is None, f"{plan.status}\n{again.status}"
    return plan


def _moves_on(before: Snapshot, after: Snapshot) -> bool:
    """Whether the next look is about other stages, or another step of an attempt."""

    def place(seen: Snapshot) -> object:
        assert seen.run
        true = {each.type for each in seen.status.conditions if each.status == "True" and each.type in ORDER}
        stages = current_stage(seen.run), stages_beside(seen.run)
        return true, stages, [record.end_time for record in seen.status.attempts]

    return place(before) != place(after)


def writes(plan: Plan) -> list[str]:
    """KIND/NAME of what is written, in order; hashes of ConfigMaps are cut off."""
    return [_short(obj) for obj in plan.write]


def deletes(plan: Plan) -> list[str]:
    """KIND/NAME of what is deleted."""
    return [_short(obj) for obj in plan.delete]


def _short(obj: Object) -> str:
    name = str(obj["metadata"]["name"])
    return f"{obj['kind']}/{name.rpartition('-')[0] if obj['kind'] == 'ConfigMap' else name}"


def told(plan: Plan, kind: str) -> tuple[str, str]:
    """Status and reason of a condition in the plan's status."""
    assert plan.status, "the status stays as it was"
    found = next(condition for condition in plan.status.conditions if condition.type == kind)
    return found.status, found.reason


def message(plan: Plan, kind: str) -> str:
    """The message of a condition in the plan's status."""
    assert plan.status, "the status stays as it was"
    return next(condition.message for condition in plan.status.conditions if condition.type == kind)


def finished(name: str, result: Mapping[str, Any] | None, *, index: int | None = None) -> Object:
    """A pod that succeeded and reports this result."""
    return ended(name, 0, outcome("Completed").model_copy(update={"result": result}), index=index)


def attempt_label(obj: Object) -> str:
    """The attempt that a child belongs to."""
    return str(obj["metadata"]["labels"][ATTEMPT_LABEL])
