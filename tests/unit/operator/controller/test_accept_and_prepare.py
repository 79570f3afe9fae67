"""Looks at a run up to the end of its prepare stage."""

from dataclasses import replace
from typing import Any

import pytest

from falcon_operator.api.names import RUN_LABEL
from falcon_operator.api.resource import FalconFineTune, Problem
from falcon_operator.controller.flow.report import Plan
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object
from tests.unit.operator.controller.snapshots import (
    ORDER,
    deletes,
    existing,
    finished,
    look,
    message,
    run_at,
    snapshot,
    stage_objects,
    told,
    writes,
)
from tests.unit.operator.policy.pods import NOW, at, deleted, ended, outcome, pod, waiting, warning

PREPARED = {"dataset": {"records": 8, "sequences": 8, "tokens": 512}, "model": {"path": "base"}}
COMPLETE = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
FAILED = {"status": {"conditions": [{"type": "FailureTarget", "status": "True", "message": "backoff limit"}]}}


def accepted(**spec: Any) -> FalconFineTune:
    return run_at(ORDER[:1], **spec)


def preparing(pods: list[Object], job: dict[str, Any] | None = None, events: list[Object] | None = None) -> Snapshot:
    """A run whose prepare stage has all its children, the Job with `job` laid over it."""
    run = accepted()
    claim, config, made = stage_objects(run, "prepare")
    return snapshot(run, [claim, config, existing(made, **(job or {}))], pods=pods, events=events or [])


def test_a_run_is_accepted_before_anything_is_made() -> None:
    plan = look(snapshot(run_at([])))
    assert plan.status
    assert plan.status.accepted_spec_hash
    assert writes(plan) == []
    assert plan.again == 0.0, "the next look goes on at once"


def test_then_the_children_of_the_first_stage_are_made_in_order() -> None:
    plan = look(snapshot(accepted()))
    assert writes(plan) == ["PersistentVolumeClaim/r-workspace", "ConfigMap/r-prepare", "Job/r-prepare"]
    assert told(plan, "Prepared") == ("Unknown", "Starting")


def test_a_child_that_the_api_server_refuses_is_told_and_tried_again() -> None:
    plan = look(replace(snapshot(accepted()), refusal="the API server refuses Job r-prepare: exceeded quota: jobs"))
    assert told(plan, "Prepared") == ("False", "ChildRefused")
    assert "exceeded quota: jobs" in message(plan, "Ready")
    assert told(plan, "Stalled")[0] == "False"
    assert "Job/r-prepare" in writes(plan)


def test_a_claim_of_the_users_is_not_made() -> None:
    run = run_at(ORDER[:1], workspace={"size": None, "claimName": "mine"})
    assert writes(look(snapshot(run))) == ["ConfigMap/r-prepare", "Job/r-prepare"]


def test_a_run_that_is_being_deleted_is_left_alone() -> None:
    run = accepted()
    leaving = run.metadata.model_copy(update={"deletion_timestamp": NOW})
    seen = replace(snapshot(run), metadata=leaving)
    assert look(seen) == Plan()


def test_a_refused_spec_names_the_field_and_makes_nothing() -> None:
    plan = look(snapshot(run_at([], training={"globalBatchSize": 7})))
    assert told(plan, "Accepted") == ("False", "InvalidSpec")
    assert "spec.training.globalBatchSize" in message(plan, "Accepted")
    assert told(plan, "Stalled") == ("True", "InvalidSpec")
    assert plan.status
    assert plan.status.accepted_spec_hash is None
    assert writes(plan) == []


def test_a_resource_that_the_models_refuse_keeps_what_its_stages_reached() -> None:
    run = run_at(ORDER[:3])
    seen = replace(snapshot(run), run=None, problems=[Problem("spec.lora.rank", "must be at least 1")])
    plan = look(seen)
    assert message(plan, "Accepted") == "spec.lora.rank: must be at least 1"
    assert told(plan, "Trained") == ("True", "Trained")


def test_what_was_accepted_must_stay_as_it_was() -> None:
    run = accepted()
    changed = run.model_copy(update={"status": run.status.model_copy(update={"accepted_spec_hash": "other"})})
    plan = look(snapshot(changed))
    assert told(plan, "Accepted") == ("False", "SpecChanged")
    assert writes(plan) == []


Case = tuple[Snapshot, tuple[str, str], str]
"""What is seen, status and reason of Prepared, a part of its message."""

UNDER_WAY: dict[str, Case] = {
    "the pod is not there yet": (preparing([]), ("Unknown", "Starting"), "pod starts"),
    "the pod runs": (preparing([pod()]), ("Unknown", "Running"), "the prepare pod runs"),
    "its image is missing": (
        preparing([waiting("p", "ErrImagePull", "not found")]),
        ("False", "ImagePullBackOff"),
        "not found",
    ),
    "its pods are refused": (
        preparing([], events=[warning("FailedCreate", "exceeded quota: q", kind="Job")]),
        ("False", "QuotaExceeded"),
        "exceeded quota: q",
    ),
    "it failed and will be tried again": (
        preparing([ended("p", 69, outcome("HubUnreachable", "no answer"))]),
        ("Unknown", "HubUnreachable"),
        "tried again",
    ),
    "it failed and runs again": (
        preparing([ended("p", 69, outcome("HubUnreachable", "no answer")), pod("q")]),
        ("Unknown", "Running"),
        "runs",
    ),
}


@pytest.mark.parametrize("case", UNDER_WAY)
def test_a_stage_that_is_under_way_writes_nothing_but_its_status(case: str) -> None:
    seen, expected, words = UNDER_WAY[case]
    plan = look(seen)
    assert told(plan, "Prepared") == expected
    assert words in message(plan, "Prepared")
    assert told(plan, "Stalled")[0] == "False"
    assert (writes(plan), deletes(plan)) == ([], [])
    assert plan.again is not None


def test_the_result_goes_into_the_status_and_the_next_look_comes_at_once() -> None:
    plan = look(preparing([finished("p", PREPARED)]))
    assert told(plan, "Prepared") == ("True", "Prepared")
    assert plan.status
    assert plan.status.dataset
    assert plan.status.dataset.records == 8
    assert plan.again == 0.0


@pytest.mark.parametrize("result", [{"something": "else"}, None])
def test_a_result_of_another_version_stops_the_run(result: dict[str, str] | None) -> None:
    plan = look(preparing([finished("p", result)], COMPLETE))
    assert told(plan, "Stalled") == ("True", "UnknownResult")
    assert deletes(plan) == [], "the stage would only tell the same again"


def test_a_lost_result_runs_the_stage_again() -> None:
    plan = look(preparing([], COMPLETE))
    assert deletes(plan) == ["Job/r-prepare"]
    assert told(plan, "Prepared") == ("Unknown", "ResultLost")


def test_a_failure_for_good_says_what_to_do_and_makes_nothing() -> None:
    bad = ended("p", 65, outcome("InvalidRecord", "records.jsonl, line 3: no response", retryable=False))
    plan = look(preparing([ended("o", 69, outcome("HubUnreachable"), after=-60), bad], FAILED))
    assert told(plan, "Prepared") == ("False", "InvalidRecord")
    assert "line 3" in message(plan, "Prepared")
    assert "kubectl delete job r-prepare -n ml" in message(plan, "Prepared")
    assert told(plan, "Stalled")[0] == "True"
    assert (writes(plan), plan.again) == ([], None)


def test_a_failed_job_without_pods_is_told_in_the_jobs_words() -> None:
    plan = look(preparing([], FAILED))
    assert told(plan, "Prepared") == ("False", "JobFailed")
    assert "backoff limit" in message(plan, "Prepared")


def test_a_job_that_is_made_again_waits_for_the_pod_of_the_old_one() -> None:
    run = accepted()
    claim, config, _ = stage_objects(run, "prepare")
    seen = snapshot(run, [claim, config], pods=[deleted(pod("old"), grace=30)])
    plan = look(seen)
    assert writes(plan) == []
    assert "pod old" in message(plan, "Prepared")
    past_its_grace = look(replace(seen, pods=[deleted(pod("old"), after=-60, grace=30)]))
    assert writes(past_its_grace) == ["Job/r-prepare"]


def test_a_name_that_is_taken_stops_the_run_until_it_is_free() -> None:
    run = accepted()
    claim, config, made = stage_objects(run, "prepare")
    made["metadata"]["ownerReferences"] = [{"kind": "CronJob", "name": "nightly", "uid": "u", "controller": True}]
    plan = look(snapshot(run, [claim, config, made]))
    assert told(plan, "Stalled") == ("True", "NameConflict")
    assert "Job r-prepare exists already and belongs to CronJob nightly" in message(plan, "Prepared")
    assert plan.again is not None


def test_a_retained_claim_of_an_earlier_run_is_taken_over_and_anybody_elses_is_not() -> None:
    run = accepted()
    claim, config, made = stage_objects(run, "prepare")
    assert "ownerReferences" not in claim["metadata"]
    assert look(snapshot(run, [claim, config, made])).write == ()
    claim["metadata"]["labels"].pop(RUN_LABEL)
    assert told(look(snapshot(run, [claim, config, made])), "Stalled") == ("True", "NameConflict")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"size": "900Gi"}, "size 500Gi instead of 900Gi"),
        ({"storageClassName": "fast"}, "storageClassName None instead of fast"),
        ({"whenDeleted": "Delete"}, "whenDeleted Retain instead of Delete"),
    ],
)
def test_a_retained_claim_that_is_not_what_this_run_asks_for_is_refused(asked: dict[str, str], words: str) -> None:
    claim, *_ = stage_objects(accepted(workspace={"size": "500Gi"}), "prepare")
    run = accepted(workspace={"size": "500Gi"} | asked)
    plan = look(snapshot(run, [claim]))
    assert told(plan, "Stalled") == ("True", "NameConflict")
    assert words in message(plan, "Prepared")


def test_children_of_a_deleted_run_of_the_same_name_are_waited_for() -> None:
    run = accepted()
    claim, config, made = stage_objects(run, "prepare")
    made["metadata"]["ownerReferences"][0]["uid"] = "the-run-before"
    plan = look(snapshot(run, [claim, config, made]))
    assert told(plan, "Prepared") == ("Unknown", "Starting")
    assert writes(plan) == []


def test_a_child_that_is_leaving_is_waited_for() -> None:
    run = accepted()
    claim, config, made = stage_objects(run, "prepare")
    made["metadata"]["deletionTimestamp"] = at(10)
    assert writes(look(snapshot(run, [claim, config, made]))) == []
