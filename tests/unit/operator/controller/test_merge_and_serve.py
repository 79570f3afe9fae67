"""Looks at a run that merges, serves, or serves no more."""

from typing import Any

import pytest

from falcon_operator.controller.flow.children import references
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
from tests.unit.operator.policy.pods import pod, waiting

AVAILABLE = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
URL = "http://r-serve.ml.svc/v1"
SERVER = ["Deployment/r-serve", "Service/r-serve", "PodDisruptionBudget/r-serve"]


def serving(deployment: dict[str, Any], **spec: Any) -> tuple[Any, list[Object]]:
    """A run at its serve stage, its model evaluated, and its objects with this status of the Deployment."""
    run = run_at([*ORDER[:4], "Evaluated"], **spec)
    *others, made = stage_objects(run, "serve")
    return run, [*others, existing(made, status=deployment)]


def test_the_merge_stage_is_told_which_adapter_was_accepted() -> None:
    plan = look(snapshot(run_at(ORDER[:3])))
    assert writes(plan) == ["ConfigMap/r-merge", "Job/r-merge"]
    assert ADAPTER.digest in plan.write[0]["data"]["run.json"]


def test_the_merged_model_goes_into_the_status() -> None:
    run = run_at(ORDER[:3])
    plan = look(snapshot(run, stage_objects(run, "merge"), pods=[finished("m", {"merged": MERGED.to_wire()})]))
    assert told(plan, "Merged") == ("True", "Merged")
    assert plan.status
    assert plan.status.merged == MERGED


def test_the_server_is_told_which_model_was_verified() -> None:
    plan = look(snapshot(run_at(ORDER[:4])))
    assert writes(plan) == ["ConfigMap/r-serve", "Service/r-serve", "PodDisruptionBudget/r-serve", "Deployment/r-serve"]
    assert MERGED.digest in plan.write[0]["data"]["run.json"]
    assert told(plan, "Serving") == ("Unknown", "RollingOut")


def test_an_available_server_makes_the_run_ready_and_is_left_alone() -> None:
    plan = look(snapshot(*serving(AVAILABLE)))
    assert told(plan, "Ready") == ("True", "Serving")
    assert plan.status
    assert (plan.status.endpoint, plan.status.stage) == (URL, "Serving")
    assert (writes(plan), deletes(plan), plan.again) == ([], [], None)


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="a status that was not written yet"),
        pytest.param(AVAILABLE | {"observedGeneration": 0}, id="a generation that was not seen yet"),
        pytest.param(AVAILABLE | {"availableReplicas": 0}, id="no replica is available"),
        pytest.param(AVAILABLE | {"replicas": 2}, id="a replica of the old generation is left"),
        pytest.param(AVAILABLE | {"updatedReplicas": 0}, id="only the old generation is available"),
    ],
)
def test_a_server_that_is_not_available_yet(status: dict[str, Any]) -> None:
    plan = look(snapshot(*serving(status)))
    assert told(plan, "Serving") == ("Unknown", "RollingOut")
    assert told(plan, "Ready")[0] == "False"


def test_a_server_that_cannot_start_says_why() -> None:
    run, objects = serving({})
    plan = look(snapshot(run, objects, pods=[waiting("s", "ErrImagePull", "not found")]))
    assert told(plan, "Serving") == ("False", "ImagePullBackOff")


@pytest.mark.parametrize(
    ("condition", "reason", "words"),
    [
        pytest.param(
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"},
            "FailedCreate",
            "exceeded quota",
            id="pods that are refused",
        ),
        pytest.param(
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"},
            "ProgressDeadlineExceeded",
            "timed out",
            id="a rollout that takes too long",
        ),
    ],
)
def test_the_deployments_own_troubles_are_told(condition: dict[str, str], reason: str, words: str) -> None:
    run, objects = serving({"conditions": [condition]})
    plan = look(snapshot(run, objects, pods=[pod("s", "Pending")]))
    assert told(plan, "Serving") == ("False", reason)
    assert words in message(plan, "Serving")


def test_only_what_differs_is_applied() -> None:
    run, objects = serving(AVAILABLE)
    more = run.model_copy(
        update={"spec": run.spec.model_copy(update={"serve": run.spec.serve.model_copy(update={"replicas": 2})})}
    )
    plan = look(snapshot(more, objects))
    assert writes(plan) == ["Deployment/r-serve"]
    assert plan.write[0]["spec"]["replicas"] == 2
    assert told(plan, "Serving") == ("Unknown", "RollingOut")


def test_a_service_that_was_deleted_is_made_again_while_the_run_stays_ready() -> None:
    run, (config, _, budget, deployment) = serving(AVAILABLE)
    plan = look(snapshot(run, [config, budget, deployment]))
    assert writes(plan) == ["Service/r-serve"]
    assert told(plan, "Ready") == ("True", "Serving")


def test_a_server_that_is_not_wanted_any_more_is_put_away() -> None:
    _, (_, *made) = serving(AVAILABLE)
    off = run_at(ORDER[:4], {"endpoint": URL}, serve={"enabled": False})
    plan = look(snapshot(off, made))
    assert deletes(plan) == SERVER
    assert plan.status
    assert plan.status.endpoint == URL, "until it is gone"
    gone = look(snapshot(off))
    assert gone.status
    assert gone.status.endpoint is None
    assert told(gone, "Ready") == ("True", "Completed")


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="rolling out"),
        pytest.param({"conditions": [{"type": "ReplicaFailure", "status": "True"}]}, id="without pods"),
    ],
)
def test_a_server_that_never_became_available_is_put_away_too(status: dict[str, Any]) -> None:
    _, (_, *made) = serving(status)
    off = run_at(ORDER[:4], serve={"enabled": False})
    assert off.status.endpoint is None, "it is told once the server is available"
    looked_up = references(off, SETTINGS, None, 0)
    assert [f"{kind}/{name}" for kind, name in looked_up] == SERVER
    plan = look(snapshot(off, made))
    assert deletes(plan) == SERVER


def test_a_ready_run_without_a_server_is_left_alone() -> None:
    off = run_at(ORDER[:4], serve={"enabled": False})
    first = look(snapshot(off))
    assert told(first, "Ready") == ("True", "Completed")
    plan = look(snapshot(off.model_copy(update={"status": first.status})))
    assert (plan.status, writes(plan), deletes(plan), plan.again) == (None, [], [], None)


def test_a_run_that_merged_nothing_has_no_server_to_look_up() -> None:
    off = run_at(ORDER[:3], merge={"enabled": False}, serve={"enabled": False})
    assert references(off, SETTINGS, None, 0) == []


def test_a_server_of_somebody_else_is_never_put_away() -> None:
    off = run_at(ORDER[:4], {"endpoint": URL}, serve={"enabled": False})
    service = existing(stage_objects(run_at(ORDER[:4]), "serve")[1])
    alien = laid_over(service, {"metadata": {"ownerReferences": []}})
    assert deletes(look(snapshot(off, [alien]))) == []


def test_an_adapter_only_run_ends_with_its_adapter() -> None:
    run = run_at(ORDER[:3], merge={"enabled": False}, serve={"enabled": False})
    plan = look(snapshot(run))
    assert told(plan, "Ready") == ("True", "Completed")
    assert plan.status
    assert plan.status.stage == "Succeeded"
    assert {"Merged", "Serving"}.isdisjoint(condition.type for condition in plan.status.conditions)
    assert plan.again is None
