"""The prepare stage: its Job tries again by itself, and nothing follows before it succeeds."""

import asyncio

from falcon_trainer.outcome import ExitCode
from tests.integration.api import until
from tests.integration.kubelet import failure, runs_on, success
from tests.integration.lab import Lab

BROKEN = "records.jsonl, line 3: the field response is missing"
BAD_DATA = failure(ExitCode.DATA, "InvalidRecord", BROKEN, retryable=False)
AWAY = failure(ExitCode.UNAVAILABLE, "HubUnreachable", "the hub does not answer", retryable=True)


async def test_bad_data_ends_the_run_before_any_training_pod(lab: Lab) -> None:
    lab.kubelet.stages["prepare"] = lambda pod: BAD_DATA
    async with lab.operator():
        await lab.submit()
        shown = await lab.until_condition("Prepared", "False", reason="InvalidRecord")
        assert BROKEN in shown["message"]
        assert (await lab.until_condition("Stalled", "True"))["reason"] == "InvalidRecord"
        await asyncio.sleep(1)
        names = set(await lab.children())
        assert not any("train" in name for name in names), names
        # The file is mended; deleting the Job is the sign to try again.
        lab.kubelet.stages["prepare"] = success
        await lab.admin.remove("Job", lab.namespace, "r-prepare")
        await lab.until_condition("Prepared", "True")


async def test_a_remote_that_is_away_is_asked_again(lab: Lab) -> None:
    lab.kubelet.stages["prepare"] = lambda pod: AWAY
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Prepared", "Unknown", reason="HubUnreachable")
        lab.kubelet.stages["prepare"] = success
        await lab.until_condition("Prepared", "True", seconds=60)


async def test_a_result_that_was_lost_with_its_pod_is_asked_for_again(lab: Lab) -> None:
    lab.kubelet.stages["prepare"] = runs_on
    async with lab.operator():
        await lab.submit()
        (pod,) = await lab.until_pods("prepare", 1)
    first = await lab.admin.get("Job", lab.namespace, "r-prepare")
    await lab.kubelet.end(pod, *success(pod))  # while no operator runs
    await until("the Job to complete", lambda: _completed(lab))
    await lab.kubelet.lose(pod)
    lab.kubelet.stages["prepare"] = success
    async with lab.operator():
        await lab.until_condition("Prepared", "True")
    second = await lab.admin.get("Job", lab.namespace, "r-prepare")
    assert first
    assert second
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def _completed(lab: Lab) -> bool:
    job = await lab.admin.get("Job", lab.namespace, "r-prepare")
    conditions = ((job or {}).get("status") or {}).get("conditions") or []
    return any(each["type"] == "Complete" for each in conditions)
