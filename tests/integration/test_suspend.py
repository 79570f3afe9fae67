"""Suspension, and the contract with Kueue: who starts and stops the pods of a Job that stays."""

from typing import Any

from falcon_operator.api.names import QUEUE_LABEL
from falcon_operator.objects import Object
from tests.integration.api import until
from tests.integration.kubelet import success
from tests.integration.lab import Lab


async def attempts(lab: Lab) -> list[tuple[int, str]]:
    found = (await lab.run())["status"].get("attempts", [])
    return [(each["attempt"], each["state"]) for each in found]


def uids(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


async def test_a_suspended_gang_saves_stops_and_goes_on_under_the_same_attempt(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        first = await lab.until_pods("train", 2)
        job = (await lab.children())["Job/r-train-1"]["metadata"]["uid"]
        await lab.change(suspend=True)
        await lab.until_condition("Suspended", "True")
        assert (await lab.run())["status"]["stage"] == "Suspended"
        assert await lab.kubelet.pods_of("train") == []
        assert await attempts(lab) == [(1, "Suspended")]
        await lab.change(suspend=False)
        second = await lab.until_pods("train", 2)
        assert uids(first).isdisjoint(uids(second))
        lab.kubelet.stages["train"] = success
        await lab.until_condition("Ready", "True")
        assert await attempts(lab) == [(1, "Succeeded")]
        assert (await lab.children())["Job/r-train-1"]["metadata"]["uid"] == job
        assert (await lab.run())["status"]["training"].get("disruptions", 0) == 0
        await lab.until_condition("Suspended", "False")


async def test_a_gang_goes_on_with_another_number_of_nodes(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        await lab.until_pods("train", 2)
        await lab.change(suspend=True)
        await lab.until_condition("Suspended", "True")
        await lab.change(suspend=False, gang={"nodes": 1})
        await lab.until_pods("train", 1, attempt=2)

        async def written() -> bool:
            return await attempts(lab) == [(1, "Suspended"), (2, "Running")]

        await until("the second record", written)


async def test_a_suspended_server_is_scaled_to_nothing_and_comes_back(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Ready", "True")
        await lab.change(suspend=True)
        await lab.until_condition("Suspended", "True")
        await until("the server's pods to go", lambda: _none(lab, "serve"))
        await lab.change(suspend=False)
        await lab.until_condition("Ready", "True")


async def _none(lab: Lab, stage: str) -> bool:
    return not await lab.kubelet.pods_of(stage)


class Kueue:
    """Does to a Job what Kueue does: admits it with the node selector of a flavour, evicts it, admits it again."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    async def waiting(self, name: str) -> Object:
        """The Job, once it waits for admission."""

        async def there() -> Object | None:
            job = (await self._lab.children()).get(f"Job/{name}")
            return job if job and job["spec"].get("suspend") else None

        return await until(f"{name} to wait in its queue", there)

    async def admit(self, name: str, flavour: dict[str, str]) -> None:
        spec: dict[str, Any] = {"template": {"spec": {"nodeSelector": flavour}}}
        await self._patch(name, spec)
        await self._patch(name, {"suspend": False})

    async def evict(self, name: str) -> None:
        await self._patch(name, {"suspend": True})

    async def _patch(self, name: str, spec: dict[str, Any]) -> None:
        await self._lab.admin.patch("Job", self._lab.namespace, name, {"spec": spec})


async def test_a_queue_admits_evicts_and_readmits_one_and_the_same_attempt(lab: Lab) -> None:
    queue = Kueue(lab)
    async with lab.operator():
        await lab.submit(labels={QUEUE_LABEL: "team"})
        job = await queue.waiting("r-train-1")
        assert job["metadata"]["labels"][QUEUE_LABEL] == "team"
        await lab.until_condition("Trained", "Unknown", reason="Queued")
        await queue.admit("r-train-1", {"type": "kwok"})
        first = await lab.until_pods("train", 2)
        assert all(pod["spec"]["nodeSelector"] == {"type": "kwok"} for pod in first)
        await lab.until_condition("Trained", "Unknown", reason="Running")
        await queue.evict("r-train-1")
        await lab.until_condition("Trained", "Unknown", reason="Queued")
        await until("the evicted pods to go", lambda: _none(lab, "train"))
        status = (await lab.run())["status"]
        assert await attempts(lab) == [(1, "Queued")]
        assert status["training"]["disruptions"] == 1
        assert (await queue.waiting("r-train-1"))["metadata"]["uid"] == job["metadata"]["uid"]
        await queue.admit("r-train-1", {"type": "kwok"})
        second = await lab.until_pods("train", 2)
        assert uids(first).isdisjoint(uids(second))
        lab.kubelet.stages["train"] = success
        await lab.until_condition("Ready", "True")
        assert await attempts(lab) == [(1, "Succeeded")]
        assert "Job/r-train-2" not in await lab.children()
