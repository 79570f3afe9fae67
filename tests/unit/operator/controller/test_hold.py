"""Looks at a run that is suspended, or waits in a queue."""

from typing import Any

import pytest

from falcon_operator.api.names import QUEUE_LABEL, QUEUE_PRIORITY_LABEL
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import TrainingStatus
from falcon_operator.controller.flow.report import Plan
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object, moment
from falcon_operator.stages.train import train_job
from tests.unit.operator.api.runs import laid_over
from tests.unit.operator.controller.attempts import BOTH, FAILING, record, records
from tests.unit.operator.controller.snapshots import (
    ORDER,
    SETTINGS,
    at_train,
    deletes,
    existing,
    look,
    message,
    run_at,
    snapshot,
    stage_objects,
    told,
    train_jobs,
    writes,
)
from tests.unit.operator.policy.pods import at, deleted, ended, pod

HELD = {"spec": {"suspend": True}}
STOPPING = [deleted(pod("a", index=0)), deleted(pod("b", index=1))]
RUNNING = TrainingStatus(attempt=1, step=30, active_since=moment(at(-60)))


def changes(plan: Plan) -> list[tuple[str, dict[str, Any]]]:
    return [(change.job["metadata"]["name"], dict(change.fields)) for change in plan.change]


# --- spec.suspend


def test_the_job_of_a_suspended_run_is_held_and_its_pods_are_waited_for() -> None:
    plan = look(at_train(1, pods=BOTH, attempts=[record(1)], suspend=True))
    assert changes(plan) == [("r-train-1", {"suspend": True})]
    assert (told(plan, "Trained"), told(plan, "Suspended")) == (("Unknown", "Suspending"), ("False", "Suspending"))
    stopping = look(at_train(1, pods=STOPPING, attempts=[record(1, "Suspended", over=False)], job=HELD, suspend=True))
    assert changes(stopping) == []
    assert told(stopping, "Suspended") == ("False", "Suspending")
    assert "2 of its pods may still save" in message(stopping, "Suspended")


def test_a_suspended_run_holds_nothing_costs_no_attempt_and_says_how_to_go_on() -> None:
    plan = look(at_train(1, attempts=[record(1)], job=HELD, training=RUNNING, suspend=True))
    assert plan.status
    assert plan.status.stage == "Suspended"
    assert told(plan, "Suspended") == ("True", "Suspended")
    assert told(plan, "Ready") == ("False", "Suspended")
    assert told(plan, "Reconciling") == ("False", "Suspended")
    assert "set spec.suspend to false" in message(plan, "Suspended")
    assert records(plan.status) == [(1, "Suspended", None, False)]
    training = plan.status.training
    assert training
    assert (training.restarts, training.disruptions, training.active_seconds, training.active_since) == (
        None,
        None,
        60,
        None,
    )
    assert plan.again is None


def test_a_run_that_goes_on_releases_its_job_under_the_same_attempt() -> None:
    before = record(1, "Suspended", over=False)
    plan = look(at_train(1, attempts=[before], job=HELD))
    assert changes(plan) == [("r-train-1", {"suspend": False})]
    assert plan.status
    assert records(plan.status) == [(1, "Running", None, False)]


def test_a_gang_of_another_size_goes_on_under_a_new_attempt() -> None:
    old = existing(train_job(run_at(ORDER[:2]), SETTINGS, 1), **HELD)
    run = run_at(ORDER[:2], {"attempts": [record(1, "Suspended", over=False)]}, gang={"nodes": 4})
    plan = look(snapshot(run, stage_objects(run, "train"), attempts={1: old}))
    assert (changes(plan), deletes(plan)) == ([], ["Job/r-train-1"])
    assert plan.status
    assert records(plan.status) == [(1, "Suspended", None, True)]
    run = run.model_copy(update={"status": plan.status})
    following = look(snapshot(run, stage_objects(run, "train")))
    assert writes(following) == ["Job/r-train-2"]
    assert following.write[-1]["spec"]["completions"] == 4


def test_pods_that_a_suspension_ended_are_no_sign_of_a_fault() -> None:
    """They are still there when the Job was released, and the new ones run."""
    old = [ended("old", 143, index=0), deleted(pod("older", index=1))]
    resumed = {"status": {"startTime": at(-30)}}
    new = [laid_over(each, {"metadata": {"creationTimestamp": at(-20)}}) for each in BOTH]
    plan = look(at_train(1, pods=[*old, *new], attempts=[record(1)], job=resumed))
    assert told(plan, "Trained") == ("Unknown", "Running")


def test_pods_that_a_suspension_ended_are_no_sign_before_the_job_controller_has_released_the_job_either() -> None:
    resumed = {"status": {"startTime": at(-60), "conditions": [{"type": "Suspended", "status": "True"}]}}
    plan = look(at_train(1, pods=[deleted(ended("old", 143, index=0))], attempts=[record(1)], job=resumed))
    assert told(plan, "Trained") == ("Unknown", "Starting")


def test_an_attempt_that_failed_before_it_could_be_held_is_judged_first() -> None:
    plan = look(at_train(1, pods=[ended("a", 70, index=0)], attempts=[record(1)], job=FAILING, suspend=True))
    assert plan.status
    assert records(plan.status) == [(1, "Faulted", "InternalError", True)]
    assert writes(plan) == []


@pytest.mark.parametrize("done", [ORDER[:1], ORDER[:2], ORDER[:3]], ids=["prepare", "train", "merge"])
def test_a_suspended_run_begins_no_stage(done: tuple[str, ...]) -> None:
    plan = look(snapshot(run_at(done, suspend=True)))
    assert (writes(plan), changes(plan)) == ([], [])
    assert told(plan, "Suspended") == ("True", "Suspended")


def test_no_attempt_starts_while_the_run_is_suspended_and_the_next_one_does_afterwards() -> None:
    over = [record(1, "Disrupted", "Evicted")]
    assert writes(look(at_train(1, attempts=over, suspend=True))) == []
    assert writes(look(at_train(1, attempts=over))) == ["Job/r-train-2"]


@pytest.mark.parametrize(("suspend", "held", "expected"), [(True, False, True), (False, True, False)])
def test_the_jobs_of_prepare_and_merge_are_held_and_released(suspend: bool, held: bool, expected: bool) -> None:
    for done, stage in ((ORDER[:1], "prepare"), (ORDER[:3], "merge")):
        run = run_at(done, suspend=suspend)
        objects = [
            laid_over(obj, {"spec": {"suspend": held}}) if obj["kind"] == "Job" else obj
            for obj in stage_objects(run, stage)
        ]
        assert changes(look(snapshot(run, objects))) == [(f"r-{stage}", {"suspend": expected})]


def test_a_suspended_server_is_scaled_to_nothing_and_keeps_its_address() -> None:
    run = run_at(ORDER[:4], {"endpoint": "http://r-serve.ml.svc/v1"}, suspend=True)
    objects = stage_objects(run, "serve")
    (deployment,) = (obj for obj in objects if obj["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 0
    scaled = [
        obj if obj is not deployment else laid_over(obj, {"status": {"observedGeneration": 1}}) for obj in objects
    ]
    plan = look(snapshot(run, scaled))
    assert told(plan, "Suspended") == ("True", "Suspended")
    assert plan.status
    assert plan.status.endpoint == "http://r-serve.ml.svc/v1"


# --- a queue


def queued(
    job: Object | None = None, *, pods: Any = (), attempts: Any = (), training: Any = None, **spec: Any
) -> Snapshot:
    """A run in the queue `team`, whose first attempt's Job is `job` laid over what we create."""
    run = in_queue(run_at(ORDER[:2], {"attempts": list(attempts), "training": training}, **spec))
    jobs = {1: existing(train_job(run, SETTINGS, 1), **(job or {}))} if job is not None else {}
    return snapshot(run, stage_objects(run, "train"), attempts=jobs, pods=pods)


def in_queue(run: FalconFineTune) -> FalconFineTune:
    labels = {QUEUE_LABEL: "team", QUEUE_PRIORITY_LABEL: "high", "other": "x"}
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"labels": labels})})


ADMITTED = {"spec": {"suspend": False}}


def test_a_gang_in_a_queue_is_created_suspended_with_the_queues_labels_and_waits() -> None:
    created = look(queued()).write[-1]
    assert created["spec"]["suspend"] is True
    assert created["metadata"]["labels"].items() >= {QUEUE_LABEL: "team", QUEUE_PRIORITY_LABEL: "high"}.items()
    assert "other" not in created["metadata"]["labels"]
    plan = look(queued({}, attempts=[]))
    assert told(plan, "Trained") == ("Unknown", "Queued")
    assert "team" in message(plan, "Trained")
    assert changes(plan) == [], "the queue alone releases the Job"
    assert plan.status
    assert plan.status.training
    assert plan.status.training.active_since is None, "waiting is not counted"


def test_without_the_label_the_job_is_never_suspended() -> None:
    created = look(at_train()).write[-1]
    assert "suspend" not in created["spec"]


def test_an_eviction_by_the_queue_counts_as_a_disruption_and_makes_no_attempt() -> None:
    plan = look(queued({}, pods=STOPPING, attempts=[record(1)], training=RUNNING))
    assert plan.status
    assert records(plan.status) == [(1, "Queued", None, False)]
    assert plan.status.training
    assert (plan.status.training.disruptions, plan.status.training.restarts) == (1, None)
    assert [each.reason for each in plan.occasions].count("EvictedFromQueue") == 1
    assert (writes(plan), changes(plan), deletes(plan)) == ([], [], [])
    readmitted = look(queued(ADMITTED, pods=BOTH, attempts=[record(1, "Queued", over=False)]))
    assert readmitted.status
    assert records(readmitted.status) == [(1, "Running", None, False)]


def test_a_suspended_run_in_a_queue_gives_up_its_place_and_its_attempt_counts_as_nothing() -> None:
    plan = look(queued(ADMITTED, pods=BOTH, attempts=[record(1)], suspend=True))
    assert (deletes(plan), changes(plan)) == (["Job/r-train-1"], [])
    gone = look(queued(pods=STOPPING, attempts=[record(1, "Suspended", over=False)], suspend=True))
    assert told(gone, "Trained") == ("Unknown", "Suspending")
    over = look(queued(attempts=[record(1, "Suspended", over=False)], suspend=True))
    assert over.status
    assert records(over.status) == [(1, "Suspended", None, True)]
    assert writes(look(queued(attempts=over.status.attempts))) == ["Job/r-train-2"]


# --- the deadline


def test_the_deadline_counts_all_attempts_and_stands_still_between() -> None:
    spent = TrainingStatus(attempt=2, active_seconds=500)
    seen = at_train(2, pods=BOTH, attempts=[record(2)], training=spent, gang={"activeDeadlineSeconds": 600})
    assert told(look(seen), "Trained") == ("Unknown", "Running")
    assert look(seen).again == pytest.approx(10.0)
    more = spent.model_copy(update={"active_seconds": 541})
    over = at_train(2, pods=BOTH, attempts=[record(2)], training=more, gang={"activeDeadlineSeconds": 600})
    plan = look(over)
    assert plan.status
    assert records(plan.status) == [(2, "Faulted", "DeadlineExceeded", False)]
    assert deletes(plan) == ["Pod/a", "Pod/b"]


def test_a_gang_past_its_deadline_is_stopped_and_raising_the_deadline_goes_on() -> None:
    spent = TrainingStatus(attempt=1, active_seconds=600, restarts=1)
    past = [record(1, "Faulted", "DeadlineExceeded", retryable=False)]
    plan = look(at_train(1, gang={"activeDeadlineSeconds": 600}, attempts=past, training=spent))
    assert told(plan, "Stalled") == ("True", "DeadlineExceeded")
    assert "Raise gang.activeDeadlineSeconds" in message(plan, "Trained")
    more = at_train(1, gang={"activeDeadlineSeconds": 900}, attempts=past, training=spent)
    assert writes(look(more)) == ["Job/r-train-2"]


# --- old Jobs


def test_finished_jobs_of_older_attempts_are_given_their_time_to_live() -> None:
    over = [record(1, "Disrupted", "Evicted"), record(2, "Disrupted", "Evicted")]
    plan = look(at_train(1, 2, attempts=over, ttlSecondsAfterFinished=60))
    assert writes(plan) == ["Job/r-train-3"]
    assert changes(plan) == [(f"r-train-{number}", {"ttlSecondsAfterFinished": 60}) for number in (1, 2)]
    assert changes(look(at_train(1, 2, attempts=over))) == []


def test_the_newest_job_is_kept() -> None:
    jobs = train_jobs(run_at(ORDER[:2]), 1)
    assert "ttlSecondsAfterFinished" not in jobs[1]["spec"]
    assert changes(look(at_train(1, pods=BOTH, attempts=[record(1)], ttlSecondsAfterFinished=60))) == []
