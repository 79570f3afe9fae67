"""Exit codes of ranks as their torchrun saw them: the only trace of a rank that was killed."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from falcon_trainer.layout import RUNTIME

NAME = "deaths.json"
CLOSE_SECONDS = 30
"""After a rank's failure torchrun kills the others that have not left by then (PContext.close)."""


class Failure(Protocol):
    """What is read of torchrun's ProcessFailure."""

    exitcode: int
    timestamp: int
    """Unix seconds."""


def own_deaths(failures: Mapping[int, Failure]) -> dict[int, int]:
    """Rank → exit code, without the ranks that torchrun killed itself."""
    first = min((failure.timestamp for failure in failures.values()), default=0)
    return {
        rank: failure.exitcode
        for rank, failure in failures.items()
        if failure.exitcode != -signal.SIGKILL or failure.timestamp < first + CLOSE_SECONDS - 1
    }


def write_deaths(deaths: Mapping[int, int], directory: Path = RUNTIME) -> None:
    """Writes rank → exit code (negative: the signal)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NAME).write_text(json.dumps(deaths))


def read_deaths(directory: Path = RUNTIME) -> dict[int, int]:
    """Rank → exit code; empty where torchrun left nothing."""
    try:
        return {int(rank): int(code) for rank, code in json.loads((directory / NAME).read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
