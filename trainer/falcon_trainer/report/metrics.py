"""`metrics.jsonl`: one line a step and one an evaluation; written by rank 0, read again for the page."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from falcon_trainer.artifacts import write_file

METRICS = "metrics.jsonl"

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values."""


class Metrics:
    """Appends lines; a resumed run first cuts what lies beyond the step it resumes from."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        self._path = folder / METRICS
        kept = [line for line, fields in _lines(self._path) if fields["step"] <= resumed_step]
        write_file(self._path, "".join(f"{line}\n" for line in kept))

    def add(self, line: dict[str, JsonValue]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class History:
    """The figures read back, a column each: 100,000 lines fit into 30 MB."""

    def __init__(self, folder: Path) -> None:
        """What can be read of the file in `folder`; nothing where there is none."""
        steps, values = defaultdict[str, list[int]](list), defaultdict[str, list[float]](list)
        for _, fields in _lines(folder / METRICS):
            for name, value in fields.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    steps[name].append(fields["step"])
                    values[name].append(value)
        self._curves: dict[str, Curve] = {
            name: (np.array(steps[name], np.float64), np.array(values[name], np.float64)) for name in values
        }

    def curve(self, name: str) -> Curve:
        """A figure over the steps; empty where no line has it."""
        return self._curves.get(name, (np.zeros(0), np.zeros(0)))

    def last(self, name: str) -> float:
        """The newest value of a figure; 0 where no line has it."""
        values = self.curve(name)[1]
        return float(values[-1]) if len(values) else 0.0

    def total(self, name: str) -> float:
        """Sum of a figure over all steps."""
        return float(self.curve(name)[1].sum())


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line with its fields. What is no line of ours is left out: a pod that died may have left half a line."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in map(str.strip, file):
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict) and isinstance(fields.get("step"), int):
                yield line, fields
