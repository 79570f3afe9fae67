"""PID 1 of every stage pod: serves progress, passes signals on, starts the stage, says how it ended.

Light on purpose (standard library and pydantic, no torch), so that it answers within half a second of the pod's start
and lives on when the memory of the ranks runs out.
"""

import signal
import sys
from typing import NoReturn

WATCHED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
"""Signals that the launcher takes with sigtimedwait, so that no handler ever runs at a bad moment."""


def main() -> NoReturn:
    """Entry point of `falcon-launcher STAGE`."""
    # First of all: a signal that arrives while the rest is imported must wait, not be lost (the kernel drops a SIGTERM
    # that PID 1 neither handles nor blocks).
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    from falcon_trainer.launcher.run import command_line

    sys.exit(command_line(sys.argv[1:]))
