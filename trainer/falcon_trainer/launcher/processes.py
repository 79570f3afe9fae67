"""The stage's processes: start, watch, stop, and leave none behind."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from falcon_trainer.launcher import WATCHED

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
TICK = 1.0
KILL_PATIENCE = 10.0
"""Seconds until processes that do not die of SIGKILL (stuck in a device or on NFS) are left to the kernel."""
KILL_PATIENCE_AT_STOP = 2.0
"""The same when the kubelet counts: the outcome must be written before it kills the launcher too."""

Guard = Callable[[int, float | None], str | None]
"""Asked about every second: given the main process and the seconds since a stop was asked for, says why all must be
killed now, as a clause that follows the stage's name; None while it may go on."""


@dataclass(frozen=True)
class Ended:
    """How the stage's main process ended."""

    returncode: int
    """Negative: the signal that killed it."""
    stop_requested: bool
    cut: str | None = None
    """Why the launcher killed it, as a clause that follows its name; None where it ended by itself."""


def adopt_orphans() -> None:
    """Makes processes whose parent died our children, as they are of PID 1, so that none escapes."""
    if os.getpid() != 1 and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print(f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(ctypes.get_errno())}", file=sys.stderr)


def supervise(
    command: Sequence[str], env: Mapping[str, str], *, stderr: int, grace_seconds: float, guard: Guard
) -> Ended:
    """Runs `command` to its end in a session of its own; SIGTERM and SIGINT are passed on to its process group. After
    `grace_seconds`, or as soon as `guard` says so, everything is killed. On return no descendant is left.

    The caller has blocked WATCHED and called `adopt_orphans`. Raises OSError where `command` cannot be started.
    """
    child = _spawn(command, env, stderr)
    stop_at: float | None = None
    look_at = time.monotonic()
    while True:
        received = signal.sigtimedwait(WATCHED, _until(look_at, stop_at, grace_seconds))
        if received and received.si_signo in STOP_SIGNALS and stop_at is None:
            stop_at = time.monotonic()
            _signal_group(child, signal.SIGTERM)
        returncode = _reap(child)
        if returncode is not None:
            _kill_descendants(child, _patience(stop_at))
            return Ended(returncode, stop_requested=stop_at is not None)
        now = time.monotonic()
        cut = _overrun(stop_at, grace_seconds)
        if cut is None and now >= look_at:
            cut, look_at = guard(child, None if stop_at is None else now - stop_at), now + TICK
        if cut is not None:
            return Ended(_kill_descendants(child, _patience(stop_at)), stop_requested=stop_at is not None, cut=cut)


def _until(look_at: float, stop_at: float | None, grace_seconds: float) -> float:
    """Seconds to the next look around: at the latest when the grace period ends."""
    moment = look_at if stop_at is None else min(look_at, stop_at + grace_seconds)
    return max(0.0, moment - time.monotonic())


def _overrun(stop_at: float | None, grace_seconds: float) -> str | None:
    if stop_at is None or time.monotonic() < stop_at + grace_seconds:
        return None
    return f"did not end within its grace period of {grace_seconds:.0f} s and was killed"


def _patience(stop_at: float | None) -> float:
    return KILL_PATIENCE if stop_at is None else KILL_PATIENCE_AT_STOP


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


def _kill_descendants(child: int, patience: float) -> int:
    """Kills all descendants, again and again while new ones appear; the exit code of `child` if it was among them."""
    codes: list[int | None] = []
    deadline = time.monotonic() + patience
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
