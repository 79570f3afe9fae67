"""Locks between processes: several checkouts, and several people's terminals, share one machine and one cache."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.shell import say


@contextmanager
def exclusively(lock: Path, busy: str) -> Iterator[None]:
    """Hold the lock file; say who is waited for while another process holds it. The kernel frees it with its holder."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting for another process that {busy} …")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
