"""How `merge.memory` is shared out: blocks on their way from file to file, and what each worker computes in."""

from dataclasses import dataclass

BLOCK = 8 << 20
"""Bytes of weights that are read, changed and digested as one: long for a disk, short for a cache."""
SCRATCH = 8 << 20
"""Bytes of fp32 elements that one product works on. Measured on 2 cores (4,544 columns, rank 64): 4 and 8 MiB are
equally fast, 37 MiB 20 % slower, since they fall out of the cache."""
SCRATCHES = 2
"""Of each worker: the weights, and the change where it is made apart from them."""
WAITING = 2
"""Workers more than there are CPUs, so that a CPU has work while some of them wait for the disk."""


@dataclass(frozen=True)
class Budget:
    """What a merge may hold at one time."""

    block: int
    """Bytes of one buffer."""
    buffers: int
    stage: int
    """Bytes of one write, which are put together beside the buffers."""
    scratch: int
    """Bytes of one scratch; a worker has `SCRATCHES` of them."""
    workers: int

    @classmethod
    def of(cls, memory: int, cpus: int) -> "Budget":
        """Shares out `memory` bytes (at least `config.LEAST_MERGE_MEMORY`); workers get half of it at most."""
        of_worker = SCRATCHES * SCRATCH
        workers = min(cpus + WAITING, memory // 2 // of_worker)
        buffers = (memory - workers * of_worker) // BLOCK - 1
        return cls(block=BLOCK, buffers=buffers, stage=BLOCK, scratch=SCRATCH, workers=workers)

    @property
    def bytes(self) -> int:
        """The most that is held."""
        return self.buffers * self.block + self.stage + self.workers * SCRATCHES * self.scratch
