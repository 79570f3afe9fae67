"""When what was seen: states of objects with the time at which a watch brought them.

Time stamps of the API have whole seconds, and those of two machines are never compared here.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from examples.demo.kube import Manifest
from tests.e2e.runs import KIND
from tests.e2e.watching import LABEL, watches

Condition = Callable[[Manifest], bool]


class Timeline:
    """States in the order of their arrival; times are this process's monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._arrived = threading.Condition()
        self._states: list[tuple[float, Manifest]] = []

    def add(self, state: Manifest) -> None:
        """Keeps a state that has just arrived."""
        with self._arrived:
            self._states.append((self._clock(), state))
            self._arrived.notify_all()

    def first(self, what: str, condition: Condition, *, since: float = 0.0, timeout: float = 300.0) -> float:
        """When the first state that meets `condition` arrived, not before `since`; waits for it. TimeoutError names
        `what`.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._find(condition, since) is not None, timeout):
                raise TimeoutError(f"{what}: not seen within {timeout:.0f} s")
            found = self._find(condition, since)
            assert found is not None
            return found

    def _find(self, condition: Condition, since: float) -> float | None:
        return next((when for when, state in self._states if when >= since and condition(state)), None)


@contextmanager
def timeline(namespace: str, run: str) -> Iterator[Timeline]:
    """The timeline of a run, its Jobs, its pods, and the nodes."""
    kept = Timeline()
    mine = ("-n", namespace)
    selections = (
        (*mine, KIND, f"--field-selector=metadata.name={run}"),
        (*mine, "jobs", "-l", f"{LABEL}={run}"),
        (*mine, "pods", "-l", f"{LABEL}={run}"),
        ("nodes",),
    )
    with watches(kept.add, *selections):
        yield kept
