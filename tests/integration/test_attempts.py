"""How attempts of the gang end, and what follows."""

import asyncio

from falcon_trainer.outcome import ExitCode
from tests.integration.api import until
from tests.integration.kubelet import failure, success
from tests.integration.lab import Lab

SPOILT = failure(ExitCode.DATA, "DataDamaged", "the prepared data set is damaged", retryable=False)
CRASH = failure(ExitCode.INTERNAL, "InternalError", "rank 1 ended with an error", retryable=True)


async def attempts(lab: Lab) -> list[tuple[int, str, str | None]]:
    found = (await lab.run())["status"].get("attempts", [])
    return [(each["attempt"], each["state"], each.get("reason")) for each in found]


async def test_a_deleted_train_pod_leads_to_a_second_attempt(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        first = await lab.until_pods("train", 2)
        await lab.kubelet.lose(first[1])
        second = await lab.until_pods("train", 2, attempt=2)
        lab.kubelet.stages["train"] = success
        await lab.until_condition("Trained", "True")
        status = (await lab.run())["status"]
        assert await attempts(lab) == [(1, "Disrupted", "PodDeleted"), (2, "Succeeded", None)]
        assert first[1]["metadata"]["name"] in status["attempts"][0]["message"]
        assert status["training"]["disruptions"] == 1
        assert status["training"].get("restarts", 0) == 0
        assert {pod["metadata"]["uid"] for pod in first}.isdisjoint(pod["metadata"]["uid"] for pod in second)


async def test_a_fault_that_may_pass_is_counted_and_tried_again(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        pods = await lab.until_pods("train", 2)
        await lab.kubelet.end(pods[1], *CRASH)
        await lab.until_pods("train", 2, attempt=2)
        status = (await lab.run())["status"]
    assert (await attempts(lab))[0] == (1, "Faulted", "InternalError")
    assert status["training"]["restarts"] == 1
    assert status["training"]["lastFailure"]["attempt"] == 1
    assert "rank 1 ended with an error" in status["training"]["lastFailure"]["message"]


async def test_the_cause_is_told_and_not_what_followed_from_it(lab: Lab) -> None:
    lost = failure(ExitCode.TRY_AGAIN, "RankLost", "another rank went away", retryable=True)
    async with lab.operator():
        await lab.submit()
        pods = await lab.until_pods("train", 2)
        await asyncio.gather(lab.kubelet.end(pods[0], *lost), lab.kubelet.end(pods[1], *CRASH))
        await lab.until_pods("train", 2, attempt=2)
    assert (await attempts(lab))[0] == (1, "Faulted", "InternalError")


async def test_a_fault_that_would_come_again_ends_the_run_until_its_job_is_deleted(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        pods = await lab.until_pods("train", 2)
        await lab.kubelet.end(pods[0], *SPOILT)
        stalled = await lab.until_condition("Stalled", "True", reason="DataDamaged")
        assert f"kubectl delete job r-train-1 -n {lab.namespace}" in stalled["message"]
        assert (await lab.run())["status"]["stage"] == "Failed"
        await asyncio.sleep(1)
        assert "Job/r-train-2" not in await lab.children()
        await lab.admin.remove("Job", lab.namespace, "r-train-1")
        await lab.until_pods("train", 2, attempt=2)
        assert (await lab.until_condition("Stalled", "False"))["reason"] == "Progressing"


async def test_restarts_end_when_they_are_used_up_and_go_on_when_more_are_allowed(lab: Lab) -> None:
    lab.kubelet.stages["train"] = lambda pod: CRASH
    async with lab.operator():
        await lab.submit(gang={"maxRestarts": 1})
        stalled = await lab.until_condition("Stalled", "True", reason="RestartsExhausted", seconds=60)
        assert "gang.maxRestarts allows 1" in stalled["message"]
        assert [state for _, state, _ in await attempts(lab)] == ["Faulted", "Faulted"]
        lab.kubelet.stages["train"] = success
        await lab.change(gang={"maxRestarts": 2})
        await lab.until_condition("Trained", "True", seconds=60)
        assert (await attempts(lab))[-1] == (3, "Succeeded", None)


async def test_the_rest_of_a_gang_is_stopped_where_the_job_controller_sees_nothing(lab: Lab) -> None:
    """A pod that is deleted on a silent node stays Terminating, and its Job goes on as if nothing had happened."""
    async with lab.operator():
        await lab.submit()
        pods = await lab.until_pods("train", 2)
        lab.kubelet.silent.add(pods[1]["metadata"]["name"])
        await lab.kubelet.lose(pods[1], grace=3)
        await lab.until_pods("train", 2, attempt=2)
        assert (await attempts(lab))[0] == (1, "Disrupted", "PodDeleted")


async def test_an_attempt_whose_job_was_deleted_is_followed_by_the_next_number(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        await lab.until_pods("train", 2)
        await lab.admin.remove("Job", lab.namespace, "r-train-1")
        await lab.until_pods("train", 2, attempt=2)
        assert (await attempts(lab))[0] == (1, "Disrupted", "JobDeleted")


async def test_a_result_that_was_lost_with_its_pod_is_reported_by_the_next_attempt(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        pods = await lab.until_pods("train", 2)
    for pod in pods:  # while no operator runs
        await lab.kubelet.end(pod, *success(pod))
    await until("the Job to complete", lambda: _complete(lab, "r-train-1"))
    await lab.kubelet.lose(pods[0])
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.until_condition("Trained", "True", seconds=60)
        assert await attempts(lab) == [(1, "Disrupted", "ResultLost"), (2, "Succeeded", None)]


async def _complete(lab: Lab, name: str) -> bool:
    job = await lab.admin.get("Job", lab.namespace, name)
    conditions = ((job or {}).get("status") or {}).get("conditions") or []
    return any(each["type"] == "Complete" for each in conditions)
