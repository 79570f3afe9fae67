"""The conditions of a run: what its stages say, and Ready, Reconciling, Stalled, which follow from that.

kstatus' meaning: Ready is True when the run is where its spec wants it to be; Reconciling while the operator still
works on that; Stalled when it cannot go on without a person. Of a stage, True means done, Unknown under way or not
reached, False that something is wrong (and, while Stalled is not True, that the run goes on by itself once it is
mended).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from falcon_operator.api.spec import FalconFineTuneSpec
from falcon_operator.api.status import Condition, ConditionType, Stage

State = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of one stage condition."""

    type: ConditionType
    status: State
    reason: str
    message: str
    final: bool = False
    """Whether the run cannot go on without a person."""
    paused: bool = False
    """Whether nothing runs because the run is suspended."""

    @property
    def done(self) -> bool:
        return self.status == "True"


@dataclass(frozen=True)
class Summary:
    """What follows for the run as a whole."""

    stage: Stage
    conditions: tuple[Finding, ...]


WORDS = {
    ConditionType.ACCEPTED: Stage.PENDING,
    ConditionType.PREPARED: Stage.PREPARING,
    ConditionType.TRAINED: Stage.TRAINING,
    ConditionType.MERGED: Stage.MERGING,
    ConditionType.SERVING: Stage.DEPLOYING,
}
"""The word for a run whose first condition that is not True is this one."""

STAGE_CONDITIONS = tuple(WORDS)
SUMMARY = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)


def wanted(spec: FalconFineTuneSpec) -> tuple[ConditionType, ...]:
    """The conditions that must be True for Ready, in their order."""
    chosen = {ConditionType.MERGED: spec.merge.enabled, ConditionType.SERVING: spec.serve.enabled}
    return tuple(kind for kind in STAGE_CONDITIONS if chosen.get(kind, True))


def summarize(found: Sequence[Finding], needed: Sequence[ConditionType], old: Sequence[Condition]) -> Summary:
    """All conditions of a run. `found` holds one finding for each of the first of `needed`, the last one being the
    stage that the run is at. Later stages wait, except one that was done already (a spec that was changed into an
    invalid one undoes nothing): it keeps its condition of `old`.
    """
    here = found[-1]
    done = {condition.type: condition for condition in old if condition.status == "True"}
    waiting = tuple(_waits(kind, here, done.get(kind)) for kind in needed[len(found) :])
    ready, word = _ready(here, complete=len(found) == len(needed), needed=needed)
    return Summary(word, (*found, *waiting, ready, _reconciling(ready, here), _stalled(here)))


def _ready(here: Finding, *, complete: bool, needed: Sequence[ConditionType]) -> tuple[Finding, Stage]:
    kind = ConditionType.READY
    if here.done and complete:
        if ConditionType.SERVING in needed:
            return Finding(type=kind, status="True", reason="Serving", message=here.message), Stage.SERVING
        return Finding(type=kind, status="True", reason="Completed", message=here.message), Stage.SUCCEEDED
    word = Stage.FAILED if here.final else Stage.SUSPENDED if here.paused else WORDS[here.type]
    return Finding(type=kind, status="False", reason=here.reason, message=here.message), word


def _reconciling(ready: Finding, here: Finding) -> Finding:
    kind = ConditionType.RECONCILING
    if ready.done:
        return Finding(type=kind, status="False", reason="Ready", message="the run is where its spec wants it to be")
    if here.final:
        return Finding(type=kind, status="False", reason="Stalled", message="the run waits for a person, see Stalled")
    if here.paused:
        return Finding(type=kind, status="False", reason="Suspended", message=here.message)
    return Finding(type=kind, status="True", reason=here.reason, message=here.message)


def _stalled(here: Finding) -> Finding:
    if here.final:
        return Finding(type=ConditionType.STALLED, status="True", reason=here.reason, message=here.message)
    return Finding(type=ConditionType.STALLED, status="False", reason="Progressing", message="nothing needs a person")


def suspension(here: Finding, *, asked: bool) -> Finding:
    """The condition of a run that is, or was, suspended."""
    kind = ConditionType.SUSPENDED
    if here.paused:
        return Finding(type=kind, status="True", reason="Suspended", message=here.message)
    if asked and not here.final:
        return Finding(type=kind, status="False", reason="Suspending", message=here.message)
    return Finding(type=kind, status="False", reason="Running", message="the run is not suspended")


def _waits(kind: ConditionType, here: Finding, done: Condition | None) -> Finding:
    if done:
        return Finding(type=kind, status="True", reason=done.reason, message=done.message)
    return Finding(type=kind, status="Unknown", reason="Waiting", message=f"follows when {here.type} is True")


def renew(old: Iterable[Condition], found: Iterable[Finding], generation: int, now: datetime) -> list[Condition]:
    """The condition list that says what `found` says. The time of a transition moves only when a status changes;
    conditions of stages that are no longer wanted go, conditions of others' making stay.
    """
    before = {condition.type: condition for condition in old}
    ours = {str(kind) for kind in (*STAGE_CONDITIONS, *SUMMARY, ConditionType.SUSPENDED)}
    kept = [condition for kind, condition in before.items() if kind not in ours]
    return [_renewed(before.get(finding.type), finding, generation, now) for finding in found] + kept


def _renewed(was: Condition | None, finding: Finding, generation: int, now: datetime) -> Condition:
    return Condition(
        type=finding.type,
        status=finding.status,
        observed_generation=generation,
        last_transition_time=was.last_transition_time if was and was.status == finding.status else now,
        reason=finding.reason,
        message=finding.message[:4096],
    )
