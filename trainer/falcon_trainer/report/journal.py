"""Rank 0's record of a training: metrics.jsonl, TensorBoard events, and from time to time the page.

Nothing here may end a training: what goes wrong is said once in the log, and that part of the report is left out.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.layout import RunLayout
from falcon_trainer.report.board import Board
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.report.facts import Facts, State, read_facts
from falcon_trainer.report.metrics import Metrics

log = logging.getLogger(__name__)


class Journal:
    """Of one start of a run."""

    def __init__(self, report: Path, resumed_step: int, facts: Callable[[], Facts], drawing: Drawing) -> None:
        self._report, self._drawing = report, drawing
        self._failed: set[str] = set()
        self._metrics: Metrics | None = None
        self._board: Board | None = None
        self._facts: Facts | None = None
        with self._spared("metrics.jsonl"):
            self._metrics = Metrics(report, resumed_step)
        with self._spared("The TensorBoard events"):
            self._board = Board(report, resumed_step)
        with self._spared("facts.json"):
            self._facts = facts()
            self._facts.write(report)

    def utilisation(self, tokens_per_second: float) -> dict[str, JsonValue]:
        """MFU and HFU as fields of metrics.jsonl; none where the facts could not be found out."""
        if self._facts is None:
            return {}
        mfu, hfu = self._facts.utilisation(tokens_per_second)
        return {"mfu": round(mfu, 5), "hfu": round(hfu, 5)}

    def add(self, line: dict[str, JsonValue]) -> None:
        """One step or evaluation."""
        if self._metrics:
            with self._spared("metrics.jsonl"):
                self._metrics.add(line)
        if self._board:
            with self._spared("The TensorBoard events"):
                self._board.add(line)

    def saved(self) -> None:
        """After a checkpoint: a good moment to draw."""
        with self._spared("The report"):
            self._drawing.begin()
        if self._board:
            with self._spared("The TensorBoard events"):
                self._board.flush()

    def finish(self, state: State) -> None:
        """The training is over: the last drawing."""
        if self._board:
            with self._spared("The TensorBoard events"):
                self._board.close()
        if self._facts:
            with self._spared("facts.json"):
                self._facts.model_copy(update={"state": state}).write(self._report)
        with self._spared("The report"):
            self._drawing.finish()

    @contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """As `spared`, but says it once: a full disk would fill the log with every step."""
        with spared(what, quiet=what in self._failed) as failed:
            yield
        if failed:
            self._failed.add(what)


def conclude(layout: RunLayout, state: State) -> None:
    """The last drawing of a training that is over, where the attempt that ended it died before it drew."""
    with spared("The report"):
        facts = read_facts(layout.report)
        if facts and facts.state == "training":
            facts.model_copy(update={"state": state}).write(layout.report)
            Drawing(layout.root).finish()


def state_of(result: dict[str, JsonValue]) -> State:
    """How a training ended, by the result of its stage."""
    return "stopped early" if result.get("stoppedEarly") else "finished"


@contextmanager
def spared(what: str, *, quiet: bool = False) -> Iterator[list[Exception]]:
    """Keeps what goes wrong inside away from the training; the list holds it afterwards."""
    failed: list[Exception] = []
    try:
        yield failed
    except Exception as error:  # noqa: BLE001,RUF100 - no kind of error is worth the training
        failed.append(error)
        if not quiet:
            log.warning("%s could not be written (%s). Training goes on without.", what, error)
