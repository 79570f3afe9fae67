"""What is said of a running training: beats for the launcher, and the journal on the volume."""

import math
import resource
import time
from collections import deque
from dataclasses import dataclass

from pydantic import JsonValue

from falcon_trainer.beats import Beats
from falcon_trainer.data.store import PackedRows
from falcon_trainer.progress import Notice
from falcon_trainer.report.facts import State
from falcon_trainer.report.journal import Journal
from falcon_trainer.train.order import RowOrder

WINDOW = 20
"""Steps over which speed and time left are averaged."""


class Speed:
    """Real tokens per second and seconds left, over the last steps."""

    def __init__(self, packed: PackedRows, order: RowOrder, global_batch: int, total_steps: int) -> None:
        self._packed, self._order, self._batch, self._total = packed, order, global_batch, total_steps
        self._marks: deque[_Mark] = deque(maxlen=WINDOW + 1)
        self._paused_at: float | None = None
        self._paused = 0.0

    def start(self) -> None:
        """The clock starts when training does, not when it is loaded."""
        self._marks.append(_Mark(time.monotonic(), 0.0, 0))

    def pause(self) -> None:
        """A save or an evaluation begins, or goes on: it delays the end, but makes no step slower."""
        if self._paused_at is None:
            self._paused_at = time.monotonic()

    def go_on(self) -> None:
        """It is over."""
        if self._paused_at is not None:
            self._paused += time.monotonic() - self._paused_at
            self._paused_at = None

    def step(self, step: int) -> dict[str, float]:
        """Figures after optimizer step `step` (1-based). Padding does not count as tokens."""
        rows = self._order.rows((step - 1) * self._batch, step * self._batch)
        tokens = self._marks[-1].tokens + int(self._packed.lengths[rows].sum())
        self._marks.append(_Mark(time.monotonic(), self._paused, tokens))
        first, last = self._marks[0], self._marks[-1]
        return {
            "tokens_per_second": round((last.tokens - first.tokens) / last.training_since(first), 1),
            "seconds_left": round((last.time - first.time) / (len(self._marks) - 1) * (self._total - step), 1),
        }

    @property
    def newest(self) -> tuple[int, float]:
        """Tokens and seconds of the newest step."""
        before, last = self._marks[-2], self._marks[-1]
        return last.tokens - before.tokens, last.training_since(before)

    def epoch(self, step: int) -> float:
        """Passes over the rows after step `step`."""
        return step * self._batch / len(self._packed)


@dataclass(frozen=True)
class _Mark:
    """A moment between two steps: when it was, how long training had paused by then, the tokens so far."""

    time: float
    paused: float
    tokens: int

    def training_since(self, earlier: "_Mark") -> float:
        """Seconds without the pauses."""
        return max(self.time - earlier.time - (self.paused - earlier.paused), 1e-9)


class Reporter:
    """One rank's reports: every rank beats at every step, rank 0 says how it goes."""

    def __init__(
        self, beats: Beats, total_steps: int, speed: Speed | None = None, journal: Journal | None = None
    ) -> None:
        """Speed and journal are rank 0's."""
        self._beats, self._total, self._speed, self._journal = beats, total_steps, speed, journal

    def started(self, step: int, evaluation_loss: float | None = None, best_step: int | None = None) -> None:
        """Training begins, or goes on from the checkpoint of `step`, with what evaluations had shown by then."""
        if self._speed:
            self._speed.start()
        known: dict[str, JsonValue] = {"evaluation_loss": evaluation_loss, "best_step": best_step}
        if step:
            known["last_checkpoint_step"] = step
        self._beats.update("train", step=step, total_steps=self._total, resumed_from_step=step, **known)

    def stepped(self, step: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        """One optimizer step is done."""
        figures: dict[str, JsonValue] = {}
        if self._speed and self._journal:
            speed = self._speed.step(step)
            figures = {**speed, "loss": loss}
            tokens, seconds = self._speed.newest
            self._tell(
                {
                    "step": step,
                    "epoch": round(self._speed.epoch(step), 4),
                    "loss": loss,
                    "learningRate": learning_rate,
                    "gradientNorm": gradient_norm,
                    "tokensPerSecond": speed["tokens_per_second"],
                    **self._journal.utilisation(speed["tokens_per_second"]),
                    "memoryBytes": peak_memory(),
                    "tokens": tokens,
                    "seconds": round(seconds, 4),
                }
            )
        self._beats.update("train", step=step, **figures)

    def notice(self, notice: Notice) -> None:
        """Something that a person should hear of once: in the log now, and with the next beat."""
        print(f"{notice.reason}: {notice.message}", flush=True)
        self._beats.notice(notice)

    def remark(self, message: str | None) -> None:
        """A phrase that the status shows between two steps for as long as it is true; None: it is so no more."""
        self._beats.update("train", message=message)

    def evaluating(self) -> None:
        """An evaluation begins."""
        self._pause("evaluate")

    def alive(self) -> None:
        """The evaluation goes on: a sign of life for each of its micro-batches."""
        self._beats.update("evaluate")

    def evaluated(self, step: int, loss: float, best_step: int | None) -> None:
        """The loss on the validation rows after `step`, and the step of the lowest one so far."""
        if self._journal:
            self._tell({"step": step, "evaluationLoss": loss, "perplexity": perplexity(loss)})
        self._go_on(evaluation_loss=loss, best_step=best_step)

    def saving(self) -> None:
        """Training waits for a checkpoint."""
        self._pause("save")

    def going_on(self) -> None:
        """It need not wait any longer."""
        self._go_on()

    def saved(self, step: int) -> None:
        """The checkpoint of `step` is on the volume; told between two steps, or while training waits."""
        self._go_on(last_checkpoint_step=step)
        if self._journal:
            self._journal.saved()

    def finished(self, state: State) -> None:
        """The adapter is published: the last report."""
        if self._journal:
            self._journal.finish(state)

    def _pause(self, phase: str) -> None:
        if self._speed:
            self._speed.pause()
        self._beats.update(phase)

    def _go_on(self, **known: JsonValue) -> None:
        if self._speed:
            self._speed.go_on()
        self._beats.update("train", **known)

    def _tell(self, line: dict[str, JsonValue]) -> None:
        assert self._journal
        self._journal.add(line)
        print(" ".join(f"{name}={value}" for name, value in line.items()), flush=True)


def perplexity(loss: float) -> float | None:
    """exp(loss); None where it is more than a float can hold, which JSON cannot."""
    try:
        return math.exp(loss)
    except OverflowError:
        return None


def peak_memory() -> int:
    """Bytes: of this rank's GPU as torch allocated them at most, else of this process, mapped files included."""
    import torch

    if torch.cuda.is_available():  # not run on a GPU
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
