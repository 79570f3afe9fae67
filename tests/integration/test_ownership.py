"""What belongs to a run goes with it, and what does not is left alone."""

import asyncio
import json

from tests.cluster.kubectl import Kubectl
from tests.integration.api import until
from tests.integration.kubelet import runs_on, success
from tests.integration.lab import CLAIM, Lab


async def only_claims(lab: Lab) -> bool:
    return all(name.startswith("PersistentVolumeClaim/") for name in await lab.children())


async def test_deleting_a_run_takes_its_children_and_leaves_the_users_claim(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Ready", "True")
        await lab.delete()
        await until("all children to go", lambda: only_claims(lab))
        await asyncio.sleep(2)
        assert await only_claims(lab), "a child came back after its run was deleted"
    assert await lab.admin.get("PersistentVolumeClaim", lab.namespace, CLAIM)


async def test_a_run_that_is_deleted_while_it_prepares_leaves_nothing(lab: Lab) -> None:
    lab.kubelet.stages["prepare"] = runs_on
    async with lab.operator():
        await lab.submit()
        await lab.until_pods("prepare", 1)
        await lab.delete()
        await until("all children to go", lambda: only_claims(lab))
        await asyncio.sleep(2)
        assert await only_claims(lab)


async def test_a_run_made_anew_under_its_name_waits_for_the_old_ones_children(lab: Lab) -> None:
    lab.kubelet.stages["prepare"] = runs_on
    async with lab.operator():
        await lab.submit()
        await lab.until_pods("prepare", 1)
        await lab.delete()
        await lab.submit()
        lab.kubelet.stages["prepare"] = success
        await lab.until_condition("Prepared", "True")
        assert "NameConflict" not in [event["reason"] for event in await lab.events()]


async def test_an_object_of_somebody_else_is_never_taken_over(lab: Lab, kubectl: Kubectl) -> None:
    lab.kubelet.stages["train"] = success
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "r-serve", "namespace": lab.namespace}}
    kubectl("apply", "-f", "-", stdin=json.dumps(service | {"spec": {"ports": [{"port": 1}]}}))
    before = await lab.admin.get("Service", lab.namespace, "r-serve")
    async with lab.operator():
        await lab.submit()
        stalled = await lab.until_condition("Stalled", "True", reason="NameConflict")
        assert "Service r-serve exists already and was made by somebody else" in stalled["message"]
        assert before == await lab.admin.get("Service", lab.namespace, "r-serve")
        kubectl("-n", lab.namespace, "delete", "service", "r-serve")
        await lab.change(serve={"replicas": 2})  # any event; without one the name is tried again within a minute
        await lab.until_condition("Ready", "True")


async def test_a_job_of_somebody_else_stops_the_run_before_it_starts(lab: Lab) -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "r-prepare", "namespace": lab.namespace}}
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    await lab.admin.create(job | {"spec": {"suspend": True, "template": {"spec": pod}}})
    async with lab.operator():
        await lab.submit()
        stalled = await lab.until_condition("Stalled", "True", reason="NameConflict")
        assert "Job r-prepare" in stalled["message"]
