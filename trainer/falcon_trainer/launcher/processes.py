"""The stage's processes: start, watch, stop, and leave none behind."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from falcon_trainer.launcher import WATCHED

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
TICK = 1.0
KILL_PATIENCE = 10.0
"""Seconds until processes that do not die of SIGKILL (stuck in a device or on NFS) are left to the kernel."""


@dataclass(frozen=True)
class Ended:
    """How the stage's main process ended."""

    returncode: int
    """Negative: the signal that killed it."""
    stop_requested: bool
    overran: bool = False
    """It was still running when the grace period ended."""


def adopt_orphans() -> None:
    """Makes processes whose parent died our children, as they are of PID 1, so that none escapes."""
    if os.getpid() != 1 and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print(f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(ctypes.get_errno())}", file=sys.stderr)


def supervise(command: Sequence[str], env: Mapping[str, str], *, stderr: int, grace_seconds: float) -> Ended:
    """Runs `command` to its end in a session of its own; SIGTERM and SIGINT are passed on to its process group, and
    after `grace_seconds` everything is killed. On return no descendant is left.

    The caller has blocked WATCHED and called `adopt_orphans`. Raises OSError where `command` cannot be started.
    """
    child = _spawn(command, env, stderr)
    returncode: int | None = None
    kill_at: float | None = None
    while returncode is None and not (kill_at is not None and time.monotonic() >= kill_at):
        received = signal.sigtimedwait(WATCHED, _until(kill_at))
        if received and received.si_signo in STOP_SIGNALS and kill_at is None:
            kill_at = time.monotonic() + grace_seconds
            _signal_group(child, signal.SIGTERM)
        returncode = _reap(child)
    overran = returncode is None
    killed = _kill_descendants(child)
    return Ended(killed if returncode is None else returncode, stop_requested=kill_at is not None, overran=overran)


def _until(kill_at: float | None) -> float:
    """Seconds to the next look around: at the latest when the grace period ends."""
    return TICK if kill_at is None else min(TICK, max(0.0, kill_at - time.monotonic()))


def wait_for_stop(seconds: float) -> bool:
    """Sleeps up to `seconds`; True as soon as a stop is requested."""
    return signal.sigtimedwait(STOP_SIGNALS, seconds) is not None


def descendants(of: int) -> list[int]:
    """Living descendants of process `of`, in whatever session they are."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent_if_alive(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, frontier = [], [of]
    while frontier:
        frontier = [pid for parent in frontier for pid in children.get(parent, [])]
        found += frontier
    return found


def _parent_if_alive(process: Path) -> int | None:
    try:
        # The command's name, in parentheses, may itself hold spaces and parentheses.
        state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(parent)


def _spawn(command: Sequence[str], env: Mapping[str, str], stderr: int) -> int:
    # posix_spawn gives the child an empty signal mask without running Python between fork and exec.
    return os.posix_spawn(
        command[0],
        list(command),
        dict(env),
        file_actions=[(os.POSIX_SPAWN_DUP2, stderr, 2)],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these, a program expects the default
    )


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _reap(child: int) -> int | None:
    """Collects every child that has ended, adopted ones too; the exit code of `child` where it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def _kill_descendants(child: int) -> int:
    """Kills all descendants, again and again while new ones appear; the exit code of `child` if it was among them."""
    codes: list[int | None] = []
    deadline = time.monotonic() + KILL_PATIENCE
    while (alive := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)
        codes.append(_reap(child))
    codes.append(_reap(child))
    if alive:
        print(f"processes {alive} do not die; they are left to the kernel", file=sys.stderr)
    return next((code for code in codes if code is not None), -signal.SIGKILL)
