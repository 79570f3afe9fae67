"""Whose the number of the server's replicas is."""

from typing import Any

import pytest

from falcon_operator.controller.flow import replicas
from falcon_operator.objects import Object
from tests.unit.operator.api.runs import laid_over
from tests.unit.operator.controller.snapshots import ORDER, existing, look, run_at, snapshot, stage_objects, told
from tests.unit.operator.controller.snapshots import message as said

OURS = {"manager": "falcon-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
SCALER = {"manager": "kube-controller-manager", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
STATUS = {"manager": "kube-controller-manager", "subresource": "status", "fieldsV1": {"f:status": {"f:replicas": {}}}}


def deployment(count: int, *managers: dict[str, Any], **status: int) -> Object:
    """The server's Deployment, set to `count` replicas by these managers."""
    made = stage_objects(run_at(ORDER[:4]), "serve")[-1]
    metadata = made["metadata"] | {"managedFields": list(managers)}
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), count)
    found = {"observedGeneration": 1} | counts | status
    return existing(laid_over(made, {"spec": {"replicas": count}}) | {"metadata": metadata, "status": found})


def applied(found: Object, **spec: Any) -> Object | None:
    """The Deployment that a look applies over the one that is found; None where it leaves it alone."""
    run = run_at(ORDER[:4], **spec)
    *others, _ = stage_objects(run, "serve")
    plan = look(snapshot(run, [*others, found]))
    return next((obj for obj in plan.write if obj["kind"] == "Deployment"), None)


def test_the_number_is_the_runs_until_somebody_else_sets_it() -> None:
    changed = applied(deployment(1, OURS, STATUS), serve={"replicas": 3})
    assert changed
    assert changed["spec"]["replicas"] == 3


def test_what_an_autoscaler_has_set_is_left_alone() -> None:
    assert applied(deployment(5, SCALER, STATUS), serve={"replicas": 3}) is None


def test_a_rollout_leaves_out_the_number_of_an_autoscaler() -> None:
    changed = applied(deployment(5, SCALER), serve={"args": ["--max-waiting", "8"]})
    assert changed
    assert "replicas" not in changed["spec"]
    assert changed["spec"]["template"]


def test_a_number_that_was_set_by_both_is_the_runs() -> None:
    changed = applied(deployment(5, SCALER, OURS))
    assert changed
    assert changed["spec"]["replicas"] == 1


def test_a_suspension_goes_before_an_autoscaler() -> None:
    asleep = applied(deployment(5, SCALER), suspend=True)
    assert asleep
    assert asleep["spec"]["replicas"] == 0
    assert applied(deployment(0, OURS), suspend=True) is None
    awake = applied(deployment(0, OURS), serve={"replicas": 2})
    assert awake
    assert awake["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("manager", "available", "expected"),
    [
        pytest.param(SCALER, 1, "True", id="an autoscaler's first replica answers for the others"),
        pytest.param(SCALER, 0, "Unknown", id="none of an autoscaler's replicas answers"),
        pytest.param(OURS, 1, "Unknown", id="all replicas that the run asks for must answer"),
    ],
)
def test_when_a_server_is_available(manager: dict[str, Any], available: int, expected: str) -> None:
    found = deployment(3, manager, availableReplicas=available)
    run = run_at(ORDER[:4], serve={"replicas": 3})
    *others, _ = stage_objects(run, "serve")
    assert told(look(snapshot(run, [*others, found])), "Serving")[0] == expected


def test_a_server_that_somebody_scaled_to_nothing_does_not_serve() -> None:
    run = run_at(ORDER[:4])
    *others, _ = stage_objects(run, "serve")
    plan = look(snapshot(run, [*others, deployment(0, SCALER)]))
    assert told(plan, "Serving") == ("False", "ScaledToNothing")
    assert "kubectl scale deployment r-serve -n ml --replicas=1" in said(plan, "Serving")


def test_a_deployment_without_a_number_asks_for_one_pod() -> None:
    assert replicas.replicas_of({"spec": {}}) == 1
