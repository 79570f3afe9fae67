"""When a server that is asked to stop may close its door. Pure.

Its address is still in clients' hands then: endpoints are updated after the pod is told to stop, node by node. So it
answers for a while as if nothing had happened, and while requests still come it waits longer, as far as its grace
period allows. `Connection: close` on each answer sends clients that keep their connection to another server.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LINGER_SECONDS = 5.0
"""Endpoints are mostly up to date on every node within a second or two of a pod's SIGTERM."""
ENGINE_END_SECONDS = 8.0
QUIET_SECONDS = 1.0
"""Without a new request for this long nobody sends any more."""


@dataclass(frozen=True)
class Patience:
    """How long an end may take, in seconds from the stop."""

    linger: float
    """New requests are answered at least this long."""
    longest_linger: float
    """And no longer than this, although some still come."""
    whole: float
    """All of it, with the answers that are under way."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Patience":
        """What the pod's grace period leaves: some seconds of it are kept for the engine's own end."""
        grace = float(environment.get("FALCON_GRACE_SECONDS", "25"))
        whole = max(1.0, grace - ENGINE_END_SECONDS)
        linger = min(float(environment.get("FALCON_LINGER_SECONDS", LINGER_SECONDS)), grace / 3)
        return cls(linger, max(linger, whole / 3), whole)


@dataclass
class Draining:
    """Whether the server is asked to stop, and when new requests need no longer be answered."""

    patience: Patience
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds."""
    _asked: float | None = field(default=None, init=False)
    _last_request: float | None = field(default=None, init=False)

    @property
    def began(self) -> bool:
        """Whether the server is asked to stop."""
        return self._asked is not None

    def begin(self) -> None:
        """The server is asked to stop."""
        self._asked = self.clock()

    def request(self) -> None:
        """A request came."""
        self._last_request = self.clock()

    def over(self) -> bool:
        """Whether new requests need no longer be answered."""
        if self._asked is None:
            return False
        now = self.clock()
        elapsed = now - self._asked
        quiet = self._last_request is None or now - self._last_request >= QUIET_SECONDS
        return elapsed >= self.patience.longest_linger or (elapsed >= self.patience.linger and quiet)
