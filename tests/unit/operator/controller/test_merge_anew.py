"""Looks at a run whose `merge.dtype` changed: it merges anew while the server of the model before goes on."""

from typing import Any

import pytest

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import MergeStatus
from falcon_operator.controller.flow.snapshot import Snapshot
from falcon_operator.objects import Object
from falcon_trainer.config import Artifact
from tests.unit.operator.api.runs import MERGED, laid_over
from tests.unit.operator.controller.snapshots import (
    EVALUATION,
    ORDER,
    deletes,
    finished,
    look,
    message,
    run_at,
    snapshot,
    stage_objects,
    told,
    writes,
)
from tests.unit.operator.policy.pods import deleted, ended, outcome, pod, waiting

URL = "http://r-serve.ml.svc/v1"
AVAILABLE = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
FAILED = {"status": {"conditions": [{"type": "FailureTarget", "status": "True", "message": "backoff limit"}]}}
NEW = Artifact(path="runs/r/merged/0d", digest=f"sha256:{'0d' * 32}", bytes=2)
RESULT = {"merged": NEW.to_wire(), "merge": {"dtype": "float16", "tensors": 9, "changedTensors": 4}}


def a_run_of(dtype: str, *, made: str = "bfloat16", again: bool = False, **spec: Any) -> FalconFineTune:
    """A run that serves a model of type `made` and asks for `dtype`; `again`: whether the status says that it merges
    anew.
    """
    done = [*ORDER, "Evaluated"] if not again else [*ORDER[:3], "Serving", "Evaluated"]
    status = {"merged": MERGED, "merge": MergeStatus(dtype=made), "endpoint": URL, "evaluation": EVALUATION}
    return run_at(done, status, **laid_over({"merge": {"dtype": dtype}}, spec))


def server(run: FalconFineTune, status: dict[str, Any] | None = None) -> list[Object]:
    """The server's objects, available."""
    return [
        laid_over(obj, {"status": AVAILABLE if status is None else status}) if obj["kind"] == "Deployment" else obj
        for obj in stage_objects(run, "serve")
    ]


def merging(run: FalconFineTune, made_for: FalconFineTune, pods: Any = (), **job: Any) -> Snapshot:
    """The run while there is a merge Job, made for another spec or for this one."""
    made = [laid_over(obj, job) if obj["kind"] == "Job" else obj for obj in stage_objects(made_for, "merge")]
    return snapshot(run, [*made, *server(run)], pods=pods)


def test_the_job_of_the_other_type_goes_and_the_server_stays_as_it_is() -> None:
    run = a_run_of("float16")
    first = run_at(ORDER[:3], merge={"dtype": "bfloat16"})
    plan = look(merging(run, first))
    assert deletes(plan) == ["Job/r-merge"]
    assert (writes(plan), plan.change) == ([], ())
    assert told(plan, "Merged") == ("Unknown", "Starting")
    assert told(plan, "Serving") == ("True", "Available")
    assert told(plan, "Evaluated")[0] == "True", "of the model that is served"
    assert plan.status
    assert (plan.status.stage, plan.status.endpoint, plan.status.merged) == ("Merging", URL, MERGED)


def test_the_new_job_waits_for_the_pod_of_the_old_one() -> None:
    run = a_run_of("float16", again=True)
    seen = snapshot(run, server(run), pods=[deleted(pod("old"))])
    assert writes(look(seen)) == []


def test_the_new_job_is_told_which_model_is_served() -> None:
    run = a_run_of("float16", again=True)
    plan = look(snapshot(run, server(run)))
    assert writes(plan) == ["ConfigMap/r-merge", "Job/r-merge"]
    assert "float16" in plan.write[0]["data"]["run.json"]
    assert MERGED.digest in plan.write[0]["data"]["run.json"]


def test_while_a_rollout_is_under_way_no_model_may_be_removed() -> None:
    """Pods of the model before the newest one may be those that answer."""
    run = run_at(ORDER[:3], {"merged": MERGED, "merge": MergeStatus(dtype="bfloat16")}, merge={"dtype": "float16"})
    plan = look(snapshot(run, server(run, {})))
    assert writes(plan) == ["ConfigMap/r-merge", "Job/r-merge"]
    assert MERGED.digest not in plan.write[0]["data"]["run.json"]


@pytest.mark.parametrize("before", [True, False], ids=["a server that is lost", "a rollout that ends"])
def test_what_becomes_of_the_server_meanwhile_is_no_reason_to_merge_again(before: bool) -> None:
    status = {"merged": MERGED, "merge": MergeStatus(dtype="bfloat16")}
    rolled_out, rolling = (
        run_at([*ORDER[:3], *more], status, merge={"dtype": "float16"}) for more in (("Serving",), ())
    )
    made_for, run = (rolled_out, rolling) if before else (rolling, rolled_out)
    plan = look(merging(run, made_for, [pod("m")]))
    assert deletes(plan) == []
    assert told(plan, "Merged") == ("Unknown", "Running")


def test_the_new_job_is_left_alone_while_it_runs() -> None:
    run = a_run_of("float16", again=True)
    plan = look(merging(run, run, [pod("m")]))
    assert (writes(plan), deletes(plan)) == ([], [])
    assert told(plan, "Merged") == ("Unknown", "Running")
    assert plan.again == 10.0, "its progress is asked for"


def test_the_new_model_replaces_the_served_one_once_it_is_verified() -> None:
    run = a_run_of("float16", again=True)
    plan = look(merging(run, run, [finished("m", RESULT)]))
    assert told(plan, "Merged") == ("True", "Merged")
    assert told(plan, "Ready") == ("False", "Merged"), "it is the old model that is served"
    assert writes(plan) == [], "the status is written before the server changes"
    assert plan.again == 0.0
    assert plan.status
    assert plan.status.merged == NEW
    assert plan.status.merge == MergeStatus(dtype="float16", tensors=9, changed_tensors=4)
    after = run.model_copy(update={"status": plan.status})
    rollout = look(snapshot(after, server(run)))
    assert writes(rollout) == ["ConfigMap/r-serve", "Deployment/r-serve"]
    assert NEW.digest in rollout.write[0]["data"]["run.json"]
    assert told(rollout, "Serving") == ("Unknown", "RollingOut")
    assert told(rollout, "Evaluated") == ("Unknown", "Waiting"), "what was told of it was the other model"


def test_a_type_that_the_stage_reports_otherwise_is_not_merged_for_ever() -> None:
    run = a_run_of("float16", again=True)
    other = {"merged": NEW.to_wire(), "merge": {"dtype": "auto"}}
    for result in (other, {"merged": NEW.to_wire()}):
        plan = look(merging(run, run, [finished("m", result)]))
        assert plan.status
        assert plan.status.merge
        assert plan.status.merge.dtype == "float16"


def test_a_merge_that_fails_says_why_and_the_old_server_goes_on() -> None:
    run = a_run_of("float16", again=True)
    bad = ended("m", 73, outcome("DiskFull", "9 GB are missing", retryable=False))
    plan = look(merging(run, run, [bad], **FAILED))
    assert told(plan, "Merged") == ("False", "DiskFull")
    assert told(plan, "Stalled") == ("True", "DiskFull")
    assert told(plan, "Serving") == ("True", "Available")
    assert (writes(plan), deletes(plan), plan.again) == ([], [], None)
    assert plan.status
    assert (plan.status.endpoint, plan.status.merged) == (URL, MERGED)


@pytest.mark.parametrize("job", [{}, FAILED], ids=["while it runs", "after it failed"])
def test_a_type_that_is_changed_back_makes_the_job_anew_and_finds_the_model(job: dict[str, Any]) -> None:
    """The stage finds the served model as it is, so the server never notices."""
    back = a_run_of("bfloat16", again=True)
    assert deletes(look(merging(back, a_run_of("float16", again=True), [pod("m")], **job))) == ["Job/r-merge"]
    found = look(merging(back, back, [finished("m", {"merged": MERGED.to_wire()})]))
    assert told(found, "Merged") == ("True", "Merged")
    assert found.status
    after = look(snapshot(back.model_copy(update={"status": found.status}), server(back)))
    assert told(after, "Ready") == ("True", "Serving")
    assert (writes(found), writes(after)) == ([], [])


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"merge": {"dtype": "float32"}}, id="another type"),
        pytest.param({"merge": {"memory": "1Gi"}}, id="more memory"),
    ],
)
def test_what_the_first_merge_is_told_may_change_while_it_runs(changed: dict[str, Any]) -> None:
    run = run_at(ORDER[:3], **changed)
    seen = snapshot(run, stage_objects(run_at(ORDER[:3]), "merge"), pods=[pod("m")])
    assert deletes(look(seen)) == ["Job/r-merge"]


def test_a_pod_template_that_changes_is_no_reason_to_merge_anew() -> None:
    run = run_at(ORDER[:3], podTemplate={"merge": {"nodeSelector": {"pool": "cpu"}}})
    seen = snapshot(run, stage_objects(run_at(ORDER[:3]), "merge"), pods=[pod("m")])
    assert (deletes(look(seen)), writes(look(seen))) == ([], [])


def test_a_server_that_is_lost_meanwhile_is_told_and_brought_back() -> None:
    run = a_run_of("float16", again=True)
    made = stage_objects(run, "merge")
    *others, deployment = server(run, {})
    left = [obj for obj in others if obj["kind"] != "Service"]
    seen = snapshot(run, [*made, *left, deployment], beside={"serve": [waiting("s", "ErrImagePull", "not found")]})
    plan = look(seen)
    assert told(plan, "Serving") == ("False", "ImagePullBackOff")
    assert writes(plan) == ["Service/r-serve"]
    assert told(look(snapshot(run, [*made, *others, deployment])), "Serving") == ("Unknown", "RollingOut")


def test_a_model_that_is_on_its_way_out_is_not_evaluated_any_more() -> None:
    run = run_at(
        [*ORDER[:3], "Serving"], {"merged": MERGED, "merge": MergeStatus(dtype="bfloat16")}, merge={"dtype": "float16"}
    )
    plan = look(snapshot(run, [*stage_objects(run, "merge"), *server(run)], pods=[pod("m")]))
    assert writes(plan) == []
    assert (told(plan, "Serving")[0], told(plan, "Evaluated")) == ("True", ("Unknown", "Waiting"))


def test_what_follows_from_a_new_model_begins_after_it_is_in_the_status() -> None:
    """It would be the old one that is evaluated and published."""
    status = {"merged": MERGED, "merge": MergeStatus(dtype="bfloat16")}
    run = run_at([*ORDER[:3], "Serving"], status, merge={"dtype": "float16"}, publish=[{"uri": "s3://models/bot"}])
    plan = look(merging(run, run, [finished("m", RESULT)]))
    assert told(plan, "Merged") == ("True", "Merged")
    assert writes(plan) == []


def test_a_suspended_run_whose_merge_failed_is_suspended() -> None:
    run = a_run_of("float16", again=True, suspend=True)
    bad = ended("m", 73, outcome("DiskFull", retryable=False))
    made = [laid_over(obj, FAILED if obj["kind"] == "Job" else {}) for obj in stage_objects(run, "merge")]
    plan = look(snapshot(run, [*made, *server(run, {"observedGeneration": 1})], pods=[bad]))
    assert (told(plan, "Suspended"), told(plan, "Stalled")) == (("True", "Suspended"), ("True", "DiskFull"))


def test_a_suspension_holds_the_new_merge_and_scales_the_server_to_nothing() -> None:
    run = a_run_of("float16", again=True, suspend=True)
    serving = a_run_of("float16", again=True)
    plan = look(snapshot(run, [*stage_objects(run, "merge"), *server(serving)], pods=[pod("m")]))
    assert [dict(change.fields) for change in plan.change] == [{"suspend": True}]
    assert writes(plan) == ["Deployment/r-serve"]
    assert told(plan, "Suspended") == ("False", "Suspending")
    held = [
        laid_over(obj, {"spec": {"suspend": True}} if obj["kind"] == "Job" else {})
        for obj in stage_objects(run, "merge")
    ]
    still = look(snapshot(run, [*held, *server(run, AVAILABLE)]))
    assert told(still, "Suspended") == ("False", "Suspending"), "the server's pods are still there"
    rest = look(snapshot(run, [*held, *server(run, {"observedGeneration": 1})]))
    assert told(rest, "Suspended") == ("True", "Suspended")
    assert rest.status
    assert (rest.status.stage, rest.status.endpoint) == ("Suspended", URL)


def test_a_type_that_changes_while_the_run_is_suspended_makes_no_job() -> None:
    run = a_run_of("float16", suspend=True)
    assert "Job/r-merge" not in writes(look(snapshot(run, server(run, {"observedGeneration": 1}))))


def test_a_server_that_is_not_wanted_any_more_goes_at_once() -> None:
    run = a_run_of("float16", again=True, serve={"enabled": False})
    plan = look(snapshot(run, [*stage_objects(run, "merge"), *server(a_run_of("float16"))], pods=[pod("m")]))
    assert deletes(plan) == ["Deployment/r-serve", "Service/r-serve", "PodDisruptionBudget/r-serve"]


def test_a_refused_change_touches_neither_merge_nor_server() -> None:
    run = a_run_of("float16", again=True, publish=[{"uri": "s3://nowhere"}])
    plan = look(merging(run, a_run_of("float16", again=True), [pod("m")]))
    assert told(plan, "Stalled") == ("True", "InvalidSpec")
    assert (writes(plan), deletes(plan)) == ([], [])
    assert told(plan, "Serving")[0] == "True"
    assert "spec.publish[0].uri" in message(plan, "Accepted")


def test_the_type_that_an_older_operator_did_not_tell_of_is_written_down_before_it_can_change() -> None:
    run = run_at([*ORDER, "Evaluated"], merge={"dtype": "bfloat16"})
    plan = look(snapshot(run, server(run)))
    assert plan.status
    assert plan.status.merge == MergeStatus(dtype="bfloat16")
    assert told(plan, "Merged")[0] == "True"
