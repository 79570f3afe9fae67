"""Looks at a run that trains: how attempts end, and what follows."""

from datetime import timedelta
from typing import Any

import pytest

from falcon_operator.api.names import KIND
from falcon_operator.api.status import TrainingStatus
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object
from falcon_operator.stages.train import train_job
from tests.unit.operator.controller.attempts import (
    BOTH,
    COMPLETE,
    CRASH,
    FAILING,
    FINAL,
    GONE,
    record,
    records,
)
from tests.unit.operator.controller.snapshots import (
    ORDER,
    SETTINGS,
    at_train,
    deletes,
    existing,
    finished,
    look,
    message,
    run_at,
    snapshot,
    stage_objects,
    told,
    train_jobs,
    writes,
)
from tests.unit.operator.policy.pods import NOW, deleted, ended, outcome, pod

# --- an attempt that is bound to end


Ending = tuple[Snapshot, tuple[str, str], list[str]]
"""What is seen; state and reason in the record; what is deleted."""

ENDINGS: dict[str, Ending] = {
    "a pod failed, and the Job controller has seen it": (
        at_train(1, pods=[ended("a", 70, CRASH, index=0), pod("b", index=1)], job=FAILING),
        ("Faulted", "InternalError"),
        [],
    ),
    "a pod failed, and the Job controller has not seen it yet": (
        at_train(1, pods=[ended("a", 70, CRASH, index=0), pod("b", index=1)]),
        ("Faulted", "InternalError"),
        ["Pod/b"],
    ),
    "a pod is being deleted where the Job controller sees nothing": (
        at_train(1, pods=[deleted(pod("a", index=0)), pod("b", index=1)]),
        ("Disrupted", "PodDeleted"),
        ["Pod/b"],
    ),
    "all pods are being deleted and may still save": (
        at_train(1, pods=[deleted(pod("a", index=0)), deleted(pod("b", index=1))]),
        ("Disrupted", "PodDeleted"),
        [],
    ),
    "its Job is being deleted": (
        at_train(1, pods=[deleted(pod("a", index=0))], job=GONE),
        ("Disrupted", "JobDeleted"),
        [],
    ),
    "what was known stays when the pod that told it is gone": (
        at_train(
            1,
            pods=[pod("b", index=1)],
            job=FAILING,
            attempts=[record(1, "Faulted", "OutOfMemory", over=False)],
        ),
        ("Faulted", "OutOfMemory"),
        [],
    ),
    "what was known gives way to the cause": (
        at_train(
            1,
            pods=[ended("b", 65, FINAL, index=1), deleted(pod("a", index=0))],
            job=FAILING,
            attempts=[record(1, "Faulted", "RankLost", over=False)],
        ),
        ("Faulted", "DataDamaged"),
        [],
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_no_attempt_follows_while_pods_of_the_last_one_may_save(case: str) -> None:
    seen, (state, reason), stopped = ENDINGS[case]
    plan = look(seen)
    assert plan.status
    assert records(plan.status) == [(1, state, reason, False)]
    again = plan.status.attempts[0].retryable
    assert told(plan, "Trained") == ("Unknown", "Restarting" if again else "Stopping")
    assert deletes(plan) == stopped
    assert writes(plan) == []
    assert plan.status.training
    assert plan.status.training.restarts is None, "an end is counted when the pods are gone"


@pytest.mark.parametrize(
    "left",
    [
        pytest.param([], id="the pods are gone"),
        pytest.param([ended("b", 143, index=1)], id="the pods are terminal"),
        pytest.param([deleted(pod("b", index=1), after=-60, grace=30)], id="the pods are past their grace"),
    ],
)
def test_an_end_is_counted_once_its_pods_are_gone(left: list[Object]) -> None:
    plan = look(at_train(1, pods=[ended("a", 70, CRASH, after=-90, index=0), *left], job=FAILING))
    assert plan.status
    assert records(plan.status) == [(1, "Faulted", "InternalError", True)]
    assert plan.status.training
    assert plan.status.training.restarts == 1
    assert plan.status.training.next_attempt_time == NOW
    assert "pod a: a traceback" in message(plan, "Trained")
    assert plan.again == 0.0
    assert writes(plan) == [], "the count is in the cluster before the next attempt is"


def test_a_job_that_vanished_ends_its_attempt() -> None:
    seen = at_train(1, attempts=[record(1), record(2)])
    plan = look(seen)
    assert plan.status
    assert records(plan.status)[1] == (2, "Disrupted", "JobDeleted", True)


def test_a_result_that_was_lost_is_asked_for_by_another_attempt() -> None:
    plan = look(at_train(1, pods=[finished("b", None, index=1)], job=COMPLETE))
    assert plan.status
    assert records(plan.status) == [(1, "Disrupted", "ResultLost", True)]
    assert plan.status.training
    assert plan.status.training.next_attempt_time == NOW


def test_waiting_in_vain_for_the_gang_uses_up_no_restart_but_is_waited_after() -> None:
    late = ended("a", 75, outcome("RendezvousTimeout", "rank 0's pod could not be reached"), index=1)
    before = TrainingStatus(attempt=1, restarts=1, disruptions=1)
    plan = look(at_train(1, pods=[late], job=FAILING, training=before, gang={"maxRestarts": 1}))
    assert plan.status
    assert records(plan.status) == [(1, "Disrupted", "RendezvousTimeout", True)]
    assert plan.status.training
    assert (plan.status.training.restarts, plan.status.training.disruptions) == (1, 2)
    assert plan.again is not None
    assert 20.0 <= plan.again <= 40.0


def test_a_newer_checkpoint_starts_the_counters_anew() -> None:
    before = TrainingStatus(attempt=1, restarts=3, disruptions=2, last_checkpoint_step=40, step=45)
    seen = at_train(
        1,
        pods=[ended("a", 70, CRASH, index=0)],
        job=FAILING,
        attempts=[record(1, resumed_from_step=20)],
        training=before,
        gang={"maxRestarts": 3},
    )
    plan = look(seen)
    assert plan.status
    assert plan.status.training
    assert (plan.status.training.restarts, plan.status.training.disruptions) == (1, 0)
    assert plan.status.attempts[0].last_step == 45


def test_a_short_attempt_tells_at_its_end_how_far_it_came() -> None:
    """Its pods were never asked while they ran."""
    full = outcome("DiskFull", retryable=False).model_copy(update={"step": 7, "last_checkpoint_step": 6})
    lost = outcome("RankLost").model_copy(update={"step": 8, "last_checkpoint_step": 6})
    plan = look(at_train(1, pods=[ended("a", 73, full, index=0), ended("b", 75, lost, index=1)], job=FAILING))
    assert plan.status
    assert plan.status.training
    assert (plan.status.training.step, plan.status.training.last_checkpoint_step) == (8, 6)
    assert plan.status.attempts[0].last_step == 8
    assert plan.status.training.restarts == 1, "a checkpoint was left: the counters begin anew with this fault"


# --- between two attempts


def paused(seconds: float, **more: object) -> TrainingStatus:
    return TrainingStatus.model_validate({"attempt": 1, "next_attempt_time": NOW + timedelta(seconds=seconds)} | more)


def test_the_next_attempt_waits_for_its_time() -> None:
    plan = look(at_train(1, attempts=[record(1, "Faulted", "InternalError")], training=paused(20)))
    assert writes(plan) == []
    assert plan.again is not None
    assert 20.0 <= plan.again <= 40.0


def test_the_next_attempt_is_one_more_than_the_last() -> None:
    plan = look(at_train(1, attempts=[record(1, "Faulted", "InternalError")], training=paused(0)))
    assert writes(plan) == ["Job/r-train-2"]


def test_a_job_counts_though_the_status_forgot_it() -> None:
    plan = look(at_train(1, 2, 3, attempts=[record(1, "Faulted", "InternalError")], training=paused(0)))
    assert plan.status
    assert records(plan.status)[-1] == (3, "Running", None, False)
    assert writes(plan) == []


def test_a_new_attempt_says_from_which_checkpoint_it_goes_on() -> None:
    before = paused(0, last_checkpoint_step=40)
    plan = look(at_train(1, 2, pods=BOTH, attempts=[record(1, "Faulted", "InternalError")], training=before))
    assert plan.status
    assert plan.status.attempts[1].resumed_from_step == 40


def test_an_attempt_that_runs_is_waited_for_no_longer() -> None:
    plan = look(at_train(1, 2, pods=BOTH, attempts=[record(1, "Faulted", "InternalError")], training=paused(0)))
    assert plan.status
    assert plan.status.training
    assert plan.status.training.next_attempt_time is None


def test_only_a_few_old_jobs_are_kept() -> None:
    old = [record(number, "Disrupted", "Preempted") for number in range(1, 8)]
    plan = look(at_train(*range(1, 8), attempts=old, training=paused(0)))
    assert writes(plan) == ["Job/r-train-8"]
    assert deletes(plan) == ["Job/r-train-1", "Job/r-train-2"]


def test_a_name_that_is_taken_stops_the_next_attempt() -> None:
    run = run_at(ORDER[:2], {"attempts": [record(1, "Faulted", "InternalError")], "training": paused(0)})
    taken = existing(train_job(run, SETTINGS, 2))
    taken["metadata"]["ownerReferences"] = []
    seen = snapshot(run, [*stage_objects(run, "train"), taken], attempts=train_jobs(run, 1))
    plan = look(seen)
    assert told(plan, "Stalled") == ("True", "NameConflict")
    assert writes(plan) == []
    assert KIND not in message(plan, "Trained")


# --- when nothing more is tried


def over(reason: str, training: TrainingStatus, *numbers: int, retryable: bool = True, **spec: Any) -> Snapshot:
    return at_train(*numbers, attempts=[record(1, "Faulted", reason, retryable=retryable)], training=training, **spec)


def test_a_final_fault_waits_for_a_person() -> None:
    plan = look(over("DataDamaged", TrainingStatus(attempt=1, restarts=1), 1, retryable=False))
    assert told(plan, "Trained") == ("False", "DataDamaged")
    assert told(plan, "Stalled")[0] == "True"
    assert "kubectl delete job r-train-1 -n ml" in message(plan, "Trained")
    assert (writes(plan), plan.again) == ([], None)


def test_used_up_restarts_wait_for_a_person() -> None:
    plan = look(over("InternalError", TrainingStatus(attempt=1, restarts=3), 1, gang={"maxRestarts": 2}))
    assert told(plan, "Trained") == ("False", "RestartsExhausted")
    assert "gang.maxRestarts allows 2" in message(plan, "Trained")
    assert writes(plan) == []


def test_more_restarts_are_obeyed() -> None:
    plan = look(over("InternalError", TrainingStatus(attempt=1, restarts=3), 1, gang={"maxRestarts": 3}))
    assert writes(plan) == ["Job/r-train-2"]


def test_deleting_the_last_job_is_the_sign_to_try_again() -> None:
    run = run_at(ORDER[:2], {"attempts": [record(1, "Faulted", "DataDamaged", retryable=False)]})
    plan = look(snapshot(run, stage_objects(run, "train")))
    assert writes(plan) == ["Job/r-train-2"]


def test_disruptions_are_never_used_up() -> None:
    training = paused(0, restarts=0, disruptions=99)
    seen = at_train(1, attempts=[record(1, "Disrupted", "Preempted")], training=training, gang={"maxRestarts": 0})
    assert writes(look(seen)) == ["Job/r-train-2"]
