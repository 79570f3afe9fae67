"""Asks the ranks for their stacks, and keeps these in the run's report."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from falcon_trainer.artifacts import write_file
from falcon_trainer.launcher.ranks import answers
from falcon_trainer.stacks import REQUEST, stacks_path

ANSWER_SECONDS = 3.0
PAUSE = 0.05
STEADY = 4
"""Pauses without a new byte after which a dump counts as whole: nothing marks its end."""
LIMIT = 64 * 1024
"""Bytes of stacks kept of one rank."""
WRITE_SECONDS = 5.0
"""A volume that hangs may be what the ranks hang in: it must not hold the launcher too."""


def ask(pids: Mapping[int, int], directory: Path, seconds: float = ANSWER_SECONDS) -> dict[int, str]:
    """The stacks of each rank that answers within `seconds`, given the pids by rank."""
    dumps = {rank: _Dump(stacks_path(rank, directory)) for rank, pid in pids.items() if answers(pid, REQUEST)}
    for rank in dumps:
        with suppress(ProcessLookupError):
            os.kill(pids[rank], REQUEST)
    deadline = time.monotonic() + seconds
    while sum(dump.whole() for dump in dumps.values()) < len(dumps) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return {rank: text for rank, dump in dumps.items() if (text := dump.text())}


class _Dump:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = self._begin = self._now()
        self._steady = 0

    def whole(self) -> bool:
        size = self._now()
        self._steady = self._steady + 1 if size == self._size > self._begin else 0
        self._size = size
        return self._steady >= STEADY

    def text(self) -> str:
        try:
            with self._path.open("rb") as file:
                file.seek(self._begin)
                return _bounded(file.read())
        except OSError:
            return ""

    def _now(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def _bounded(raw: bytes) -> str:
    if len(raw) <= LIMIT:
        return raw.decode(errors="replace")
    head, tail = raw[: LIMIT // 2], raw[-LIMIT // 2 :]
    return f"{head.decode(errors='replace')}\n… {len(raw) - LIMIT} bytes left out …\n{tail.decode(errors='replace')}"


def keep(texts: Iterable[tuple[Path, str]], seconds: float = WRITE_SECONDS) -> bool:
    """Writes the files; False, and the texts in the log instead, where the volume does not take them in time."""
    written = list(texts)
    if _within(seconds, lambda: _write(written)):
        return True
    print("the stacks could not be written to the workspace:", file=sys.stderr)
    for path, text in written:
        print(f"{path.name}:\n{text}", file=sys.stderr)
    return False


def _write(files: Iterable[tuple[Path, str]]) -> None:
    for path, text in files:
        write_file(path, text)


def _within(seconds: float, act: Callable[[], object]) -> bool:
    """Whether `act` was done in time and without an OSError."""
    done = threading.Event()

    def run() -> None:
        with suppress(OSError):
            act()
            done.set()

    thread = threading.Thread(target=run, name="stacks", daemon=True)
    thread.start()
    thread.join(seconds)
    return done.is_set()
