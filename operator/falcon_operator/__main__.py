"""Starts the process: settings, health, leadership, first list, workers, watches. Ends it within two seconds."""

import asyncio
import logging
import os
import signal
import sys
import uuid
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import kopf
from kubernetes.aio import client, config

from falcon_operator import logs
from falcon_operator.controller import feed
from falcon_operator.controller.apply import Applier
from falcon_operator.controller.kube import Kube
from falcon_operator.controller.observe import Observer
from falcon_operator.controller.queue import WorkQueue
from falcon_operator.controller.resync import Resync
from falcon_operator.controller.worker import Worker
from falcon_operator.health import Health
from falcon_operator.leadership import Leadership
from falcon_operator.progress import ProgressReader
from falcon_operator.settings import Settings, SettingsError
from falcon_operator.stages.settings import StageSettings

STALLED = 180.0
"""Seconds in which no look was finished although there is work: the process counts as dead. Longer than any look."""

log = logging.getLogger("falcon_operator")


class Operator:
    """The parts of one process and how they are tied together."""

    def __init__(self, settings: Settings, api: client.ApiClient) -> None:
        identity = f"{settings.pod_name}_{uuid.uuid4().hex[:8]}"
        stages = StageSettings(
            image=settings.trainer_image,
            image_pull_policy=settings.image_pull_policy,
            vllm_image=settings.vllm_image,
        )
        self.settings = settings
        self.queue = WorkQueue()
        self.leadership = Leadership(api, settings.pod_namespace, settings.lease, identity)
        self.progress = ProgressReader(self.queue.add)
        kube = Kube(api, may_write=self.leadership.check)
        self.resync = Resync(kube, self.queue, settings.namespaces, settings.resync_seconds)
        observer, applier = Observer(kube, stages, self.progress), Applier(kube, settings.pod_name)
        self.workers = [Worker(self.queue, observer, applier, stages) for _ in range(settings.workers)]
        self.health = Health(alive=[self._works, self._lists], ready=[])

    async def run(self, stop: asyncio.Event) -> None:
        """Waits for the Lease, then acts until `stop` is set. Raises what ended it otherwise."""
        async with AsyncExitStack() as at_the_end:
            at_the_end.push_async_callback(self.progress.close)
            at_the_end.push_async_callback(self.health.stop)
            await self.health.start(self.settings.address, self.settings.port)
            if not await _unless(stop, self.leadership.acquire()):
                return
            at_the_end.push_async_callback(self.leadership.release)
            if not await _unless(stop, self.resync.first()):
                return
            await self._act(stop)

    async def _act(self, stop: asyncio.Event) -> None:
        jobs = [self.leadership.keep(), self.resync.repeat(), *(worker.run() for worker in self.workers)]
        # Before kopf, which ends every task that was made after its own.
        tasks = [asyncio.create_task(job) for job in jobs]
        watch = asyncio.create_task(self._watch(stop))
        try:
            done, _ = await asyncio.wait([*tasks, watch], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not stop.is_set():
                raise RuntimeError("the watches ended by themselves: the API server or the credentials are gone")
        finally:
            stop.set()
            await _cancelled(*tasks)
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self, stop: asyncio.Event) -> None:
        """kopf's part, until `stop` is set."""
        before = asyncio.all_tasks()
        names = self.settings.namespaces
        where: dict[str, Any] = {"namespaces": names} if names else {"clusterwide": True}
        # Given and not found out: kopf would ask for the login name, and the image's user has no entry in /etc/passwd.
        where["identity"] = self.settings.pod_name
        tasks = await kopf.spawn_tasks(
            registry=feed.handlers(self.queue),
            settings=feed.watching(names),
            standalone=True,
            stop_flag=stop,
            **where,
        )
        # spawn_tasks took the signals for itself; on that path kopf waits five seconds for a waiter of its own.
        take_signals(stop)
        await kopf.run_tasks(tasks, ignored=before)

    def _works(self) -> str | None:
        idle = self.queue.stalled_for
        return f"runs wait for a look, and none was finished for {idle:.0f} s" if idle > STALLED else None

    def _lists(self) -> str | None:
        return "the runs could not be listed twice in a row" if self.resync.stale else None


def take_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` came to its end before `stop` was set."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done() and not stop.is_set()
    finally:
        await _cancelled(task, stopped)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def serve(settings: Settings) -> None:
    """Runs the operator until it is told to stop."""
    stop = asyncio.Event()
    take_signals(stop)
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        await Operator(settings, api).run(stop)


def main() -> int:
    """Exit code 0 after a stop on request; 1 where the operator could not go on, so that its pod is restarted."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"falcon-operator: {error}", file=sys.stderr)
        return 2
    logs.set_up(settings.log_level)
    try:
        asyncio.run(serve(settings))
    except Exception as error:
        log.error("ends: %s", str(error) or repr(error), exc_info=log.isEnabledFor(logging.DEBUG))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
