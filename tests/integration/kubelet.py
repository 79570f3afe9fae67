"""What a kubelet would report: kwok starts pods, this ends them.

kwok's annotations (tests/cluster/kwok.py) make containers end; a pod that is deleted ends with 143 as the launcher
does, since kwok itself would remove it without an end and the Job controller would wait for one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp

from falcon_operator.controller.kube import ApiError
from falcon_operator.objects import Object, annotations, being_deleted, labels, stamp, status
from falcon_trainer.config import Artifact
from falcon_trainer.outcome import Outcome
from tests.integration.api import Admin

PREFIX = "kwok.falcon-finetune.dev"
INDEX = "batch.kubernetes.io/job-completion-index"
STAGE = "falcon-finetune.dev/stage"

DATASET = {"records": 8, "sequences": 8, "tokens": 512, "packingEfficiency": "0.5"}
ADAPTER = Artifact(path="runs/r/adapter/0a", digest=f"sha256:{'0a' * 32}", bytes=1024)
MERGED = Artifact(path="runs/r/merged/0b", digest=f"sha256:{'0b' * 32}", bytes=4096)
RESULTS: dict[str, dict[str, Any]] = {
    "prepare": {"dataset": DATASET, "model": {"path": "base"}},
    "train": {"adapter": ADAPTER.to_wire(), "step": 60, "loss": "0.05"},
    "merge": {"merged": MERGED.to_wire(), "merge": {"dtype": "auto", "tensors": 9, "changedTensors": 4}},
    "evaluate": {"evaluation": {"prompts": 4, "answered": 4, "changed": 3}},
}

End = tuple[int, Outcome | str]
"""Exit code and termination message."""
Fate = Callable[[Object], End | None]
"""How a running pod ends; None: it runs on."""


def success(pod: Object) -> End:
    """The stage ends well; of a gang only rank 0 tells the result."""
    stage, index = labels(pod)[STAGE], labels(pod).get(INDEX, "0")
    return 0, Outcome(reason="Completed", message=f"{stage} completed", result=RESULTS[stage] if index == "0" else None)


def runs_on(pod: Object) -> End | None:
    """The stage does not end."""


def failure(code: int, reason: str, message: str, *, retryable: bool) -> End:
    """The stage ends with this outcome."""
    return code, Outcome(reason=reason, message=message, retryable=retryable)


class Kubelet:
    """Decides the fate of the pods of one namespace: by stage, and by pod name before that."""

    def __init__(self, admin: Admin, namespace: str) -> None:
        self._admin, self._namespace = admin, namespace
        self.stages: dict[str, Fate] = {"prepare": success, "merge": success, "evaluate": success}
        self.pods: dict[str, Fate] = {}
        self.silent: set[str] = set()
        """Pods on nodes that do not report: once deleted, they stay Terminating."""

    async def pods_of(self, stage: str) -> list[Object]:
        """The pods of a stage, the lowest index of the newest attempt last."""
        return await self._admin.find("Pod", self._namespace, labels=f"{STAGE}={stage}")

    async def lose(self, pod: Object, grace: int = 1) -> None:
        """Deletes the pod, as a person or a drain would."""
        await self._admin.remove("Pod", self._namespace, pod["metadata"]["name"], grace)

    async def end(self, pod: Object, code: int, message: Outcome | str) -> None:
        """Ends the pod's container."""
        text = message.encode() if isinstance(message, Outcome) else message
        await self._annotate(pod, {f"{PREFIX}/exit-code": str(code), f"{PREFIX}/message": text})

    async def release(self, pod: Object) -> None:
        """Lets a pod that was held start."""
        await self._annotate(pod, {f"{PREFIX}/hold": None})

    async def report(self, pod: Object, told: dict[str, Any]) -> None:
        """Writes into the pod's status, as its kubelet or the scheduler would."""
        await self._admin.patch("Pod", self._namespace, pod["metadata"]["name"], {"status": told}, "status")

    async def report_waiting(self, pod: Object, reason: str, message: str) -> None:
        """The container waits for this reason."""
        container = {"name": "stage", "image": "trainer:test", "imageID": "", "ready": False, "restartCount": 0}
        state = {"waiting": {"reason": reason, "message": message}}
        await self.report(pod, {"containerStatuses": [container | {"state": state}]})

    async def warn(self, about: Object, reason: str, message: str) -> None:
        """An Event about the object, as the kubelet writes them."""
        metadata = about["metadata"]
        regarding = {name: metadata[name] for name in ("name", "namespace", "uid")}
        now = stamp(datetime.now(UTC))
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": self._namespace},
            "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"], **regarding},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet"},
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        await self._admin.create_event(self._namespace, event)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Kubelet"]:
        """Plays until the block ends."""
        task = asyncio.create_task(self._play())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _play(self) -> None:
        while True:
            with suppress(aiohttp.ClientError, OSError):  # the API server is being restarted
                for pod in await self._admin.find("Pod", self._namespace):
                    with suppress(ApiError):  # the pod went away in between
                        await self._attend(pod)
            await asyncio.sleep(0.1)

    async def _attend(self, pod: Object) -> None:
        if status(pod).get("phase") != "Running" or f"{PREFIX}/exit-code" in annotations(pod):
            return
        if being_deleted(pod):
            if pod["metadata"]["name"] not in self.silent:
                await self.report(pod, stopped(pod))
            return
        fate = self.pods.get(pod["metadata"]["name"]) or self.stages.get(labels(pod).get(STAGE, ""))
        if fate and (end := fate(pod)):
            await self.end(pod, *end)

    async def _annotate(self, pod: Object, values: dict[str, str | None]) -> None:
        body = {"metadata": {"annotations": values}}
        await self._admin.patch("Pod", self._namespace, pod["metadata"]["name"], body)


def stopped(pod: Object) -> dict[str, Any]:
    """The status of a pod whose launcher was asked to stop."""
    outcome = Outcome(reason="Stopped", message="train was stopped on request", retryable=True)
    now = stamp(datetime.now(UTC))
    ended = {"exitCode": 143, "reason": "Error", "message": outcome.encode(), "startedAt": now, "finishedAt": now}
    container = {"name": "stage", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {"phase": "Failed", "containerStatuses": [container | {"state": {"terminated": ended}}]}
