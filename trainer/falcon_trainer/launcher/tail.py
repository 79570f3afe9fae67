"""Passes a stage's stderr on to the pod's log and remembers its last lines."""

import os
import re
import threading
from collections import deque

LINES = 200
LINE_BYTES = 2000
LINE_END = re.compile(rb"[\r\n]+")
AGENT_LINE = re.compile(r"^[IWEF]\d{4} .*torch/distributed/(elastic|run|launcher)|^ranks ended with these exit codes")
"""torchrun's own log lines: what it says after a rank's last words would push them out of sight."""


class Tail:
    """A pipe whose write end is the stage's stderr; a thread copies it to ours and keeps the last lines."""

    def __init__(self, out: int = 2) -> None:
        self._out = out
        self._lines: deque[str] = deque(maxlen=LINES)
        self._partial = b""
        self._read_end, self.write_end = os.pipe()
        self._thread = threading.Thread(target=self._pump, name="stderr", daemon=True)
        self._thread.start()

    def close(self, patience: float = 2.0) -> None:
        """Ends our side; waits until all that was written has been passed on."""
        os.close(self.write_end)
        self._thread.join(patience)

    def lines(self) -> list[str]:
        """The last lines of the ranks, oldest first."""
        rest = [self._partial.decode(errors="replace")] if self._partial.strip() else []
        return [line for line in [*list(self._lines), *rest] if not AGENT_LINE.match(line)]

    def _pump(self) -> None:
        while chunk := os.read(self._read_end, 65536):
            view = memoryview(chunk)
            try:
                while view:
                    view = view[os.write(self._out, view) :]
            except OSError:
                pass  # nobody reads our log any more: the stage must go on, and its last words are still kept
            *whole, partial = LINE_END.split(self._partial + chunk)
            self._lines.extend(line[-LINE_BYTES:].decode(errors="replace") for line in whole if line.strip())
            self._partial = partial[-LINE_BYTES:]
        os.close(self._read_end)
