"""Whose turn it is: the engine gets one question at a time, in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from falcon_trainer.serve.arguments import MOST_WAITING
from falcon_trainer.serve.errors import queue_full


class Turns:
    """A bounded first-come-first-served queue before the engine.

    The engine has one thread that generates; questions that wait there could not be withdrawn, and a `seed` would be
    set while another answer is being drawn.
    """

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._lock = asyncio.Lock()
        self._most_waiting = most_waiting
        self.waiting = 0
        """Questions that wait."""

    @property
    def busy(self) -> bool:
        """Whether an answer is being generated."""
        return self._lock.locked()

    def check(self) -> None:
        """Raises ApiError where the queue is full."""
        if self.waiting >= self._most_waiting:
            raise queue_full(self.waiting)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for this question's turn, and holds it. Raises ApiError where the queue is full."""
        self.check()
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._lock.release()
