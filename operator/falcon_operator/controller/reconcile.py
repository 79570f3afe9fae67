"""The decision: from a snapshot of a run to a Plan. Pure: no I/O, no clock, no randomness.

A run goes through its stages in order, and each look asks them in that order: one that is done says so from the
status, the first one that is not tells what to do, and the ones behind it wait. What a stage concludes is in `flow/`,
one file a stage; why something failed or waits, and what follows, is in `policy/`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import Condition, ConditionType, FalconFineTuneStatus, Stage
from falcon_operator.controller.flow.acceptance import accept, just_accepted
from falcon_operator.controller.flow.children import current_stage
from falcon_operator.controller.flow.job_stage import merge, prepare
from falcon_operator.controller.flow.pending import PATIENCE
from falcon_operator.controller.flow.report import Occasion, Plan, Report
from falcon_operator.controller.flow.serve import put_away, serve
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.controller.flow.train import train
from falcon_operator.policy.conditions import STAGE_CONDITIONS, Finding, renew, summarize, suspension, wanted
from falcon_operator.stages.settings import StageSettings

LOOKS = {"prepare": prepare, "train": train, "merge": merge, "serve": serve}
ENDS = (Stage.SERVING, Stage.SUCCEEDED)
CONDITIONS = {
    "prepare": ConditionType.PREPARED,
    "train": ConditionType.TRAINED,
    "merge": ConditionType.MERGED,
    "serve": ConditionType.SERVING,
}


def reconcile(snapshot: Snapshot, settings: StageSettings, now: datetime) -> Plan:
    """What is to be done for a run now. A run that is being deleted is left alone: its children go with their owner."""
    if snapshot.metadata.deletion_timestamp is not None:
        return Plan()
    now = now.replace(microsecond=0)
    reports = [_told_of_refusal(report, snapshot) for report in _story(snapshot, settings, now)]
    status = _status(snapshot, reports, now)
    changed = status.to_wire() != snapshot.status.to_wire()
    last = reports[-1]
    return Plan(
        status=status if changed else None,
        occasions=(*_transitions(snapshot, status), *last.occasions) if changed else (),
        write=last.write,
        change=last.change,
        delete=(*last.delete, *(put_away(snapshot, snapshot.run) if snapshot.run else ())),
        again=_again(last, changed=changed, ready=str(status.stage) in ENDS),
    )


def _again(last: Report, *, changed: bool, ready: bool) -> float | None:
    """A run that has arrived, or waits for a person, is left to its events; one that has just finished a stage goes on
    at once; any other is looked at now and then.
    """
    if last.again is not None or ready or last.finding.final or last.finding.paused:
        return last.again
    return 0.0 if changed and last.finding.done else PATIENCE


def _story(snapshot: Snapshot, settings: StageSettings, now: datetime) -> Iterator[Report]:
    """A report of each stage up to the one that the run is at."""
    acceptance = accept(snapshot)
    yield acceptance
    if snapshot.run is None or not acceptance.finding.done or just_accepted(snapshot):
        return
    here = current_stage(snapshot.run)
    for stage, kind in CONDITIONS.items():
        if kind not in wanted(snapshot.run.spec):
            continue
        if stage == here:
            yield LOOKS[stage](snapshot, snapshot.run, settings, now)
            return
        yield Report(finding=_as_before(snapshot.run, kind))


def _told_of_refusal(report: Report, snapshot: Snapshot) -> Report:
    """A stage whose children are refused says so, while they are tried again."""
    if not report.write or snapshot.refusal is None or report.finding.final:
        return report
    finding = replace(report.finding, status="False", reason="ChildRefused", message=snapshot.refusal)
    return replace(report, finding=finding)


def _as_before(run: FalconFineTune, kind: ConditionType) -> Finding:
    """A stage that is done stays done: the status is where its result is kept."""
    was = run.status.condition(kind)
    assert was is not None, f"{kind} lies behind the current stage"
    return Finding(type=kind, status="True", reason=was.reason, message=was.message)


def _status(snapshot: Snapshot, reports: Sequence[Report], now: datetime) -> FalconFineTuneStatus:
    found = [report.finding for report in reports]
    summary = summarize(found, _needed(snapshot), snapshot.status.conditions)
    conditions = [*summary.conditions, *_suspension(snapshot, found[-1])]
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


def _suspension(snapshot: Snapshot, here: Finding) -> Iterator[Finding]:
    """Only of a run that was ever suspended."""
    asked = snapshot.run is not None and snapshot.run.spec.suspend
    if asked or snapshot.status.condition(ConditionType.SUSPENDED):
        yield suspension(here, asked=asked)


def _needed(snapshot: Snapshot) -> Sequence[ConditionType]:
    """Of a spec that cannot be read, only what the status says already is known."""
    if snapshot.run is not None:
        return wanted(snapshot.run.spec)
    told = [kind for kind in STAGE_CONDITIONS if snapshot.status.condition(kind)]
    return [ConditionType.ACCEPTED, *(kind for kind in told if kind is not ConditionType.ACCEPTED)]


def _transitions(snapshot: Snapshot, status: FalconFineTuneStatus) -> Iterator[Occasion]:
    """An Event for each stage condition whose status or reason changes."""
    for kind in (*STAGE_CONDITIONS, ConditionType.READY):
        was, now = snapshot.status.condition(kind), status.condition(kind)
        if now is None or now.reason == "Waiting" or (kind is ConditionType.READY and now.status != "True"):
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
