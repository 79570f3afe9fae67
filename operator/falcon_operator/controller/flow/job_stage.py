"""Prepare, merge, publish, evaluate: stages of one pod, whose Job tries again by itself.

The status keeps what a stage found out, so a Job is needed only until its result was read. A Job that succeeded but
whose pod is gone, and the result with it, is deleted and made again: the stage finds its manifest and reports. So is a
Job whose pods were told something else than the stage would be told now, however far it came: what it left is found or
replaced by the next one. A podTemplate that changes is no reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow import results
from falcon_operator.controller.flow.children import children, compare, configs_alike
from falcon_operator.controller.flow.course import CONDITIONS
from falcon_operator.controller.flow.gang import still_there
from falcon_operator.controller.flow.hold import held_job, paused
from falcon_operator.controller.flow.pending import PATIENCE, STOPPING, name_conflict, patience, waiting
from falcon_operator.controller.flow.report import Occasion, Report
from falcon_operator.controller.flow.snapshot import Reference, Snapshot
from falcon_operator.objects import Object, holds, status, suspended
from falcon_operator.policy import failure
from falcon_operator.policy.conditions import Finding, waits
from falcon_operator.stages.jobs import told_by
from falcon_operator.stages.naming import stage_name
from falcon_operator.stages.settings import StageSettings

Read = Callable[[FalconFineTune, Mapping[str, Any]], tuple[results.Facts, str]]
"""Makes facts and a sentence of a stage's result; raises ValueError or KeyError where it is something else."""


@dataclass(frozen=True)
class JobStage:
    """A stage of one pod."""

    name: StageName
    read: Read

    @property
    def kind(self) -> ConditionType:
        return CONDITIONS[self.name]


PREPARE = JobStage("prepare", results.prepared)
MERGE = JobStage("merge", results.merged)
PUBLISH = JobStage("publish", results.published)
EVALUATE = JobStage("evaluate", results.evaluated)


def look(
    stage: JobStage,
    snapshot: Snapshot,
    run: FalconFineTune,
    settings: StageSettings,
    now: datetime,
    *,
    after: ConditionType | None = None,
) -> Report:
    """What is known of the stage. `after` is a condition that is not True yet and without which no Job is made, or
    released after a suspension; one that runs goes on.
    """
    name, kind = stage.name, stage.kind
    wanted = children(run, settings, name)
    wanting = compare(snapshot, run, wanted)
    if wanting.conflict:
        return name_conflict(kind, wanting.conflict)
    job = snapshot.objects.get(Reference("Job", stage_name(run, name)))
    if job is None and after:
        return Report(finding=waits(kind, after))
    if job is None and (left := still_there(snapshot.pods, now)):
        text = f"the {name} stage starts when pod {left[0]['metadata']['name']} of a deleted Job has stopped"
        return Report(finding=Finding(type=kind, status="Unknown", reason="Starting", message=text), again=STOPPING)
    if job is None and run.spec.suspend:
        return paused(kind)
    if job and not wanting.leaving:
        if told_by(job) not in configs_alike(run, name, wanted):
            return _made_anew(job, kind, name)
        if after and suspended(job) and not run.spec.suspend:
            return Report(finding=waits(kind, after))
        stopping = len(still_there(snapshot.pods, now))
        if report := held_job(kind, job, stopping, suspend=run.spec.suspend):
            return report
    if job is None or wanting.leaving:
        finding = Finding(type=kind, status="Unknown", reason="Starting", message=f"the {name} stage starts")
        return Report(finding=finding, write=wanting.write, again=PATIENCE)
    if (result := _result(snapshot.pods)) is not None:
        return _done(stage, run, result)
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


def _made_anew(job: Object, kind: ConditionType, stage: StageName) -> Report:
    text = f"what the {stage} stage is asked for has changed: its Job is made anew"
    finding = Finding(type=kind, status="Unknown", reason="Starting", message=text)
    return Report(finding=finding, delete=(job,), again=STOPPING)


def _done(stage: JobStage, run: FalconFineTune, result: Mapping[str, Any]) -> Report:
    try:
        facts, message = stage.read(run, result)
    except (ValueError, KeyError, TypeError) as error:
        return _unknown_result(stage.kind, str(error))
    done = Finding(type=stage.kind, status="True", reason=str(stage.kind), message=message)
    return Report(finding=done, facts=facts)


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
