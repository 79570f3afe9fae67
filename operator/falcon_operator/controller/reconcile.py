"""The decision: from a snapshot of a run to a Plan. Pure: no I/O, no clock, no randomness.

A run goes through its stages in order, and each look asks them in that order: one that is done says so from the
status, the first one that is not tells what to do, and the ones behind it wait. Beside it run those that hold nothing
up. `flow/course.py` says which these are, the rest of `flow/` what a stage concludes, one file a stage; why something
failed or waits, and what follows, is in `policy/`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import Condition, ConditionType, FalconFineTuneStatus, MergeStatus, Stage
from falcon_operator.controller.flow.acceptance import accept, just_accepted
from falcon_operator.controller.flow.alias import with_alias
from falcon_operator.controller.flow.course import (
    CONDITIONS,
    current_stage,
    goes_before,
    needless_jobs,
    stages_beside,
)
from falcon_operator.controller.flow.job_stage import EVALUATE, MERGE, PREPARE, PUBLISH, look
from falcon_operator.controller.flow.pending import PATIENCE
from falcon_operator.controller.flow.report import Occasion, Plan, Report
from falcon_operator.controller.flow.serve import put_away, serve
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.controller.flow.train import train
from falcon_operator.objects import Object
from falcon_operator.policy.conditions import (
    STAGE_CONDITIONS,
    WAITING,
    Finding,
    Summary,
    moving,
    renew,
    summarize,
    suspension,
    wanted,
)
from falcon_operator.stages.naming import stage_name
from falcon_operator.stages.settings import StageSettings

Look = Callable[[Snapshot, FalconFineTune, StageSettings, datetime], Report]
LOOKS: dict[StageName, Look] = {
    "prepare": partial(look, PREPARE),
    "train": train,
    "merge": partial(look, MERGE),
    "serve": serve,
}
BESIDE = {"publish": PUBLISH, "evaluate": EVALUATE}
"""Stages that are never the current one: what must go before them is seen in the reports of the others."""
ENDS = (Stage.SERVING, Stage.SUCCEEDED)


def reconcile(snapshot: Snapshot, settings: StageSettings, now: datetime) -> Plan:
    """What is to be done for a run now. A run that is being deleted is left alone: its children go with their owner."""
    if snapshot.metadata.deletion_timestamp is not None:
        return Plan()
    now = now.replace(microsecond=0)
    story = with_alias(snapshot, list(_story(snapshot, settings, now)))
    reports = [_told_of_refusal(report, snapshot) for report in story]
    found = [report.finding for report in reports]
    summary = summarize(found, _kinds(snapshot), snapshot.status.conditions, _at(snapshot))
    status = _status(snapshot, reports, summary, now)
    changed = status.to_wire() != snapshot.status.to_wire()
    occasions = (occasion for report in reports for occasion in report.occasions)
    return Plan(
        status=status if changed else None,
        occasions=(*_transitions(snapshot, status), *occasions) if changed else (),
        write=tuple(obj for report in reports for obj in report.write),
        change=tuple(change for report in reports for change in report.change),
        delete=(*(obj for report in reports for obj in report.delete), *_put_away(snapshot)),
        again=_again(snapshot, status, reports, summary),
    )


def _again(
    snapshot: Snapshot, status: FalconFineTuneStatus, reports: Sequence[Report], summary: Summary
) -> float | None:
    """A run that has just come to other stages goes on at once; one that has arrived, or waits for a person, is left to
    its events; any other is looked at now and then.
    """
    if snapshot.run and _stages(snapshot.run.model_copy(update={"status": status})) != _stages(snapshot.run):
        return 0.0
    asked = [report.again for report in reports if report.again is not None]
    if asked:
        return min(asked)
    return None if summary.stage in ENDS or summary.here.final or summary.here.paused else PATIENCE


def _at(snapshot: Snapshot) -> ConditionType | None:
    """The stage on the way to the end; the server is the end of a way that leads to one."""
    here = current_stage(snapshot.run) if snapshot.run else None
    return None if here in (None, "serve") else CONDITIONS[here]


def _stages(run: FalconFineTune) -> Sequence[StageName | None]:
    return (current_stage(run), *stages_beside(run))


def _story(snapshot: Snapshot, settings: StageSettings, now: datetime) -> Iterator[Report]:
    """A report of each stage that lies behind, that the run is at, or that runs beside that one."""
    acceptance = accept(snapshot)
    yield acceptance
    run = snapshot.run
    if run is None or not acceptance.finding.done or just_accepted(snapshot):
        return
    here, *beside = _stages(run)
    done: set[ConditionType] = set()
    for stage, kind in CONDITIONS.items():
        if kind not in wanted(run.spec):
            yield from _needless(snapshot, run, stage)
            continue
        if stage == here:
            report = LOOKS[stage](snapshot, run, settings, now)
        elif stage in beside:
            report = _look_beside(stage, snapshot.at(stage), run, settings, now, done)
        elif _is_done(run, kind):
            report = Report(finding=_as_before(run, kind), facts=_learnt(run, kind))
        else:
            continue
        yield report
        if report.finding.done and kind != _at(snapshot):  # what has just ended is in the status of the next look
            done.add(kind)


def _look_beside(
    stage: StageName,
    snapshot: Snapshot,
    run: FalconFineTune,
    settings: StageSettings,
    now: datetime,
    done: set[ConditionType],
) -> Report:
    if stage not in BESIDE:
        return LOOKS[stage](snapshot, run, settings, now)
    after = next((kind for kind in goes_before(run, stage) if kind not in done), None)
    return look(BESIDE[stage], snapshot, run, settings, now, after=after)


def _needless(snapshot: Snapshot, run: FalconFineTune, stage: StageName) -> Iterator[Report]:
    """A stage that the spec asks for no more is told of until its Job is deleted."""
    jobs = {obj["metadata"]["name"] for obj in put_away(snapshot, run) if obj["kind"] == "Job"}
    if stage in needless_jobs(run) and stage_name(run, stage) in jobs:
        text = f"the {stage} stage is not asked for any more: its Job is deleted"
        yield Report(finding=Finding(type=CONDITIONS[stage], status="Unknown", reason="Stopping", message=text))


def _put_away(snapshot: Snapshot) -> tuple[Object, ...]:
    return put_away(snapshot, snapshot.run) if snapshot.run else ()


def _told_of_refusal(report: Report, snapshot: Snapshot) -> Report:
    """A stage whose children are refused says so, while they are tried again."""
    said = snapshot.refusal or ""
    refused = any(f"{obj['kind']} {obj['metadata']['name']}:" in said for obj in report.write)
    if not refused or report.finding.final:
        return report
    finding = replace(report.finding, status="False", reason="ChildRefused", message=said)
    return replace(report, finding=finding)


def _is_done(run: FalconFineTune, kind: ConditionType) -> bool:
    condition = run.status.condition(kind)
    return condition is not None and condition.status == "True"


def _as_before(run: FalconFineTune, kind: ConditionType) -> Finding:
    """A stage that is done stays done: the status is where its result is kept."""
    was = run.status.condition(kind)
    assert was is not None, f"{kind} lies behind the current stage"
    return Finding(type=kind, status="True", reason=was.reason, message=was.message)


def _learnt(run: FalconFineTune, kind: ConditionType) -> dict[str, MergeStatus]:
    """What the status of an older release does not say: of which type the merged model is. It could not be changed
    then, so it is the one that the spec asks for now.
    """
    if kind is not ConditionType.MERGED or run.status.merge is not None:
        return {}
    return {"merge": MergeStatus(dtype=run.spec.merge.dtype)}


def _status(snapshot: Snapshot, reports: Sequence[Report], summary: Summary, now: datetime) -> FalconFineTuneStatus:
    conditions = [*summary.conditions, *_suspension(snapshot, reports, summary)]
    facts = {name: value for report in reports for name, value in report.facts.items()}
    if snapshot.run is not None and not snapshot.run.spec.serve.enabled:
        facts["endpoint"] = None if not put_away(snapshot, snapshot.run) else snapshot.status.endpoint
    generation = snapshot.metadata.generation
    return snapshot.status.model_copy(
        update=facts
        | {
            "observed_generation": generation,
            "stage": str(summary.stage),
            "conditions": renew(snapshot.status.conditions, conditions, generation, now),
        }
    )


def _suspension(snapshot: Snapshot, reports: Sequence[Report], summary: Summary) -> Iterator[Finding]:
    """Only of a run that was ever suspended: of several stages, what stops the last one tells."""
    asked = snapshot.run is not None and snapshot.run.spec.suspend
    if asked or snapshot.status.condition(ConditionType.SUSPENDED):
        found = [report.finding for report in reports]
        paused = (finding for finding in found if finding.paused)
        yield suspension(next(moving(found), next(paused, summary.here)), asked=asked)


def _kinds(snapshot: Snapshot) -> Sequence[ConditionType]:
    """Of a spec that cannot be read, only what the status says already is known."""
    if snapshot.run is not None:
        return wanted(snapshot.run.spec)
    told = [kind for kind in STAGE_CONDITIONS if snapshot.status.condition(kind)]
    return [ConditionType.ACCEPTED, *(kind for kind in told if kind is not ConditionType.ACCEPTED)]


def _transitions(snapshot: Snapshot, status: FalconFineTuneStatus) -> Iterator[Occasion]:
    """An Event for each stage condition whose status or reason changes."""
    for kind in (*STAGE_CONDITIONS, ConditionType.READY):
        was, now = snapshot.status.condition(kind), status.condition(kind)
        if now is None or now.reason == WAITING or (kind is ConditionType.READY and now.status != "True"):
            continue
        if was is None or (was.status, was.reason) != (now.status, now.reason):
            yield _transition(was, now)


def _transition(was: Condition | None, now: Condition) -> Occasion:
    """Its identity names the state that it leaves, so that a repeated write tells nothing twice, and the same
    transition on another day is told again.
    """
    since = was.last_transition_time.isoformat() if was else "new"
    return Occasion(
        reason=now.type if now.status == "True" else now.reason,
        message=now.message,
        action=now.type,
        warning=now.status == "False",
        identity=f"{now.type}/{now.status}/{now.reason}/{since}/{now.observed_generation}",
    )
