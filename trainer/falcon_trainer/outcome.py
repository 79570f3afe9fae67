"""How a stage ends: exit codes, and the outcome JSON that becomes the pod's termination message.

Exit codes follow sysexits(3), so that `kubectl get pod` and a Job's podFailurePolicy can be read without this file.
"""

import json
from enum import IntEnum
from typing import Any, Self

from pydantic import Field

from falcon_trainer.wire import Wire

LIMIT = 4000
"""Bytes of a termination message: the kubelet cuts at 4,096."""


class ExitCode(IntEnum):
    """Exit codes of every stage."""

    OK = 0
    CONFIGURATION = 64
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    CANNOT_WRITE = 73
    TRY_AGAIN = 75
    NO_PERMISSION = 77
    STOPPED = 143


RETRYABLE = frozenset({ExitCode.UNAVAILABLE, ExitCode.INTERNAL, ExitCode.TRY_AGAIN, ExitCode.STOPPED})
"""Codes after which the same stage, run again unchanged, may succeed."""


class Outcome(Wire):
    """What a stage says at its end. On success `result` is what the status shows of the stage."""

    reason: str = Field(max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$", description="CamelCase, fit for a condition.")
    message: str = Field(description="A sentence that a person can act on.")
    retryable: bool = False
    step: int | None = None
    last_checkpoint_step: int | None = Field(
        default=None, description="Of a train pod: what the next one goes on from."
    )
    rank: int | None = None
    result: dict[str, Any] | None = None

    def encode(self) -> str:
        """JSON of at most LIMIT bytes; a long message is cut in its middle, the result is never cut."""
        text = self._text(self.message)
        if len(text.encode()) <= LIMIT:
            return text
        raw = self.message.encode()
        # Searched, not computed: a quote or a line end takes two bytes in JSON, a control character six.
        fits, too_long = 0, len(raw) // 2 + 1
        while too_long - fits > 1:
            keep = (fits + too_long) // 2
            within = len(self._text(_without_middle(raw, keep)).encode()) <= LIMIT
            fits, too_long = (keep, too_long) if within else (fits, keep)
        return self._text(_without_middle(raw, fits))

    def _text(self, message: str) -> str:
        return json.dumps(self.model_copy(update={"message": message}).to_wire(), ensure_ascii=False)

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """The outcome in a termination message, or None where the text is something else."""
        try:
            return cls.model_validate_json(text)
        except ValueError:
            return None


def _without_middle(raw: bytes, keep: int) -> str:
    """The first and the last `keep` bytes of a text; a character that is cut in two is left out."""
    return raw[:keep].decode(errors="ignore") + " … " + raw[len(raw) - keep :].decode(errors="ignore")


class StageError(Exception):
    """A failure that a stage understands: it ends the stage with `code` and becomes its outcome."""

    def __init__(self, code: ExitCode, reason: str, message: str, *, step: int | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.step = code, reason, message, step

    def outcome(self, rank: int | None = None) -> Outcome:
        """The outcome that says so."""
        return Outcome(
            reason=self.reason,
            message=self.message,
            retryable=self.code in RETRYABLE,
            step=self.step,
            rank=rank,
        )
