"""When checkpoints are saved, and what each rank does for one. Training pauses only while the state is gathered.

Rank 0 writes it in the background and tells of it once it is on the volume. A second save waits for the first, so no
more than one copy of the state is held. What cannot be written ends the training on all ranks at the end of the next
step; the checkpoints before it stay.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from falcon_trainer.outcome import StageError
from falcon_trainer.train.agreement import Wish
from falcon_trainer.train.background import BackgroundWriter
from falcon_trainer.train.report import Reporter
from falcon_trainer.train.writer import Snapshot
from falcon_trainer.train.zero import decided

log = logging.getLogger(__name__)

FAREWELL = 120.0
"""Seconds that a rank which ends for another reason waits for its write. Meanwhile the others stand still in a
collective, so less than the 300 s after which they would count as hung (launcher/hang.py)."""


class Saving:
    """One rank's part in all checkpoints of an attempt."""

    def __init__(
        self,
        reporter: Reporter,
        writer: BackgroundWriter | None,
        *,
        durable_step: int = 0,
        every_minutes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`writer` is rank 0's; `durable_step` that of the checkpoint which training goes on from, 0 where there is
        none.
        """
        self._reporter, self._writer, self._clock = reporter, writer, clock
        self._interval = None if every_minutes is None else 60.0 * every_minutes
        self._begun = clock()
        self._told = durable_step

    def started(self) -> None:
        """Training begins: from here on the minutes count."""
        self._begun = self._clock()

    def wish(self) -> Wish:
        """What this rank brings to the end of a step."""
        if self._writer is None:
            return Wish()
        due = self._interval is not None and self._clock() - self._begun >= self._interval
        return Wish(save=due, failed=self._writer.failed, durable_step=self._writer.durable_step)

    def heed(self, agreed: Wish) -> None:
        """Acts on what all ranks agreed on. Raises the StageError of a write that failed, on all of them alike."""
        self._tell(agreed.durable_step)
        if agreed.failed:
            self.flush()

    def save(self, snapshot: Callable[[], Snapshot | None]) -> None:
        """Saves what `snapshot` gathers on rank 0. All ranks call. Raises as `flush` does, for the write before."""
        self._reporter.saving()
        durable_step = self._settled()
        self._begun = self._clock()
        taken = snapshot()
        if self._writer and taken:
            self._writer.begin(taken)
        self._reporter.going_on()
        self._tell(durable_step)

    def flush(self) -> None:
        """Returns when all that was saved is on the volume. All ranks call. Raises StageError where it is not."""
        self._reporter.saving()
        durable_step = self._settled()
        self._reporter.going_on()
        self._tell(durable_step)

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Around the training: where it ends, all that was saved is on the volume. Where it raises, so is a write that
        was under way, unless that takes longer than FAREWELL.
        """
        try:
            yield
            self.flush()
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        """Without a collective: this rank ends for another reason, and the others may be gone."""
        if self._writer is None or not self._writer.busy:
            return
        self._reporter.saving()
        try:
            self._tell(self._writer.settle(FAREWELL))
        except StageError as error:
            log.warning("This rank ends for another reason, and its last checkpoint was lost as well: %s", error)
        if self._writer.busy:
            log.warning("The last checkpoint is not on the volume after %g s: this rank ends without it.", FAREWELL)

    def _settled(self) -> int:
        """The durable step once nothing is being written. No beat meanwhile: the limit of the phase `save` is there for
        a volume that does not answer, and the others wait in a collective that has the same limit.
        """
        writer = self._writer
        return decided(lambda: writer.settle() if writer else 0)

    def _tell(self, durable_step: int) -> None:
        if durable_step > self._told:
            self._told = durable_step
            self._reporter.saved(durable_step)
