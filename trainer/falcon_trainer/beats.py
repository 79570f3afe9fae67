"""Beats: each rank's progress as a small file, replaced as a whole, that the launcher of its pod reads.

A file and not a socket: a rank that hangs in a collective, or was stopped, leaves its last beat behind.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.layout import RUNTIME
from falcon_trainer.progress import MAX_NOTICES, Notice, Progress


class Beats:
    """Writes one rank's Progress to `DIRECTORY/beat-RANK.json`."""

    def __init__(self, stage: str, rank: int = 0, directory: Path = RUNTIME) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"beat-{rank}.json"
        self._known: dict[str, JsonValue] = {"stage": stage, "rank": rank}
        self._notices: list[JsonValue] = []

    def notice(self, notice: Notice) -> None:
        """Says this with the next beat and all later ones, since a reader sees only some; the newest few are kept."""
        self._notices = [*self._notices, notice.to_wire()][-MAX_NOTICES:]
        self._known["notices"] = self._notices

    def update(self, phase: str, **changed: JsonValue) -> None:
        """Beats: the phase, and the fields of Progress (snake_case) that changed; the others keep their last value."""
        self._known |= {"phase": phase} | changed
        progress = Progress.model_validate(self._known)
        beside = self._path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(progress.to_wire()))
        beside.replace(self._path)


@dataclass(frozen=True)
class Beat:
    """One rank's newest beat."""

    progress: Progress
    mark: tuple[int, int]
    """Differs from beat to beat. To be compared, not to be read: the time in it follows the wall clock, which jumps."""


def read_beats(directory: Path = RUNTIME) -> dict[int, Beat]:
    """The newest beat of each rank; what cannot be read is left out."""
    beats: dict[int, Beat] = {}
    for path in directory.glob("beat-*.json"):
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                progress = Progress.model_validate_json(file.read())
        except (OSError, ValueError):
            continue
        beats[progress.rank] = Beat(progress, (found.st_mtime_ns, found.st_ino))
    return beats
