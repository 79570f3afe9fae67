"""What is done beside a server that goes on: its model is merged anew in another type, evaluated, published."""

import asyncio
from typing import Any

from falcon_operator.objects import Object, labels
from falcon_trainer.config import Artifact
from falcon_trainer.outcome import ExitCode, Outcome
from tests.integration.api import condition_of, until
from tests.integration.kubelet import ADAPTER, MERGED, STAGE, End, failure, runs_on, success
from tests.integration.lab import Lab

NEW = Artifact(path="runs/r/merged/0d", digest=f"sha256:{'0d' * 32}", bytes=8192)
DISK_FULL = failure(ExitCode.CANNOT_WRITE, "DiskFull", "9 GB are missing", retryable=False)
DENIED = failure(ExitCode.NO_PERMISSION, "PermissionDenied", "the token may not write", retryable=False)
SILENT = failure(ExitCode.DATA, "NoAnswer", "the server says nothing", retryable=False)
PATIENT = 120.0
"""Seconds for several stages in a row on a machine that is busy."""
TARGET, ADAPTER_TARGET = "s3://models/bot", "s3://models/adapter"


def merged_anew(pod: Object) -> End:
    """The merge makes another model than the first time."""
    result = {"merged": NEW.to_wire(), "merge": {"dtype": "float16", "tensors": 9, "changedTensors": 4}}
    return 0, Outcome(reason="Completed", message="merge completed", result=result)


def published(pod: Object) -> End:
    """Adapter and merged model are where they should be."""
    copies = [
        {"uri": TARGET, "what": "merged", "digest": MERGED.digest, "bytes": MERGED.bytes},
        {"uri": ADAPTER_TARGET, "what": "adapter", "digest": ADAPTER.digest},
    ]
    assert labels(pod)[STAGE] == "publish"
    return 0, Outcome(reason="Completed", message="publish completed", result={"published": copies})


async def server(lab: Lab) -> tuple[str, int, str]:
    """The server as it is: its uid, its generation, and the ConfigMap that its pods are told by."""
    found = (await lab.children())["Deployment/r-serve"]
    volumes: list[dict[str, Any]] = found["spec"]["template"]["spec"]["volumes"]
    config = next(volume["configMap"]["name"] for volume in volumes if "configMap" in volume)
    return found["metadata"]["uid"], found["metadata"]["generation"], config


async def stage_of(lab: Lab) -> str:
    return str((await lab.run())["status"]["stage"])


async def test_another_type_is_merged_while_the_old_server_goes_on(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Evaluated", "True", seconds=PATIENT)
        before = await server(lab)
        first_job = (await lab.children())["Job/r-merge"]["metadata"]["uid"]
        first_answers = (await lab.children())["Job/r-evaluate"]["metadata"]["uid"]
        lab.kubelet.stages["merge"] = runs_on
        await lab.change(merge={"dtype": "float16"})
        (pod,) = await lab.until_pods("merge", 1)
        await lab.until_condition("Merged", "Unknown", reason="Running", seconds=PATIENT)
    # Another operator finds the merge under way.
    async with lab.operator():
        assert (await lab.children())["Job/r-merge"]["metadata"]["uid"] != first_job
        assert condition_of(await lab.run(), "Serving")["status"] == "True"
        assert await stage_of(lab) == "Merging"
        await asyncio.sleep(1)  # several looks lie in it
        assert await server(lab) == before
        await lab.kubelet.end(pod, *merged_anew(pod))
        await lab.until_condition("Merged", "True", seconds=PATIENT)
        await lab.until_condition("Ready", "True", seconds=PATIENT)
        uid, generation, config = await server(lab)
        assert (uid, generation > before[1], config != before[2]) == (before[0], True, True)
        status = (await lab.run())["status"]
        assert (status["merged"], status["merge"]["dtype"]) == (NEW.to_wire(), "float16")

        async def answers_of_the_new_model() -> bool:
            return bool((await lab.run())["status"]["evaluation"]["merged"] == NEW.digest)

        await until("the evaluation of the new model", answers_of_the_new_model, PATIENT)
        assert (await lab.children())["Job/r-evaluate"]["metadata"]["uid"] != first_answers


async def test_a_merge_that_fails_leaves_the_server_and_is_taken_back(lab: Lab) -> None:
    lab.kubelet.stages["train"] = success
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Ready", "True", seconds=PATIENT)
        before = await server(lab)
        lab.kubelet.stages["merge"] = lambda pod: DISK_FULL
        await lab.change(merge={"dtype": "float32"})
        shown = await lab.until_condition("Stalled", "True", reason="DiskFull", seconds=PATIENT)
        assert "9 GB are missing" in shown["message"]
        assert condition_of(await lab.run(), "Serving")["status"] == "True"
        lab.kubelet.stages["merge"] = success
        await lab.change(merge={"dtype": "auto"})
        await lab.until_condition("Ready", "True", seconds=PATIENT)
        await lab.until_condition("Stalled", "False", seconds=PATIENT)
        assert await server(lab) == before


async def test_results_are_published_beside_the_server(lab: Lab) -> None:
    lab.kubelet.stages |= {"train": success, "publish": lambda pod: DENIED}
    async with lab.operator():
        await lab.submit(publish=[{"uri": TARGET}])
        await lab.until_condition("Serving", "True", seconds=PATIENT)
        shown = await lab.until_condition("Stalled", "True", reason="PermissionDenied", seconds=PATIENT)
        assert "kubectl delete job r-publish" in shown["message"]
        # Another list is another try.
        lab.kubelet.stages["publish"] = published
        await lab.change(publish=[{"uri": TARGET}, {"uri": ADAPTER_TARGET, "what": "adapter"}])
        await lab.until_condition("Published", "True", seconds=PATIENT)
        await lab.until_condition("Ready", "True", seconds=PATIENT)
        copies = (await lab.run())["status"]["published"]
        assert [(each["uri"], each["digest"]) for each in copies] == [
            (TARGET, MERGED.digest),
            (ADAPTER_TARGET, ADAPTER.digest),
        ]
        await lab.change(publish=None)
        await lab.until_gone("Job/r-publish")

        async def told_no_more() -> bool:
            return not condition_of(await lab.run(), "Published")

        await until("the condition to go", told_no_more, PATIENT)
        await lab.until_condition("Ready", "True", seconds=PATIENT)


async def test_an_adapter_is_published_before_it_is_merged(lab: Lab) -> None:
    lab.kubelet.stages |= {"train": success, "merge": runs_on, "publish": published}
    async with lab.operator():
        await lab.submit(publish=[{"uri": ADAPTER_TARGET, "what": "adapter"}])
        await lab.until_condition("Published", "True", seconds=PATIENT)
        assert condition_of(await lab.run(), "Merged")["status"] == "Unknown"


async def test_an_evaluation_that_fails_takes_nothing_from_ready_and_is_tried_again_on_demand(lab: Lab) -> None:
    lab.kubelet.stages |= {"train": success, "evaluate": lambda pod: SILENT}
    async with lab.operator():
        await lab.submit()
        await lab.until_condition("Evaluated", "False", reason="NoAnswer", seconds=PATIENT)
        await lab.until_condition("Ready", "True", seconds=PATIENT)
        warnings = [event["reason"] for event in await lab.events() if event["type"] == "Warning"]
        assert warnings.count("NoAnswer") == 1
        lab.kubelet.stages["evaluate"] = success
        await lab.admin.remove("Job", lab.namespace, "r-evaluate")
        await lab.until_condition("Evaluated", "True", seconds=PATIENT)
