"""Endings: how each rank ended, as a small file that the launcher of its pod reads after the rank is gone."""

import os
import time
from pathlib import Path

from pydantic import Field

from falcon_trainer.layout import RUNTIME
from falcon_trainer.outcome import Outcome
from falcon_trainer.wire import Wire


class Ending(Wire):
    """The end of one rank, told by itself: a rank that was killed leaves none."""

    rank: int = Field(ge=0)
    code: int = Field(ge=0, le=255, description="Exit code, see ExitCode.")
    time: float = Field(description="Unix seconds: of several failures in a gang the first one is the cause.")
    outcome: Outcome


def write_ending(rank: int, code: int, outcome: Outcome, directory: Path = RUNTIME) -> None:
    """Writes `DIRECTORY/outcome-RANK.json` as a whole. Raises OSError where it cannot be written."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"outcome-{rank}.json"
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(Ending(rank=rank, code=code, time=time.time(), outcome=outcome).model_dump_json(by_alias=True))
    beside.replace(path)


def read_endings(directory: Path = RUNTIME) -> dict[int, Ending]:
    """The ending of each rank that left one; what cannot be read is left out."""
    endings: dict[int, Ending] = {}
    for path in directory.glob("outcome-*.json"):
        try:
            ending = Ending.model_validate_json(path.read_text())
        except (OSError, ValueError):
            continue
        endings[ending.rank] = ending
    return endings
