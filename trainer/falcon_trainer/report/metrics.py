"""`metrics.jsonl`: one line a step and one an evaluation; written by rank 0, read again for the page."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class History:
    """The lines read back, in the order of the file."""

    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "History":
        """What can be read of the file in `folder`; nothing where there is none."""
        lines = [fields for _, fields in _lines(folder / METRICS)]
        return cls([line for line in lines if "loss" in line], [line for line in lines if "evaluationLoss" in line])

    def curve(self, name: str) -> Curve:
        """A figure of the steps."""
        return _curve(self.steps, name)

    def evaluation_curve(self, name: str) -> Curve:
        """A figure of the evaluations."""
        return _curve(self.evaluations, name)

    def total(self, name: str) -> float:
        """Sum of a figure over all steps."""
        return float(self.curve(name)[1].sum())


def _curve(lines: Iterable[dict[str, Any]], name: str) -> Curve:
    found = ((line["step"], line.get(name)) for line in lines)
    points = [(step, value) for step, value in found if isinstance(value, int | float) and math.isfinite(value)]
    array = np.array(points, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line with its fields. What is no line of ours is left out: a pod that died may have left half a line."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict) and isinstance(fields.get("step"), int):
            yield line, fields
