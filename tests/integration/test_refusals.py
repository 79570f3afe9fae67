"""What is refused by the operator itself, before the first child."""

from tests.integration.lab import Lab


async def test_what_a_schema_cannot_say_is_refused_with_the_fields_path(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit(training={"globalBatchSize": 7})
        refused = await lab.until_condition("Accepted", "False", reason="InvalidSpec")
        assert "spec.training.globalBatchSize" in refused["message"]
        assert (await lab.until_condition("Stalled", "True"))["reason"] == "InvalidSpec"
        assert await lab.children() == {}
        await lab.change(training={"globalBatchSize": 8})
        await lab.until_condition("Prepared", "True")


async def test_a_spec_that_becomes_invalid_undoes_nothing(lab: Lab) -> None:
    async with lab.operator():
        await lab.submit()
        await lab.until_pods("train", 2)
        await lab.change(gang={"nodes": 3})
        await lab.until_condition("Accepted", "False", reason="InvalidSpec")
        assert (await lab.until_condition("Prepared", "True"))["observedGeneration"] == 2
        await lab.change(gang={"nodes": 2})
        await lab.until_condition("Accepted", "True")
        assert "Job/r-train-1" in await lab.children()
