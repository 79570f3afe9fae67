"""Alive, ready, draining: decided from when the engine last gave a token, never from its own word."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from falcon_trainer.serve.draining import Draining

RECENT_SECONDS = 120.0
"""Readiness lasts this long after a token; an idle engine is asked for one well before."""
PROBE_SECONDS = 30.0
"""An engine that has been idle this long is asked for one token."""


@dataclass
class Health:
    """What is known of the engine. All times are monotonic seconds."""

    draining: Draining
    clock: Callable[[], float] = time.monotonic
    last_token: float | None = None
    asked_since: float | None = field(default=None)
    """Since when the engine has owed a token; None while nobody waits for one."""

    def asked(self) -> None:
        """A question goes to the engine."""
        self.asked_since = self.clock()

    def token(self) -> None:
        """The engine gave a token."""
        self.last_token = self.asked_since = self.clock()

    def answered(self) -> None:
        """The answer is over, or was given up."""
        self.asked_since = None

    @property
    def loaded(self) -> bool:
        """Whether the engine has ever given a token."""
        return self.last_token is not None

    def unready(self) -> str | None:
        """Why new requests should go elsewhere; None where they are welcome."""
        if self.draining.began:
            return "this server is stopping"
        if self.last_token is None:
            return "the model is being loaded"
        since = self.clock() - self.last_token
        return None if since < RECENT_SECONDS else f"the model has given no token for {since:.0f} s"

    def stuck(self, patience: float) -> str | None:
        """Why the engine should be killed; None where it should not."""
        if self.asked_since is None or self.clock() - self.asked_since < patience:
            return None
        return f"the model owes a token since {self.clock() - self.asked_since:.0f} s"

    def probe_due(self) -> bool:
        """Whether an idle engine should prove that it still answers."""
        return self.last_token is None or self.clock() - self.last_token >= PROBE_SECONDS
