"""Prepare and merge: stages of one pod, whose Job tries again by itself.

The status keeps what a stage found out, so a Job is needed only until its result was read. A Job that succeeded but
whose pod is gone, and the result with it, is deleted and made again: the stage finds its manifest and reports.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import ConditionType, DatasetStatus, ModelStatus
from falcon_operator.controller.flow.children import children, compare
from falcon_operator.controller.flow.gang import still_there
from falcon_operator.controller.flow.hold import held_job, paused
from falcon_operator.controller.flow.pending import PATIENCE, STOPPING, name_conflict, patience, waiting
from falcon_operator.controller.flow.report import Occasion, Report
from falcon_operator.controller.flow.snapshot import Reference, Snapshot
from falcon_operator.objects import Object, holds, status
from falcon_operator.policy import failure
from falcon_operator.policy.conditions import Finding
from falcon_operator.stages.naming import stage_name
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.config import Artifact

Facts = Mapping[str, Any]


def prepare(snapshot: Snapshot, run: FalconFineTune, settings: StageSettings, now: datetime) -> Report:
    """The prepare stage: records checked and packed, base model at hand."""
    return _look(snapshot, run, settings, now, ("prepare", ConditionType.PREPARED, _prepared))


def merge(snapshot: Snapshot, run: FalconFineTune, settings: StageSettings, now: datetime) -> Report:
    """The merge stage: adapter verified and merged into the base."""
    return _look(snapshot, run, settings, now, ("merge", ConditionType.MERGED, _merged))


def _prepared(result: Mapping[str, Any]) -> tuple[Facts, str]:
    dataset = DatasetStatus.model_validate(result["dataset"])
    model = ModelStatus.model_validate(result.get("model") or {})
    counted = [f"{dataset.records} records", f"{dataset.sequences} rows", f"{dataset.tokens} tokens"]
    return {"dataset": dataset, "model": model}, f"the data is ready: {', '.join(counted)}"


def _merged(result: Mapping[str, Any]) -> tuple[Facts, str]:
    merged = Artifact.model_validate(result["merged"])
    return {"merged": merged}, f"the merged model is verified and lies at {merged.path}"


Read = Callable[[Mapping[str, Any]], tuple[Facts, str]]
"""Makes facts and a sentence of a stage's result; raises ValidationError or KeyError where it is something else."""
Stage = tuple[StageName, ConditionType, Read]


def _look(snapshot: Snapshot, run: FalconFineTune, settings: StageSettings, now: datetime, stage: Stage) -> Report:
    name, kind, read = stage
    wanting = compare(snapshot, run, children(run, settings, name))
    if wanting.conflict:
        return name_conflict(kind, wanting.conflict)
    job = snapshot.objects.get(Reference("Job", stage_name(run, name)))
    if job is None and (left := still_there(snapshot.pods, now)):
        text = f"the {name} stage starts when pod {left[0]['metadata']['name']} of a deleted Job has stopped"
        return Report(finding=Finding(type=kind, status="Unknown", reason="Starting", message=text), again=STOPPING)
    if job is None and run.spec.suspend:
        return paused(kind)
    if job and not wanting.leaving:
        stopping = len(still_there(snapshot.pods, now))
        if report := held_job(kind, job, stopping, suspend=run.spec.suspend):
            return report
    if job is None or wanting.leaving:
        finding = Finding(type=kind, status="Unknown", reason="Starting", message=f"the {name} stage starts")
        return Report(finding=finding, write=wanting.write, again=PATIENCE)
    if (result := _result(snapshot.pods)) is not None:
        return _done(kind, result, read)
    if untold := [pod for pod in snapshot.pods if status(pod).get("phase") == "Succeeded"]:
        return _unknown_result(kind, f"pod {untold[0]['metadata']['name']} succeeded and tells none")
    if holds(job, "Complete") or holds(job, "SuccessCriteriaMet"):
        return _result_lost(job, kind, name)
    if ended := holds(job, "FailureTarget") or holds(job, "Failed"):
        return Report(finding=_failed(kind, name, run, snapshot.pods, str(ended.get("message"))))
    finding = _under_way(snapshot, kind, name, now)
    return Report(finding=finding, write=wanting.write, again=patience(snapshot.pods, job, now))


def _result(pods: Sequence[Object]) -> dict[str, Any] | None:
    return next((found for pod in pods if (found := failure.result_of(pod)) is not None), None)


def _done(kind: ConditionType, result: Mapping[str, Any], read: Read) -> Report:
    try:
        facts, message = read(result)
    except (ValidationError, KeyError) as error:
        return _unknown_result(kind, str(error))
    return Report(finding=Finding(type=kind, status="True", reason=str(kind), message=message), facts=facts)


def _unknown_result(kind: ConditionType, detail: str) -> Report:
    """Running the stage again would tell the same."""
    text = f"the stage's result is not what this operator knows, do the two images belong together? {detail}"
    return Report(finding=Finding(type=kind, status="False", reason="UnknownResult", message=text, final=True))


def _result_lost(job: Object, kind: ConditionType, stage: StageName) -> Report:
    text = f"the {stage} stage succeeded, but its pod is gone and its result with it: it runs again and reports"
    told = Occasion(reason="ResultLost", message=text, action=stage, warning=True, identity=job["metadata"]["uid"])
    finding = Finding(type=kind, status="Unknown", reason="ResultLost", message=text)
    return Report(finding=finding, delete=(job,), occasions=(told,), again=PATIENCE)


def _failed(kind: ConditionType, stage: StageName, run: FalconFineTune, pods: Sequence[Object], said: str) -> Finding:
    why = _newest_failure(pods)
    reason, message = (why.reason, why.message) if why else ("JobFailed", f"the {stage} Job failed: {said}")
    command = f"kubectl delete job {stage_name(run, stage)} -n {run.namespace}"
    text = f"{message.rstrip('. ')}. Once that is mended, `{command}` runs the stage again"
    return Finding(type=kind, status="False", reason=reason, message=text, final=True)


def _newest_failure(pods: Sequence[Object]) -> failure.Failure | None:
    """Of several pods that failed, the last one tells why the Job gave up."""
    found = [why for pod in pods if (why := failure.of_pod(pod))]
    return max(found, key=lambda why: (why.time.timestamp() if why.time else 0.0, not why.retryable), default=None)


def _under_way(snapshot: Snapshot, kind: ConditionType, stage: StageName, now: datetime) -> Finding:
    if problem := waiting(snapshot, now):
        return Finding(type=kind, status="False", reason=problem.reason, message=problem.message)
    running = [pod for pod in snapshot.pods if status(pod).get("phase") == "Running"]
    if not running and (why := _newest_failure(snapshot.pods)):
        text = f"{why.message.rstrip('. ')}. The stage is tried again"
        return Finding(type=kind, status="Unknown", reason=why.reason, message=text)
    if not running:
        return Finding(type=kind, status="Unknown", reason="Starting", message=f"the {stage} pod starts")
    said = snapshot.progress
    detail = f": {said.phase}" + (f", {said.message}" if said.message else "") if said else ""
    return Finding(type=kind, status="Unknown", reason="Running", message=f"the {stage} pod runs{detail}")
