"""A watch kept from start to end: every uid that was ever seen under a name."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from kubernetes.aio import client, watch

from falcon_operator.api.names import RUN_LABEL


class Recorder:
    """uids and resourceVersions by KIND/NAME."""

    def __init__(self) -> None:
        self.uids: defaultdict[str, set[str]] = defaultdict(set)

    def made_twice(self) -> dict[str, set[str]]:
        """Names under which more than one object was seen."""
        return {name: uids for name, uids in self.uids.items() if len(uids) > 1}


@asynccontextmanager
async def recording(api: client.ApiClient, namespace: str) -> AsyncIterator[Recorder]:
    """Records the children of all runs of a namespace."""
    recorder = Recorder()
    core, batch, apps = client.CoreV1Api(api), client.BatchV1Api(api), client.AppsV1Api(api)
    calls: dict[str, Any] = {
        "Job": batch.list_namespaced_job,
        "Service": core.list_namespaced_service,
        "Deployment": apps.list_namespaced_deployment,
        "ConfigMap": core.list_namespaced_config_map,
    }
    tasks = [asyncio.create_task(_record(recorder, kind, call, namespace)) for kind, call in calls.items()]
    try:
        yield recorder
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _record(recorder: Recorder, kind: str, call: Any, namespace: str) -> None:
    async with watch.Watch() as stream:
        async for event in stream.stream(call, namespace, label_selector=RUN_LABEL):
            metadata = event["raw_object"]["metadata"]
            recorder.uids[f"{kind}/{metadata['name']}"].add(metadata["uid"])
