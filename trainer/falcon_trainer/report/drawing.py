"""Draws the page in a process of its own, in the background, so that no rank waits for it and no fault of it spreads.

Importing matplotlib and drawing take about three seconds of one core and 150 MB; in rank 0 they would hold up the whole
gang at its next collective. The process lowers its priority, reads only files, and replaces what it draws as a whole.
"""

import logging
import subprocess
import sys
import time
from pathlib import Path

log = logging.getLogger(__name__)

EVERY_SECONDS = 120.0
"""Between two drawings in the background: even on a pod with one core they take 2 % of its time."""
LAST_SECONDS = 60.0
"""How long the end of a training waits for the last drawing."""


class Drawing:
    """At most one process at a time."""

    def __init__(self, run: Path, every: float = EVERY_SECONDS) -> None:
        self._run, self._every = run, every
        self._process: subprocess.Popen[bytes] | None = None
        self._started = time.monotonic()

    def begin(self) -> bool:
        """Draws in the background, if that was not done lately; whether it does."""
        if self._running() or time.monotonic() - self._started < self._every:
            return False
        self._start()
        return True

    def finish(self) -> None:
        """Draws what there is now, and waits until it is drawn."""
        if self._running():
            self._stop()  # what it draws is out of date
        self._start()
        assert self._process
        try:
            self._process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("The report was not drawn within %.0f s and is left as it was.", LAST_SECONDS)
            self._stop()

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        self._started = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-P", "-m", "falcon_trainer.report", str(self._run)])

    def _stop(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()
