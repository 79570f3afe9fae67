"""The processes of this pod's ranks, as /proc shows them."""

import contextlib
import os
import signal
from pathlib import Path

from falcon_trainer.launcher.processes import descendants
from falcon_trainer.launcher.pulse import GONE

PROC = Path("/proc")
DEAD = frozenset("ZXx")


class Ranks:
    """Finds each rank's process and remembers it, so that one that ends is known to have been there."""

    def __init__(self, ranks: range) -> None:
        self._ranks = ranks
        self._pids: dict[int, int] = {}

    def states(self, agent: int) -> dict[int, str]:
        """The state of each rank's process below torchrun's (`agent`); ranks that have not been started are left out.

        A pid that the kernel gave to another process counts as gone: a rank's parent is its agent.
        """
        if len(self._pids) < len(self._ranks):
            self._find(agent)
        return {rank: _state(pid, agent) for rank, pid in sorted(self._pids.items())}

    def pid(self, rank: int) -> int | None:
        return self._pids.get(rank)

    def kill(self, rank: int) -> None:
        """SIGKILL: unlike SIGTERM it reaches a process that is stopped, and one that waits inside a collective."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pids[rank], signal.SIGKILL)

    def _find(self, agent: int) -> None:
        for pid in descendants(agent):
            rank = _rank_of(pid) if _stat(pid)[1] == agent else None
            if rank is not None and rank in self._ranks:
                self._pids.setdefault(rank, pid)


def answers(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal: without one, most signals end it."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def waits_in(pid: int) -> str:
    """The kernel function that a process sleeps in; empty where it runs or the kernel does not tell."""
    try:
        function = (PROC / str(pid) / "wchan").read_text().strip()
    except OSError:
        return ""
    return "" if function == "0" else function


def _state(pid: int, agent: int) -> str:
    state, parent = _stat(pid)
    return state if parent == agent and state not in DEAD else GONE


def _stat(pid: int) -> tuple[str, int]:
    """State and parent of a process; GONE and 0 where there is none."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return GONE, 0
    return fields[0], int(fields[1])


def _rank_of(pid: int) -> int | None:
    """RANK in the environment that a process was started with."""
    try:
        environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    value = next((entry[5:] for entry in environment if entry.startswith(b"RANK=")), b"")
    return int(value) if value.isdigit() else None
