"""Beats: each rank's progress as a small file, replaced as a whole, that the launcher of its pod reads.

A file and not a socket: a rank that hangs in a collective, or was stopped, leaves its last beat behind.
"""

import json
import os
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.layout import RUNTIME
from falcon_trainer.progress import Progress


class Beats:
    """Writes one rank's Progress to `DIRECTORY/beat-RANK.json`."""

    def __init__(self, stage: str, rank: int = 0, directory: Path = RUNTIME) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"beat-{rank}.json"
        self._known: dict[str, JsonValue] = {"stage": stage, "rank": rank}

    def update(self, phase: str, **changed: JsonValue) -> None:
        """Beats: the phase, and the fields of Progress (snake_case) that changed; the others keep their last value."""
        self._known |= {"phase": phase} | changed
        progress = Progress.model_validate(self._known)
        beside = self._path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(progress.to_wire()))
        beside.replace(self._path)


def read_beats(directory: Path = RUNTIME) -> dict[int, tuple[Progress, float]]:
    """Each rank's newest beat and the time (Unix seconds) it was written; what cannot be read is left out."""
    beats: dict[int, tuple[Progress, float]] = {}
    for path in directory.glob("beat-*.json"):
        try:
            progress = Progress.model_validate_json(path.read_text())
            beats[progress.rank] = (progress, path.stat().st_mtime)
        except (OSError, ValueError):
            continue
    return beats
