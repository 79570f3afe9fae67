"""The workers: each takes a run from the queue, looks at it, decides, and carries out what was decided."""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp

from falcon_operator import metrics
from falcon_operator.controller.apply import Applier, ChildRefusedError
from falcon_operator.controller.kube import ApiError
from falcon_operator.controller.observe import Observer
from falcon_operator.controller.queue import WorkQueue
from falcon_operator.controller.reconcile import reconcile
from falcon_operator.leadership import LeadershipLostError
from falcon_operator.objects import Key
from falcon_operator.stages.settings import StageSettings

LONGEST_LOOK = 120.0
"""Seconds; every request is bounded by itself, this bounds their sum."""

log = logging.getLogger(__name__)


class Worker:
    """One of several; a run is never looked at by two of them at once."""

    def __init__(self, queue: WorkQueue, observer: Observer, applier: Applier, settings: StageSettings) -> None:
        self._queue, self._observer, self._applier, self._settings = queue, observer, applier, settings

    async def run(self) -> None:
        """Works for ever. Raises LeadershipLostError when this process must not act any more."""
        while True:
            key = await self._queue.get()
            try:
                await self._attend(key)
            finally:
                self._queue.done(key)
                metrics.QUEUE_DEPTH.set(self._queue.depth)

    async def _attend(self, key: Key) -> None:
        begin = time.monotonic()
        where = {"namespace": key.namespace, "run": key.name}
        try:
            async with asyncio.timeout(LONGEST_LOOK):
                again = await self._look(key)
        except LeadershipLostError:
            raise
        except ChildRefusedError:
            self._queue.retry(key)  # the next look tells it in the status
        except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
            metrics.RECONCILE_ERRORS.inc()
            log.warning("tries again in %.1f s: %s", self._queue.retry(key), str(error) or repr(error), extra=where)
        except Exception:
            metrics.RECONCILE_ERRORS.inc()
            log.exception("tries again in %.1f s", self._queue.retry(key), extra=where)
        else:
            self._queue.forget(key)
            if again is not None:
                self._queue.add(key, again)
        metrics.RECONCILE_SECONDS.observe(time.monotonic() - begin)

    async def _look(self, key: Key) -> float | None:
        """One look; the seconds until the next one that is due without an event."""
        seen = await self._observer.observe(key)
        if seen is None:
            metrics.forget(key)
            for heir in await self._observer.heirs(key):
                self._queue.add(heir)
            return None
        snapshot = replace(seen.snapshot, refusal=self._applier.refusal(seen.raw))
        plan = reconcile(snapshot, self._settings, datetime.now(UTC))
        if not await self._applier.apply(seen, plan):
            return 0.1
        metrics.follow(key, seen.snapshot.status, plan.status)
        return plan.again
