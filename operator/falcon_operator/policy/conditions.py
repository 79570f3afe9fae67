"""The conditions of a run: what its stages say, and Ready, Reconciling, Stalled, which follow from that.

kstatus' meaning: Ready is True when the run is where its spec wants it to be; Reconciling while the operator still
works on that; Stalled when it cannot go on without a person. Of a stage, True means done, Unknown under way or not
reached, False that something is wrong (and, while Stalled is not True, that the run goes on by itself once it is
mended).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from falcon_operator.api.spec import FalconFineTuneSpec
from falcon_operator.api.status import Condition, ConditionType, Stage

State = Literal["True", "False", "Unknown"]
WAITING = "Waiting"
"""Reason of a stage that another one goes before."""


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

    @property
    def waits(self) -> bool:
        """Whether another stage goes before."""
        return self.reason == WAITING


@dataclass(frozen=True)
class Summary:
    """What follows for the run as a whole."""

    stage: Stage
    here: Finding
    """What the run is at: of the conditions that Ready needs, the first one that is not True."""
    conditions: tuple[Finding, ...]


WORDS = {
    ConditionType.ACCEPTED: Stage.PENDING,
    ConditionType.PREPARED: Stage.PREPARING,
    ConditionType.TRAINED: Stage.TRAINING,
    ConditionType.MERGED: Stage.MERGING,
    ConditionType.SERVING: Stage.DEPLOYING,
    ConditionType.PUBLISHED: Stage.PUBLISHING,
}
"""The word for a run whose first condition that is not True is this one: those that Ready needs."""

STAGE_CONDITIONS = (*WORDS, ConditionType.EVALUATED)
"""In the order in which they are told. The evaluation is a look at a server that answers already: one that fails is
told, and takes nothing away from Ready.
"""
SUMMARY = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)


def wanted(spec: FalconFineTuneSpec) -> tuple[ConditionType, ...]:
    """The stage conditions of a run with this spec, in their order."""
    chosen = {
        ConditionType.MERGED: spec.merge.enabled,
        ConditionType.SERVING: spec.serve.enabled,
        ConditionType.PUBLISHED: bool(spec.publish),
        ConditionType.EVALUATED: spec.serve.enabled,
    }
    return tuple(kind for kind in STAGE_CONDITIONS if chosen.get(kind, True))


def summarize(
    found: Sequence[Finding],
    kinds: Sequence[ConditionType],
    old: Sequence[Condition],
    at: ConditionType | None = None,
) -> Summary:
    """All conditions of a run that has stage conditions of these `kinds`. `found` holds what was found out of some of
    them, the first one always. The others wait, except one that was done already (a spec that was changed into an
    invalid one undoes nothing): it keeps its condition of `old`.

    `at` is the stage that the run is at, None at the end of its way. What is found of stages behind it is of an earlier
    result, so a run whose new merge has just ended is not Ready because the model before is served.
    """
    told = {finding.type: finding for finding in found}
    needed = [kind for kind in kinds if kind in WORDS]
    here = _here(told, needed, at)
    done = {condition.type: condition for condition in old if condition.status == "True"}
    stages = [told.get(kind) or _waits(kind, here, done.get(kind)) for kind in kinds]
    leaving = [finding for finding in found if finding.type not in kinds]
    complete = at is None and all(kind in told and told[kind].done for kind in needed)
    ready, word = _ready(here, told, complete=complete)
    return Summary(word, here, (*stages, *leaving, ready, _reconciling(ready, here), _stalled(here)))


def _here(told: Mapping[ConditionType, Finding], needed: Sequence[ConditionType], at: ConditionType | None) -> Finding:
    """The first one that is not done; where nothing is known of it yet, the last one that is. A run that is being
    suspended is at what still stops.
    """
    here = told[needed[0]]
    for kind in needed:
        if kind not in told or not here.done or here.type == at:
            break
        here = told[kind]
    return next(moving(told[kind] for kind in needed if kind in told), here) if here.paused else here


def moving(found: Iterable[Finding]) -> Iterator[Finding]:
    """Those whose pods may be at work."""
    return (finding for finding in found if not (finding.done or finding.final or finding.paused or finding.waits))


def _ready(here: Finding, told: Mapping[ConditionType, Finding], *, complete: bool) -> tuple[Finding, Stage]:
    kind = ConditionType.READY
    if complete:
        if serving := told.get(ConditionType.SERVING):
            return Finding(type=kind, status="True", reason="Serving", message=serving.message), Stage.SERVING
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
    return waits(kind, here.type)


def waits(kind: ConditionType, before: ConditionType) -> Finding:
    """Of a stage that another one goes before."""
    return Finding(type=kind, status="Unknown", reason=WAITING, message=f"follows when {before} is True")


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
