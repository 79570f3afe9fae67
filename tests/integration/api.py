"""The administrator's API client of the tests, and waiting for conditions."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from kubernetes.aio import client, config

from falcon_operator.controller.kube import Kube, path
from falcon_operator.objects import Object

T = TypeVar("T")


class Admin(Kube):
    """The operator's client, with the one verb that the operator itself does not need."""

    async def patch(self, kind: str, namespace: str, name: str, body: Object, subresource: str = "") -> Object:
        """A merge patch."""
        target = path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return await self._write("PATCH", target, body, content="application/merge-patch+json")

    async def create_event(self, namespace: str, event: Object) -> None:
        """Creates a core/v1 Event, the kind that kubelets write."""
        await self._write("POST", path("Event", namespace), event)

    async def remove(self, kind: str, namespace: str, name: str, grace: int | None = None) -> None:
        """Deletes the object under this name, whichever it is."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        await self._write(
            "DELETE", path(kind, namespace, name), body | ({} if grace is None else {"gracePeriodSeconds": grace})
        )


@asynccontextmanager
async def api_client(kubeconfig: Path) -> AsyncIterator[client.ApiClient]:
    """A client with the credentials of `kubeconfig`."""
    configuration = client.Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        yield api


async def until(what: str, probe: Callable[[], Awaitable[T | None]], seconds: float = 30.0) -> T:
    """The first result of `probe` that is neither None nor False; fails, naming `what`, in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = await probe()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        await asyncio.sleep(0.05)


def condition_of(obj: Object | None, kind: str) -> dict[str, Any]:
    """One condition of the object, empty where it has none of this type."""
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((dict(each) for each in conditions if each["type"] == kind), {})
