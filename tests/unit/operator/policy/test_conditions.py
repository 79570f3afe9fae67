"""Ready, Reconciling, Stalled and the stage word, from what the stages say."""

from datetime import timedelta

import pytest

from falcon_operator.api.status import Condition, ConditionType, Stage
from falcon_operator.policy.conditions import Finding, State, renew, summarize, wanted
from tests.unit.operator.api.runs import a_run
from tests.unit.operator.policy.pods import NOW

ACCEPTED, PREPARED, TRAINED = ConditionType.ACCEPTED, ConditionType.PREPARED, ConditionType.TRAINED
MERGED, SERVING = ConditionType.MERGED, ConditionType.SERVING
PUBLISHED, EVALUATED = ConditionType.PUBLISHED, ConditionType.EVALUATED
WAY = (ACCEPTED, PREPARED, TRAINED, MERGED, SERVING)
WHOLE = (*WAY, EVALUATED)
SERVE_OFF = WAY[:4]
ADAPTER_ONLY = WAY[:3]
WITH_COPIES = (*WAY, PUBLISHED, EVALUATED)


def said(kind: ConditionType, status: State = "True", reason: str = "R", *, final: bool = False) -> Finding:
    return Finding(type=kind, status=status, reason=reason, message="m", final=final)


def held(kind: ConditionType) -> Finding:
    return Finding(type=kind, status="Unknown", reason="Suspended", message="m", paused=True)


def done(*kinds: ConditionType) -> list[Finding]:
    return [said(kind) for kind in kinds]


Case = tuple[tuple[ConditionType, ...], list[Finding], Stage, str, str, str]
"""Wanted conditions, findings, stage word, then the status of Ready, Reconciling, Stalled."""

CASES: dict[str, Case] = {
    "just accepted": (WHOLE, done(ACCEPTED), Stage.PENDING, "False", "True", "False"),
    "refused": (WHOLE, [said(ACCEPTED, "False", final=True)], Stage.FAILED, "False", "False", "True"),
    "prepares": (WHOLE, [*done(ACCEPTED), said(PREPARED, "Unknown")], Stage.PREPARING, "False", "True", "False"),
    "waits for an image while it prepares": (
        WHOLE,
        [*done(ACCEPTED), said(PREPARED, "False", "ImagePullBackOff")],
        Stage.PREPARING,
        "False",
        "True",
        "False",
    ),
    "bad data": (
        WHOLE,
        [*done(ACCEPTED), said(PREPARED, "False", "InvalidRecord", final=True)],
        Stage.FAILED,
        "False",
        "False",
        "True",
    ),
    "trains": (WHOLE, [*done(*WHOLE[:2]), said(TRAINED, "Unknown")], Stage.TRAINING, "False", "True", "False"),
    "restarts are used up": (
        WHOLE,
        [*done(*WHOLE[:2]), said(TRAINED, "False", "RestartsExhausted", final=True)],
        Stage.FAILED,
        "False",
        "False",
        "True",
    ),
    "trained, merge comes next": (WHOLE, done(*ADAPTER_ONLY), Stage.TRAINING, "False", "True", "False"),
    "merges": (WHOLE, [*done(*ADAPTER_ONLY), said(MERGED, "Unknown")], Stage.MERGING, "False", "True", "False"),
    "rolls out": (WHOLE, [*done(*SERVE_OFF), said(SERVING, "Unknown")], Stage.DEPLOYING, "False", "True", "False"),
    "a server that was lost is on its way back": (
        WHOLE,
        [*done(*SERVE_OFF), said(SERVING, "False", "Unschedulable")],
        Stage.DEPLOYING,
        "False",
        "True",
        "False",
    ),
    "serves": (WHOLE, done(*WHOLE), Stage.SERVING, "True", "False", "False"),
    "serves, and is not evaluated yet": (WHOLE, done(*WAY), Stage.SERVING, "True", "False", "False"),
    "serves, and its evaluation failed": (
        WHOLE,
        [*done(*WAY), said(EVALUATED, "False", "NoAnswer", final=True)],
        Stage.SERVING,
        "True",
        "False",
        "False",
    ),
    "merges anew while the old model is served": (
        WHOLE,
        [*done(*ADAPTER_ONLY), said(MERGED, "Unknown"), said(SERVING)],
        Stage.MERGING,
        "False",
        "True",
        "False",
    ),
    "the new merge failed while the old model is served": (
        WHOLE,
        [*done(*ADAPTER_ONLY), said(MERGED, "False", "DiskFull", final=True), said(SERVING)],
        Stage.FAILED,
        "False",
        "False",
        "True",
    ),
    "serves while it publishes": (
        WITH_COPIES,
        [*done(*WAY), said(PUBLISHED, "Unknown")],
        Stage.PUBLISHING,
        "False",
        "True",
        "False",
    ),
    "rolls out, and cannot publish": (
        WITH_COPIES,
        [*done(*SERVE_OFF), said(SERVING, "Unknown"), said(PUBLISHED, "False", final=True)],
        Stage.DEPLOYING,
        "False",
        "True",
        "False",
    ),
    "serves, and cannot publish": (
        WITH_COPIES,
        [*done(*WAY), said(PUBLISHED, "False", final=True)],
        Stage.FAILED,
        "False",
        "False",
        "True",
    ),
    "has published its adapter before the merge begins": (
        WITH_COPIES,
        done(*ADAPTER_ONLY, PUBLISHED),
        Stage.TRAINING,
        "False",
        "True",
        "False",
    ),
    "serves and has published": (WITH_COPIES, done(*WITH_COPIES), Stage.SERVING, "True", "False", "False"),
    "has published what nobody serves": (
        (*SERVE_OFF, PUBLISHED),
        done(*SERVE_OFF, PUBLISHED),
        Stage.SUCCEEDED,
        "True",
        "False",
        "False",
    ),
    "is suspended": (
        WITH_COPIES,
        [*done(*SERVE_OFF), held(SERVING), held(PUBLISHED)],
        Stage.SUSPENDED,
        "False",
        "False",
        "False",
    ),
    "is suspended, and its copying has not stopped yet": (
        WITH_COPIES,
        [*done(*SERVE_OFF), held(SERVING), said(PUBLISHED, "Unknown", "Suspending")],
        Stage.PUBLISHING,
        "False",
        "True",
        "False",
    ),
    "merged, no server wanted": (SERVE_OFF, done(*SERVE_OFF), Stage.SUCCEEDED, "True", "False", "False"),
    "an adapter and nothing more wanted": (
        ADAPTER_ONLY,
        done(*ADAPTER_ONLY),
        Stage.SUCCEEDED,
        "True",
        "False",
        "False",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_follows_for_the_run(case: str) -> None:
    needed, found, stage, ready, reconciling, stalled = CASES[case]
    summary = summarize(found, needed, [])
    states = {finding.type: finding.status for finding in summary.conditions}
    assert summary.stage == stage
    assert states[ConditionType.READY] == ready
    assert states[ConditionType.RECONCILING] == reconciling
    assert states[ConditionType.STALLED] == stalled
    assert set(needed) < set(states), "each wanted condition is told from the first look on"


def test_a_run_that_has_just_merged_anew_is_not_ready_because_the_model_before_is_served() -> None:
    summary = summarize(done(*WITH_COPIES), WITH_COPIES, [], MERGED)
    states = {finding.type: finding.status for finding in summary.conditions}
    assert (states[ConditionType.READY], states[SERVING], summary.stage) == ("False", "True", Stage.MERGING)
    assert summarize(done(*WITH_COPIES), WITH_COPIES, []).stage == Stage.SERVING


def test_a_ready_run_says_where_it_answers_and_not_what_came_last() -> None:
    url = Finding(type=SERVING, status="True", reason="Available", message="served at URL")
    summary = summarize([*done(*SERVE_OFF), url, *done(PUBLISHED, EVALUATED)], WITH_COPIES, [])
    (ready,) = (finding for finding in summary.conditions if finding.type is ConditionType.READY)
    assert (ready.reason, ready.message) == ("Serving", "served at URL")


def test_conditions_are_told_in_one_order() -> None:
    """Whatever was found out of them: the status would be written again and again."""
    found = [*done(*SERVE_OFF), said(SERVING, "Unknown")]
    stages = [
        [finding.type for finding in summarize(told, WITH_COPIES, []).conditions][: len(WITH_COPIES)]
        for told in (found, [*found, said(PUBLISHED, "Unknown")], [*found, said(EVALUATED, "Unknown")])
    ]
    assert stages == [list(WITH_COPIES)] * 3


def test_the_reason_of_the_stage_is_the_reason_of_the_run() -> None:
    summary = summarize([*done(ACCEPTED), said(PREPARED, "False", "ImagePullBackOff")], WHOLE, [])
    reasons = {finding.type: finding.reason for finding in summary.conditions}
    assert reasons[ConditionType.READY] == reasons[ConditionType.RECONCILING] == "ImagePullBackOff"
    assert reasons[TRAINED] == "Waiting"


def test_a_refused_change_undoes_no_stage() -> None:
    old = renew([], summarize(done(*ADAPTER_ONLY), WHOLE, []).conditions, 1, NOW)
    summary = summarize([said(ACCEPTED, "False", final=True)], WHOLE, old)
    states = {finding.type: finding.status for finding in summary.conditions}
    assert (states[PREPARED], states[TRAINED], states[MERGED]) == ("True", "True", "Unknown")


def test_the_wanted_conditions_follow_from_the_spec() -> None:
    assert wanted(a_run().spec) == WHOLE
    assert wanted(a_run(serve={"enabled": False}).spec) == SERVE_OFF
    assert wanted(a_run(serve={"enabled": False}, merge={"enabled": False}).spec) == ADAPTER_ONLY
    assert wanted(a_run(publish=[{"uri": "s3://models/bot"}]).spec) == WITH_COPIES
    assert wanted(a_run(publish=[]).spec) == WHOLE


def test_the_time_of_a_transition_moves_with_the_status_alone() -> None:
    later = NOW + timedelta(minutes=5)
    first = renew([], [said(PREPARED, "Unknown", "Starting")], 1, NOW)
    second = renew(first, [said(PREPARED, "Unknown", "Running")], 2, later)
    third = renew(second, [said(PREPARED, "True", "Prepared")], 2, later)
    assert [each[0].last_transition_time for each in (first, second, third)] == [NOW, NOW, later]
    assert second[0].observed_generation == 2


def test_conditions_of_others_stay_and_those_of_unwanted_stages_go() -> None:
    other = Condition(type="Foreign", status="True", last_transition_time=NOW, reason="R", message="m")
    old = [*renew([], done(*WHOLE), 1, NOW), other]
    kinds = [condition.type for condition in renew(old, done(*ADAPTER_ONLY), 1, NOW)]
    assert kinds == [*ADAPTER_ONLY, "Foreign"]
