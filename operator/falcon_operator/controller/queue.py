"""The work queue: which runs need a look, and since when.

Deduplicating: a key waits at most once, is never given to two workers, and is queued again if something happened to it
while it was worked on. A delay only ever brings a look forward, so a burst of events costs one look and a poll cannot
postpone an event. The clock is the event loop's, so tests can bend time.
"""

import asyncio
from collections import deque

from falcon_operator.objects import Key

FIRST_RETRY = 0.2
"""Seconds before the first look after an error; doubles with each further one."""
LAST_RETRY = 60.0


class WorkQueue:
    """Keys to look at. For one event loop: none of its methods may be called from another thread."""

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._available = asyncio.Event()
        self._moved = 0.0

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Asks for a look at `key` in at most `delay` seconds."""
        if key in self._dirty:
            return
        loop = asyncio.get_running_loop()
        waiting = self._timers.get(key)
        if delay > 0:
            if waiting is None or waiting.when() > loop.time() + delay:
                self._cancel_timer(key)
                self._timers[key] = loop.call_later(delay, self._due, key)
            return
        self._cancel_timer(key)
        self._dirty.add(key)
        if key not in self._busy:
            self._offer(key)

    def retry(self, key: Key) -> float:
        """Asks for a look after an error; returns the seconds until then."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16))
        self.add(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """The last look went well: the next error starts with a short delay again."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """The next key; the caller owns it until `done`."""
        while not self._ready:
            self._available.clear()
            await self._available.wait()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._busy.add(key)
        self._moved = asyncio.get_running_loop().time()
        return key

    def done(self, key: Key) -> None:
        """The look is over, however it went."""
        self._busy.discard(key)
        self._moved = asyncio.get_running_loop().time()
        if key in self._dirty:
            self._offer(key)

    @property
    def depth(self) -> int:
        """Keys that are due and wait for a worker."""
        return len(self._ready)

    @property
    def stalled_for(self) -> float:
        """Seconds in which no key was taken or finished although one waits or is worked on; 0 when there is no work."""
        if not self._ready and not self._busy:
            return 0.0
        return asyncio.get_running_loop().time() - self._moved

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def _offer(self, key: Key) -> None:
        if not self._ready and not self._busy:
            self._moved = asyncio.get_running_loop().time()
        self._ready.append(key)
        self._available.set()
