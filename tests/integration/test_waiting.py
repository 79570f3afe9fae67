"""What keeps pods from running shows as the stage condition's reason, and the run goes on once it is mended."""

import asyncio
import json

from tests.cluster.kubectl import Kubectl
from tests.integration.conftest import bound_claim
from tests.integration.kubelet import PREFIX
from tests.integration.lab import Lab

HELD = {"all": {"annotations": {f"{PREFIX}/hold": "start"}}}
PULL = "failed to pull and unpack image: docker.io/none: not found"


async def test_a_wrong_image_name_is_shown_and_then_forgotten(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit(podTemplate=HELD)
        (pod,) = await lab.until_pods("prepare", 1, "Pending")
        await lab.kubelet.report_waiting(pod, "ErrImagePull", PULL)
        shown = await lab.until_condition("Prepared", "False", reason="ImagePullBackOff")
        assert "trainer:test" in shown["message"]
        assert "not found" in shown["message"]
        before = (await lab.run())["metadata"]["resourceVersion"]
        await lab.kubelet.report_waiting(pod, "ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {PULL}')
        assert (await lab.until_condition("Ready", "False", reason="ImagePullBackOff"))["message"] == shown["message"]
        assert (await lab.run())["metadata"]["resourceVersion"] == before, (
            "the kubelet's two words are one to the status"
        )
        assert (await lab.until_condition("Stalled", "False"))["reason"] == "Progressing"
        await lab.kubelet.release(pod)
        await lab.until_condition("Prepared", "True")


async def test_a_missing_claim_is_named_and_found_when_it_is_made(lab: Lab, kubectl: Kubectl) -> None:
    """The scheduler's own words: it is a real one."""
    async with lab.operator():
        await lab.submit(dataset={"sources": [{"uri": "pvc://late/records.jsonl"}]})
        shown = await lab.until_condition("Prepared", "False", reason="ClaimNotFound")
        assert '"late"' in shown["message"]
        kubectl.apply(*bound_claim("late", lab.namespace))
        await lab.until_condition("Prepared", "True")


async def test_a_volume_that_cannot_be_mounted_shows_through_the_pods_events(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit(podTemplate=HELD)
        (pod,) = await lab.until_pods("prepare", 1, "Pending")
        await lab.kubelet.warn(pod, "FailedMount", 'MountVolume.SetUp failed for volume "x": secret "hub" not found')
        shown = await lab.until_condition("Prepared", "False", reason="MountFailed")
        assert 'secret "hub" not found' in shown["message"]


async def test_a_job_that_the_api_server_refuses_is_told_and_made_when_it_may_be(lab: Lab, kubectl: Kubectl) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "jobs", "namespace": lab.namespace}}
    kubectl("apply", "-f", "-", stdin=json.dumps(quota | {"spec": {"hard": {"count/jobs.batch": "0"}}}))
    async with lab.operator():
        await lab.submit()
        shown = await lab.until_condition("Prepared", "False", reason="ChildRefused")
        assert "Job r-prepare" in shown["message"]
        assert "exceeded quota: jobs" in shown["message"]
        before = (await lab.run())["metadata"]["resourceVersion"]
        await asyncio.sleep(2)  # several tries
        assert (await lab.run())["metadata"]["resourceVersion"] == before
        kubectl("-n", lab.namespace, "delete", "resourcequota", "jobs")
        await lab.until_condition("Prepared", "True")


async def test_a_quota_that_is_used_up_shows_through_the_jobs_events(lab: Lab, kubectl: Kubectl) -> None:
    """A real quota: the Job controller's Event is the only trace of it."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": lab.namespace}}
    kubectl("apply", "-f", "-", stdin=json.dumps(quota | {"spec": {"hard": {"pods": "0"}}}))
    async with lab.operator():
        await lab.submit()
        shown = await lab.until_condition("Prepared", "False", reason="QuotaExceeded")
        assert "exceeded quota: none" in shown["message"]
        kubectl("-n", lab.namespace, "delete", "resourcequota", "none")
        await lab.until_condition("Prepared", "True", seconds=60)
