"""Stacks on request: what a rank is doing, written by itself even while it hangs."""

import faulthandler
import os
import signal
from pathlib import Path

from falcon_trainer.layout import RUNTIME

REQUEST = signal.SIGUSR1


def stacks_path(rank: int, directory: Path = RUNTIME) -> Path:
    """Where a rank's stacks come to lie."""
    return directory / f"stacks-{rank}.txt"


def offer_stacks(rank: int, directory: Path = RUNTIME) -> None:
    """From here on REQUEST appends the Python stack of every thread to `stacks_path`. To be called early: before it,
    the signal would end the process.

    faulthandler writes from the signal's handler in C, so that it answers while the interpreter waits in a collective
    or another thread holds its lock. Raises OSError where the file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Kept open: no memory and no file can be asked for inside a handler.
    descriptor = os.open(stacks_path(rank, directory), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    faulthandler.register(REQUEST, file=descriptor, all_threads=True)
