"""Writes checkpoints in a thread of its own, one at a time. Rank 0 alone; no collective, and no beat, in the thread."""

import logging
from threading import Thread

from falcon_trainer.faults import understand
from falcon_trainer.outcome import StageError
from falcon_trainer.train.writer import CheckpointWriter, Snapshot

log = logging.getLogger(__name__)


class BackgroundWriter:
    """A thread for each write, and none between two: no rank forks its workers beside one."""

    def __init__(self, writer: CheckpointWriter, *, durable_step: int = 0) -> None:
        """`durable_step`: of the checkpoint that training went on from; 0: none."""
        self._writer = writer
        self._thread: Thread | None = None
        self._failure: StageError | None = None
        self.durable_step = durable_step
        """Step of the newest checkpoint that has its final name and reached the disk."""

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether a write failed: `settle` raises why."""
        return self._failure is not None

    def begin(self, snapshot: Snapshot) -> None:
        """Begins to write. The write before must be settled."""
        assert not self.busy
        # A daemon: a rank that must leave is not kept by a volume that no longer answers.
        self._thread = Thread(target=self._write, args=(snapshot,), name=f"checkpoint-{snapshot.step}", daemon=True)
        self._thread.start()

    def settle(self, patience: float | None = None) -> int:
        """Waits until nothing is being written, for at most `patience` seconds; returns the durable step.

        Raises the StageError of a write that failed.
        """
        if self._thread:
            self._thread.join(patience)
        if self._failure:
            raise self._failure
        return self.durable_step

    def _write(self, snapshot: Snapshot) -> None:
        try:
            self._writer.save(snapshot)
            self.durable_step = snapshot.step
        except BaseException as error:
            log.exception("The checkpoint of step %d could not be written.", snapshot.step)
            self._failure = understand(error, "train")
