"""A name that several runs share: who answers to it, whatever becomes of the runs."""

from falcon_operator.objects import Object
from tests.integration.api import until
from tests.integration.kubelet import success
from tests.integration.lab import Lab

NAME = "assistant"
ALIAS = {"serve": {"alias": NAME}}
PATIENCE = 120.0
"""Seconds; a whole run may lie in it, on a machine that is busy otherwise."""


async def service(lab: Lab) -> Object | None:
    return await lab.admin.get("Service", lab.namespace, NAME)


async def until_led_to(lab: Lab, run: str) -> Object:
    """The alias's Service, once it leads to this run, which says so."""

    async def led() -> Object | None:
        found = await service(lab)
        told = (await lab.run(run)).get("status", {}).get("alias")
        right = found and found["spec"]["selector"]["falcon-finetune.dev/run"] == run and told == NAME
        return found if right else None

    return await until(f"the alias to lead to {run}", led, PATIENCE)


async def until_lost(lab: Lab, run: str) -> None:
    """Waits until the run does not say any more that it answers to the name."""
    await until(f"{run} to have lost the name", lambda: lab.without("alias", run), PATIENCE)


async def test_the_newest_run_that_answers_has_the_name_and_gives_it_back(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit("a", **ALIAS)
        first = await until_led_to(lab, "a")
        await lab.submit("b", **ALIAS)
        second = await until_led_to(lab, "b")
        assert second["metadata"]["uid"] == first["metadata"]["uid"]
        assert second["spec"]["clusterIP"] == first["spec"]["clusterIP"]
        await until_lost(lab, "a")
        await lab.change("b", suspend=True)
        await until_led_to(lab, "a")
        await lab.change("b", suspend=False)
        await until_led_to(lab, "b")
        await until_lost(lab, "a")
        await lab.delete("b")
        third = await until_led_to(lab, "a")
        assert third["metadata"]["uid"] == first["metadata"]["uid"]
        await lab.change("a", serve={"alias": None})

        async def gone() -> bool:
            return await service(lab) is None

        await until("the Service to go with the last run that wants it", gone, PATIENCE)
        await until_lost(lab, "a")
    told = [event["reason"] for event in await lab.events("a")]
    assert told.count("AliasTaken") >= 3


async def test_a_service_of_somebody_else_is_never_taken_over(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    alien = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": lab.namespace}}
    await lab.admin.create(alien | {"spec": {"ports": [{"port": 1}]}})
    before = await service(lab)
    async with lab.operator():
        await lab.submit(**ALIAS)
        found = await lab.until_condition("Stalled", "True", reason="NameConflict", seconds=PATIENCE)
        assert f"Service {NAME} exists already" in found["message"]
        assert (await lab.run())["status"]["endpoint"]
        assert await service(lab) == before
        await lab.admin.remove("Service", lab.namespace, NAME)
        await lab.change(serve={"replicas": 2})  # any event; without one the name is tried again within a minute
        await until_led_to(lab, "r")
