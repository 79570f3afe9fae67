"""What a worker does about a run that is gone."""

import asyncio
from contextlib import suppress
from typing import Any

from falcon_operator.controller.queue import WorkQueue
from falcon_operator.controller.worker import Worker
from falcon_operator.objects import Key
from tests.unit.operator.controller.snapshots import SETTINGS

GONE, HEIR = Key("ml", "gone"), Key("ml", "heir")


class Nothing:
    """An observer to which no run exists any more; one of them shared a name."""

    def __init__(self) -> None:
        self.looked: list[Key] = []
        self.at_heir = asyncio.Event()

    async def observe(self, key: Key) -> None:
        self.looked.append(key)
        if key == HEIR:
            self.at_heir.set()

    async def heirs(self, gone: Key) -> list[Key]:
        return [HEIR] if gone == GONE else []


async def test_those_that_shared_a_name_with_a_run_that_is_gone_are_looked_at_at_once() -> None:
    queue, observer = WorkQueue(), Nothing()
    applier: Any = None  # nothing is applied
    task = asyncio.create_task(Worker(queue, observer, applier, SETTINGS).run())  # type: ignore[arg-type]
    queue.add(GONE)
    async with asyncio.timeout(30):
        await observer.at_heir.wait()
    assert observer.looked == [GONE, HEIR]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
