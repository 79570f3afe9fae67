"""Servers that change: rollouts, autoscalers, drains, and a volume that one node alone can mount."""

from typing import Any

from falcon_operator.objects import Object
from tests.cluster.kubectl import Kubectl
from tests.integration.api import until
from tests.integration.conftest import bound_claim
from tests.integration.kubelet import success
from tests.integration.lab import Lab

PATIENCE = 120.0
"""Seconds; a whole run may lie in it, on a machine that is busy otherwise."""


async def deployment(lab: Lab) -> Object:
    return (await lab.children())["Deployment/r-serve"]


def container(deployment: Object) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


async def test_what_an_autoscaler_has_set_outlives_rollouts_and_ends_with_a_suspension(
    lab: Lab, kubectl: Kubectl
) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Serving", "True", seconds=PATIENCE)
        kubectl("-n", lab.namespace, "scale", "deployment", "r-serve", "--replicas=3")
        await lab.until_pods("serve", 3)
        before = (await deployment(lab))["spec"]["template"]
        await lab.change(serve={"replicas": 2, "maxModelLength": 512})

        async def told_anew() -> bool:
            return bool((await deployment(lab))["spec"]["template"] != before)

        await until("the rollout", told_anew, PATIENCE)
        await lab.until_pods("serve", 3)
        assert (await deployment(lab))["spec"]["replicas"] == 3
        await lab.change(suspend=True)
        await lab.until_pods("serve", 0)
        await lab.change(suspend=False)
        await lab.until_pods("serve", 2)


async def test_a_budget_stands_beside_the_server_and_goes_with_it(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Serving", "True", seconds=PATIENCE)
        budget = await lab.admin.get("PodDisruptionBudget", lab.namespace, "r-serve")
        assert budget
        assert budget["spec"]["maxUnavailable"] == 1
        await lab.change(serve={"enabled": False})

        async def gone() -> bool:
            return await lab.admin.get("PodDisruptionBudget", lab.namespace, "r-serve") is None

        await until("the budget to go", gone, PATIENCE)


async def test_on_a_volume_of_one_node_the_old_server_answers_until_there_is_room_for_the_new_one(
    lab: Lab, kubectl: Kubectl
) -> None:
    """The nodes have one GPU each: with another node's the new pod could not mount the volume."""
    volume, _ = bound_claim("r-workspace", lab.namespace)
    spec = volume["spec"] | {"accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand"}
    kubectl.apply(volume | {"spec": spec})
    lab.kubelet.stages["train"] = success
    workspace = {"claimName": None, "size": "10Gi", "storageClassName": "by-hand"}
    async with lab.operator():
        await lab.submit(workspace=workspace, gang={"nodes": 1}, serve={"gpus": 1})
        await lab.until_condition("Serving", "True", seconds=PATIENCE)
        (old,) = await lab.until_pods("serve", 1)
        await lab.change(serve={"args": ["--max-num-seqs", "8"]})
        await lab.until_condition("Serving", "False", reason="Unschedulable", seconds=PATIENCE)
        (kept,) = await lab.until_pods("serve", 1)
        assert kept["metadata"]["uid"] == old["metadata"]["uid"]
        await lab.change(suspend=True)
        await lab.until_pods("serve", 0)
        await lab.change(suspend=False)
        await lab.until_condition("Serving", "True", seconds=PATIENCE)
    assert container(await deployment(lab))["args"][-2:] == ["--max-num-seqs", "8"]
