"""Looks at a run whose results are published: beside the server's start, and part of what Ready means."""

from dataclasses import replace
from typing import Any

import pytest

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow.children import references
from falcon_operator.controller.flow.snapshot import Reference, Snapshot
from falcon_operator.objects import Object
from tests.unit.operator.api.runs import ADAPTER, MERGED, laid_over
from tests.unit.operator.controller.snapshots import (
    ORDER,
    SETTINGS,
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
from tests.unit.operator.policy.pods import ended, outcome, pod, waiting

AVAILABLE = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
FAILED = {"status": {"conditions": [{"type": "FailureTarget", "status": "True", "message": "backoff limit"}]}}
DENIED = ended("p", 77, outcome("PermissionDenied", "the token may not write", retryable=False))
MODEL = {"uri": "hf://acme/bot", "secretName": "hub"}
ADAPTERS = {"uri": "s3://models/adapter", "what": "adapter"}
COPY = {"uri": "hf://acme/bot", "what": "merged", "digest": MERGED.digest, "revision": "abc", "bytes": 2}
ADAPTER_COPY = {"uri": "s3://models/adapter", "what": "adapter", "digest": ADAPTER.digest}
DONE = [*ORDER, "Evaluated"]


def publishing(*publications: dict[str, Any], done: Any = DONE, **spec: Any) -> FalconFineTune:
    """A run with these publications."""
    return run_at(done, publish=list(publications), **spec)


def copies(run: FalconFineTune, **job: Any) -> list[Object]:
    """The objects of the publish stage, the Job with `job` laid over it."""
    return [laid_over(obj, job) if obj["kind"] == "Job" else obj for obj in stage_objects(run, "publish")]


def served(run: FalconFineTune, *more: Object, pods: Any = (), deployment: dict[str, Any] | None = None) -> Snapshot:
    """The run with its server and these objects; `pods` are those that publish."""
    *others, made = stage_objects(run, "serve")
    server = [*others, existing(made, status=AVAILABLE if deployment is None else deployment)]
    return snapshot(run, [*server, *more], beside={"publish": pods})


def test_the_merged_model_is_published_while_the_server_starts() -> None:
    seen = served(publishing(MODEL, done=ORDER[:4]), deployment={})
    plan = look(seen)
    assert writes(plan) == ["ConfigMap/r-publish", "Job/r-publish"]
    assert MERGED.digest in plan.write[0]["data"]["run.json"]
    assert told(plan, "Serving") == ("Unknown", "RollingOut")
    assert told(plan, "Published") == ("Unknown", "Starting")
    assert plan.status
    assert plan.status.stage == "Deploying"


def test_the_merged_model_is_not_published_before_it_is_verified() -> None:
    plan = look(snapshot(publishing(MODEL, ADAPTERS, done=ORDER[:3])))
    assert writes(plan) == ["ConfigMap/r-merge", "Job/r-merge"]
    assert told(plan, "Published") == ("Unknown", "Waiting")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="beside the merge"),
        pytest.param({"merge": {"enabled": False}, "serve": {"enabled": False}}, id="where nothing is merged"),
    ],
)
def test_an_adapter_is_published_as_soon_as_it_is_trained(spec: dict[str, Any]) -> None:
    plan = look(snapshot(publishing(ADAPTERS, done=ORDER[:3], **spec)))
    assert writes(plan)[-2:] == ["ConfigMap/r-publish", "Job/r-publish"]
    config = plan.write[-2]["data"]["run.json"]
    assert ADAPTER.digest in config
    assert told(plan, "Ready")[0] == "False"


def test_a_merge_that_ends_is_no_reason_to_publish_the_adapter_anew() -> None:
    during, after = (publishing(ADAPTERS, done=done) for done in (ORDER[:3], ORDER[:4]))
    plan = look(served(after, *copies(during), pods=[pod("p")], deployment={}))
    assert (writes(plan), deletes(plan)) == ([], [])


def test_a_server_that_answers_is_ready_once_the_copies_are_made() -> None:
    run = publishing(MODEL, ADAPTERS)
    plan = look(served(run, *copies(run), pods=[pod("p")]))
    assert told(plan, "Published") == ("Unknown", "Running")
    assert told(plan, "Serving") == ("True", "Available")
    assert told(plan, "Ready") == ("False", "Running")
    assert plan.status
    assert (plan.status.stage, plan.status.endpoint) == ("Publishing", "http://r-serve.ml.svc/v1")
    assert plan.again == 10.0
    result = {"published": [COPY, ADAPTER_COPY]}
    seen = served(run, *copies(run), pods=[finished("p", result)])
    over = look(seen)
    assert told(over, "Published") == ("True", "Published")
    assert told(over, "Ready") == ("True", "Serving")
    assert over.status
    assert [each.revision for each in over.status.published] == ["abc", None]
    still = look(served(run.model_copy(update={"status": over.status})))
    assert (still.status, writes(still), deletes(still), still.again) == (None, [], [], None)


def test_copies_that_cannot_be_made_stall_the_run_and_leave_the_server() -> None:
    run = publishing(MODEL)
    plan = look(served(run, *copies(run, **FAILED), pods=[DENIED]))
    assert told(plan, "Published") == ("False", "PermissionDenied")
    assert told(plan, "Ready") == ("False", "PermissionDenied")
    assert told(plan, "Stalled") == ("True", "PermissionDenied")
    assert told(plan, "Serving") == ("True", "Available")
    assert "kubectl delete job r-publish" in message(plan, "Ready")
    assert (writes(plan), deletes(plan), plan.again) == ([], [], None)


def test_copies_that_cannot_be_made_hold_up_no_rollout() -> None:
    run = publishing(MODEL, done=ORDER[:4])
    plan = look(served(run, *copies(run, **FAILED), pods=[DENIED], deployment={}))
    assert told(plan, "Serving") == ("Unknown", "RollingOut")
    assert told(plan, "Ready") == ("False", "RollingOut")
    assert told(plan, "Stalled")[0] == "False"
    assert plan.again is not None


def test_what_keeps_the_pod_from_running_is_told() -> None:
    run = publishing(MODEL)
    plan = look(served(run, *copies(run), pods=[waiting("p", "CreateContainerConfigError", 'secret "hub" not found')]))
    assert told(plan, "Published") == ("False", "CreateContainerConfigError")
    assert told(plan, "Stalled")[0] == "False"


def test_a_result_without_one_of_the_copies_is_not_believed() -> None:
    run = publishing(MODEL, ADAPTERS)
    plan = look(served(run, *copies(run), pods=[finished("p", {"published": [COPY]})]))
    assert told(plan, "Published") == ("False", "UnknownResult")
    assert "s3://models/adapter" in message(plan, "Published")


@pytest.mark.parametrize("job", [{}, FAILED], ids=["while it runs", "after it failed"])
def test_another_list_makes_the_job_anew(job: dict[str, Any]) -> None:
    run = publishing(MODEL | {"secretName": "another"})
    plan = look(served(run, *copies(publishing(MODEL), **job), pods=[pod("p")]))
    assert deletes(plan) == ["Job/r-publish"]
    assert told(plan, "Published") == ("Unknown", "Starting")


def test_the_stage_that_is_the_most_pressing_says_when_the_run_is_looked_at_again() -> None:
    run = publishing(MODEL | {"secretName": "another"}, done=ORDER[:4])
    plan = look(served(run, *copies(publishing(MODEL)), pods=[pod("p")], deployment={}))
    assert told(plan, "Serving") == ("Unknown", "RollingOut")
    assert plan.again == 5.0, "the pods of the old Job are asked to stop"


def test_another_model_is_published_anew() -> None:
    new = MERGED.model_copy(update={"digest": f"sha256:{'0d' * 32}"})
    run = run_at([*DONE, "Published"], {"merged": new, "published": [COPY]}, publish=[MODEL])
    plan = look(served(run, *copies(publishing(MODEL))))
    assert deletes(plan) == ["Job/r-publish"]
    assert told(plan, "Published") == ("Unknown", "Starting")
    after = look(served(run))
    assert "Job/r-publish" in writes(after)
    assert new.digest in next(obj for obj in after.write if "publish" in obj["metadata"]["name"])["data"]["run.json"]


def test_publishing_waits_for_a_merge_that_is_made_anew() -> None:
    status = {"merged": MERGED, "merge": {"dtype": "bfloat16"}}
    run = run_at([*ORDER[:3], "Serving"], status, merge={"dtype": "float16"}, publish=[MODEL])
    plan = look(snapshot(run, stage_objects(run, "serve")))
    assert "Job/r-publish" not in writes(plan)
    assert told(plan, "Published") == ("Unknown", "Waiting")
    goes_on = look(snapshot(run, [*stage_objects(run, "serve"), *copies(run)], beside={"publish": [pod("p")]}))
    assert told(goes_on, "Published") == ("Unknown", "Running"), "one that was begun is not stopped"


def test_after_a_suspension_copying_does_not_choose_the_node_of_the_server() -> None:
    """Where one node mounts the workspace, the server would have to follow, to a node without a GPU perhaps."""
    bound = {"workspace": {"accessMode": "ReadWriteOnce"}, "gang": {"nodes": 1}}
    run = publishing(MODEL, done=ORDER[:4], **bound)
    held = copies(run, spec={"suspend": True})
    plan = look(served(run, *held, deployment={}))
    assert plan.change == ()
    assert told(plan, "Published") == ("Unknown", "Waiting")
    goes_on = look(served(run, *held))
    assert [dict(change.fields) for change in goes_on.change] == [{"suspend": False}]


def test_a_refusal_is_told_of_the_stage_that_was_refused() -> None:
    run = publishing(MODEL, done=ORDER[:4])
    seen = replace(served(run), refusal="the API server refuses Job r-publish: exceeded quota: jobs")
    plan = look(seen)
    assert told(plan, "Published") == ("False", "ChildRefused")
    assert told(plan, "Serving") == ("True", "Available")


def test_a_suspended_run_is_at_rest_when_its_copying_has_stopped_too() -> None:
    run = publishing(MODEL, suspend=True)
    scaled = {"observedGeneration": 1}
    plan = look(served(run, *copies(run), pods=[pod("p")], deployment=scaled))
    assert [(change.job["metadata"]["name"], dict(change.fields)) for change in plan.change] == [
        ("r-publish", {"suspend": True})
    ]
    assert told(plan, "Suspended") == ("False", "Suspending")
    assert told(plan, "Reconciling")[0] == "True"
    rest = look(served(run, *copies(run, spec={"suspend": True}), deployment=scaled))
    assert told(rest, "Suspended") == ("True", "Suspended")
    assert rest.status
    assert rest.status.stage == "Suspended"


def test_the_job_goes_when_nothing_is_published_any_more() -> None:
    conditions = publishing(MODEL, done=[*DONE, "Published"]).status.conditions
    run = run_at(DONE, {"conditions": conditions, "published": [COPY]})
    assert Reference("Job", "r-publish") in references(run, SETTINGS, "serve", 0)
    plan = look(served(run, *copies(publishing(MODEL))))
    assert deletes(plan) == ["Job/r-publish"]
    assert told(plan, "Published") == ("Unknown", "Stopping")
    assert plan.status
    gone = look(served(run.model_copy(update={"status": plan.status})))
    assert gone.status
    assert gone.status.condition(ConditionType.PUBLISHED) is None
    assert told(gone, "Ready") == ("True", "Serving")


def test_a_job_of_somebody_else_is_left_alone() -> None:
    run = publishing(MODEL)
    config, job = copies(run)
    alien = laid_over(job, {"metadata": {"ownerReferences": []}})
    plan = look(served(run, config, alien))
    assert told(plan, "Published") == ("False", "NameConflict")
    assert deletes(plan) == []
