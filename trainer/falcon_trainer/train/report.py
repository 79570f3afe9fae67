"""What is said of a running training: beats for the launcher, and metrics.jsonl on the volume."""

import json
import time
from collections import deque
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.artifacts import write_file
from falcon_trainer.beats import Beats
from falcon_trainer.data.store import PackedRows
from falcon_trainer.train.order import RowOrder

METRICS = "metrics.jsonl"
WINDOW = 20
"""Steps over which speed and time left are averaged."""


class Metrics:
    """`metrics.jsonl`, one line a step; a resumed run first cuts what lies beyond the step it resumes from."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        self._path = folder / METRICS
        kept = [line for line in self._lines() if json.loads(line)["step"] <= resumed_step]
        write_file(self._path, "".join(f"{line}\n" for line in kept))

    def add(self, line: dict[str, JsonValue]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _lines(self) -> list[str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if line.endswith("}")]  # a pod that died may have left half a line


class Speed:
    """Real tokens per second and seconds left, over the last steps."""

    def __init__(self, packed: PackedRows, order: RowOrder, global_batch: int, total_steps: int) -> None:
        self._packed, self._order, self._batch, self._total = packed, order, global_batch, total_steps
        self._marks: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)
        self._tokens = 0

    def start(self) -> None:
        """The clock starts when training does, not when it is loaded."""
        self._marks.append((time.monotonic(), 0))

    def step(self, step: int) -> dict[str, float]:
        """Figures after optimizer step `step` (1-based). Padding does not count as tokens."""
        rows = self._order.rows((step - 1) * self._batch, step * self._batch)
        self._tokens += int(self._packed.lengths[rows].sum())
        self._marks.append((time.monotonic(), self._tokens))
        (began, before), (now, after) = self._marks[0], self._marks[-1]
        elapsed = max(now - began, 1e-9)
        return {
            "tokens_per_second": round((after - before) / elapsed, 1),
            "seconds_left": round(elapsed / (len(self._marks) - 1) * (self._total - step), 1),
        }


class Reporter:
    """One rank's reports: every rank beats at every step, rank 0 says how it goes."""

    def __init__(self, beats: Beats, total_steps: int, speed: Speed | None, metrics: Metrics | None) -> None:
        self._beats, self._total, self._speed, self._metrics = beats, total_steps, speed, metrics

    def started(self, step: int) -> None:
        if self._speed:
            self._speed.start()
        known: dict[str, JsonValue] = {"last_checkpoint_step": step} if step else {}
        self._beats.update("train", step=step, total_steps=self._total, **known)

    def stepped(self, step: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        figures: dict[str, JsonValue] = {}
        if self._speed and self._metrics:
            figures = {**self._speed.step(step), "loss": loss}
            line: dict[str, JsonValue] = {
                "step": step,
                "loss": loss,
                "learningRate": learning_rate,
                "gradientNorm": gradient_norm,
                "tokensPerSecond": figures["tokens_per_second"],
            }
            self._metrics.add(line)
            print(" ".join(f"{name}={value}" for name, value in line.items()), flush=True)
        self._beats.update("train", step=step, **figures)

    def saving(self) -> None:
        self._beats.update("save")

    def saved(self, step: int) -> None:
        self._beats.update("train", last_checkpoint_step=step)
