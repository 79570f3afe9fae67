"""A run from its creation to a served model, and what stays still afterwards."""

from tests.integration.kubelet import success
from tests.integration.lab import Lab


async def test_a_run_goes_through_all_stages_to_ready(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Ready", "True")
        run = await lab.run()
    status = run["status"]
    assert status["stage"] == "Serving"
    assert status["endpoint"] == f"http://r-serve.{lab.namespace}.svc/v1"
    assert status["adapter"]["bytes"] == 1024
    assert status["merged"]["bytes"] == 4096
    assert [(each["attempt"], each["state"]) for each in status["attempts"]] == [(1, "Succeeded")]
    print(status)
    print([(e["reason"], e["message"]) for e in await lab.events()])
