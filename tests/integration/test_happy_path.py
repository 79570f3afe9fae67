"""A run from its creation to a served model, and what stays still afterwards."""

import asyncio
import json

from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.integration.api import api_client, condition_of, until
from tests.integration.kubelet import ADAPTER, MERGED, runs_on, success
from tests.integration.lab import SPEC, Lab
from tests.integration.recorder import recording

STILL_SECONDS = 30.0
"""How long nothing may be written at Ready."""


async def versions(lab: Lab) -> dict[str, str]:
    objects = {"run": await lab.run()} | await lab.children()
    return {name: obj["metadata"]["resourceVersion"] for name, obj in objects.items()}


async def jobs_settled(lab: Lab) -> bool:
    """Whether the Job controller is through: it writes on, for itself, after the pods have succeeded."""
    jobs = [obj for name, obj in (await lab.children()).items() if name.startswith("Job/")]
    return all(condition_of(job, "Complete").get("status") == "True" for job in jobs)


async def test_a_run_goes_through_all_stages_and_then_keeps_still(
    lab: Lab, control_plane: ControlPlane, kubectl: Kubectl
) -> None:
    lab.kubelet.stages["train"] = success
    async with (
        api_client(control_plane.kubeconfig) as api,
        recording(api, lab.namespace) as recorder,
        lab.operator(resync_seconds=5.0),
    ):
        submitted = await lab.submit()
        await lab.until_condition("Ready", "True")
        status = (await lab.run())["status"]
        assert status["stage"] == "Serving"
        assert status["endpoint"] == f"http://r-serve.{lab.namespace}.svc/v1"
        assert status["adapter"] == ADAPTER.to_wire()
        assert status["merged"] == MERGED.to_wire()
        assert status["dataset"]["records"] == 8
        assert (status["training"]["progress"], status["training"]["loss"]) == ("100%", "0.05")
        assert [(each["attempt"], each["state"]) for each in status["attempts"]] == [(1, "Succeeded")]
        await lab.until_condition("Evaluated", "True")
        await until("the Job controller's last word on each Job", lambda: jobs_settled(lab))
        before = await versions(lab)
        await asyncio.sleep(STILL_SECONDS)  # the time itself is what is tested; several resyncs lie in it
        assert await versions(lab) == before
        again = {key: submitted[key] for key in ("apiVersion", "kind")}
        again |= {"metadata": {"name": "r", "namespace": lab.namespace}, "spec": SPEC}
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(again))
        await asyncio.sleep(3)
        after = await versions(lab)
        assert after.pop("run") >= before.pop("run")  # kubectl's own field ownership may be noted
        assert after == before
    assert recorder.made_twice() == {}
    assert {f"Job/r-{stage}" for stage in ("prepare", "train-1", "merge", "evaluate")} < set(recorder.uids)
    assert {"Service/r-train", "Service/r-serve", "Deployment/r-serve"} < set(recorder.uids)


async def test_each_transition_is_told_in_one_event(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Ready", "True")
    told = [event["reason"] for event in await lab.events()]
    for reason in ("Accepted", "Prepared", "AttemptStarted", "Trained", "Merged", "Serving", "Ready"):
        assert told.count(reason) == 1, f"{reason} in {told}"


async def test_an_adapter_only_run_is_ready_without_a_server(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit(merge={"enabled": False}, serve={"enabled": False})
        await lab.until_condition("Ready", "True", reason="Completed")
        status = (await lab.run())["status"]
    assert status["stage"] == "Succeeded"
    assert "endpoint" not in status
    assert {"Merged", "Serving"}.isdisjoint(each["type"] for each in status["conditions"])


async def test_more_replicas_are_rolled_out_and_a_server_that_is_not_wanted_goes(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Ready", "True")
        await lab.change(serve={"replicas": 2})
        await lab.until_pods("serve", 2)
        await lab.until_condition("Serving", "True")
        await lab.change(serve={"enabled": False})
        await lab.until_condition("Ready", "True", reason="Completed")

        async def gone() -> bool:
            return {"Deployment/r-serve", "Service/r-serve"}.isdisjoint(await lab.children())

        await until("the server's objects to go", gone)
        await until("no endpoint in the status", lambda: lab.without("endpoint"))


async def test_the_workspace_is_made_and_a_retained_one_taken_over(lab: Lab, kubectl: Kubectl) -> None:
    lab.kubelet.stages["prepare"] = runs_on
    async with lab.operator():
        await lab.submit(workspace={"claimName": None, "size": "1Gi", "storageClassName": "none"})
        claim = await until("the claim", lambda: lab.admin.get("PersistentVolumeClaim", lab.namespace, "r-workspace"))
        assert "ownerReferences" not in claim["metadata"]
        await lab.until_condition("Prepared", "False", reason="ClaimPending")
        kubectl("-n", lab.namespace, "delete", "fft", "r")
        await lab.until_gone("Job/r-prepare")
        await lab.submit(workspace={"claimName": None, "size": "1Gi", "storageClassName": "none"})
        await until("the new run's Job", lambda: lab.admin.get("Job", lab.namespace, "r-prepare"))
        kept = await lab.admin.get("PersistentVolumeClaim", lab.namespace, "r-workspace")
    assert kept
    assert kept["metadata"]["uid"] == claim["metadata"]["uid"]
