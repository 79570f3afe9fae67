"""Asks stage pods how far they are, beside the looks at their runs: a pod that does not answer delays nothing.

An answer is a hint for people. No answer means unknown, never a failure: an attempt ends by what Kubernetes says of its
pods.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import aiohttp

from falcon_operator.objects import Key, Object, status, uid
from falcon_trainer.layout import PROGRESS_PORT
from falcon_trainer.progress import PodProgress, Progress

PERIOD = 10.0
"""Seconds between two questions to one pod, which is also how often its progress can change the status."""
QUESTIONS_PER_SECOND = 20.0
"""With more pods than this allows, each is asked more rarely."""
TIMEOUT = aiohttp.ClientTimeout(total=3.0, connect=2.0)
LARGEST_ANSWER = 64 * 1024
FORGOTTEN = 600.0

log = logging.getLogger(__name__)


def address(pod: Object) -> str | None:
    """URL of the pod's progress; None while it has no address."""
    ip = status(pod).get("podIP")
    if not ip:
        return None
    host = f"[{ip}]" if ":" in ip else ip
    return f"http://{host}:{PROGRESS_PORT}/progress"


@dataclass
class _Pod:
    asked: float
    progress: Progress | None = None


class ProgressReader:
    """Answers of pods by their uid. `changed` is called when a new answer differs from the last one."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._pods: dict[str, _Pod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Never through a proxy: pods are reached directly or not at all.
        self._session = aiohttp.ClientSession(timeout=TIMEOUT, trust_env=False)

    def latest(self, key: Key, pod: Object) -> Progress | None:
        """What the pod said last, None before its first answer; asks it again if that is due."""
        now = monotonic()
        known = self._pods.get(uid(pod))
        if known is None:
            self._forget(now)
            known = self._pods[uid(pod)] = _Pod(asked=float("-inf"))
        url = address(pod)
        if url and now - known.asked >= self._period() - 0.5:
            known.asked = now
            task = asyncio.create_task(self._ask(key, url, known))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return known.progress

    async def close(self) -> None:
        """Ends what is under way."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def _period(self) -> float:
        return max(PERIOD, len(self._pods) / QUESTIONS_PER_SECOND)

    def _forget(self, now: float) -> None:
        for name in [name for name, pod in self._pods.items() if now - pod.asked > FORGOTTEN]:
            del self._pods[name]

    async def _ask(self, key: Key, url: str, pod: _Pod) -> None:
        with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            async with self._session.get(url) as response:
                body = await _read(response.content)
                if response.status != 200:
                    return
            # Unknown fields are ignored: the image may be newer than this operator.
            told = PodProgress.model_validate_json(body, extra="ignore").summary
            if told != pod.progress:
                pod.progress = told
                self._changed(key)


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The body up to LARGEST_ANSWER; one read returns no more than what has arrived."""
    body = b""
    while len(body) < LARGEST_ANSWER and (part := await content.read(LARGEST_ANSWER - len(body))):
        body += part
    return body
