"""A full list of all runs into the queue: before the first worker, and again every ten minutes.

kopf never says when its first list is over, and never tells of what vanished while a watch was broken. Only the runs
are listed: a look reads the children of its run from the API, so nothing could be learnt from listing them here.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

import aiohttp

from falcon_operator.api.names import KIND
from falcon_operator.controller.kube import ApiError, Kube
from falcon_operator.controller.queue import WorkQueue
from falcon_operator.objects import Key, Object

SPREAD = 0.02
"""Seconds between the looks of a repeated list: at most 50 runs a second beside the daily business."""
RETRY = 2.0

log = logging.getLogger(__name__)


class Resync:
    """Lists the runs of `namespaces` (all, if there are none) every `period` seconds."""

    def __init__(
        self,
        kube: Kube,
        queue: WorkQueue,
        namespaces: tuple[str, ...],
        period: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._kube, self._queue, self._period, self._clock = kube, queue, period, clock
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._done: float | None = None

    async def first(self) -> None:
        """Returns once all runs are queued; waits for the CRD and for the API server as long as it takes."""
        while True:
            try:
                await self._all(0.0)
                return
            except ApiError as error:
                missing = "the CRD is not there yet: " if error.status == 404 else ""
                log.warning("cannot list the runs, tries again: %s%s", missing, error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning("cannot list the runs, tries again: %s", str(error) or repr(error))
            await asyncio.sleep(RETRY)

    async def repeat(self) -> None:
        """Lists for ever; an error costs one turn."""
        while True:
            await asyncio.sleep(self._period)
            try:
                await self._all(SPREAD)
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                log.warning("cannot list the runs: %s", str(error) or repr(error))

    @property
    def stale(self) -> bool:
        """Whether two turns in a row have failed."""
        return self._done is not None and self._clock() - self._done > 2.5 * self._period

    @property
    def done(self) -> bool:
        """Whether the first list is over."""
        return self._done is not None

    async def _all(self, spread: float) -> None:
        found: list[Object] = []
        for namespace in self._namespaces:
            found += await self._kube.find(KIND, namespace)
        for index, run in enumerate(found):
            self._queue.add(Key(run["metadata"]["namespace"], run["metadata"]["name"]), spread * index)
        self._done = self._clock()
