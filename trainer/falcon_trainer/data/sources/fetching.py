"""Files on their way: what is there of them already, patience with what fails, and a full disk."""

import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from falcon_trainer.data.sources.choosing import Wanted
from falcon_trainer.outcome import ExitCode, StageError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between tries that brought nothing; after them the stage ends as retryable, and the Job tries again."""
REPORT_SECONDS = 30.0
"""Seconds between two lines of the log on a download that goes on."""
T = TypeVar("T")


class UnavailableError(Exception):
    """The other side does not answer, or not now; the text says how, as a clause."""


class PartialFile:
    """One file that is being fetched, and beside it the version (ETag) that its bytes belong to."""

    def __init__(self, path: Path, note: Path) -> None:
        self._path, self._note = path, note

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self._path.stat().st_size if self._path.is_file() else 0

    @property
    def version(self) -> str | None:
        """The version that the bytes belong to; None where that is unknown, and they are of no use."""
        try:
            found = json.loads(self._note.read_text(encoding="utf-8"))["version"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) and self.size else None

    def begin(self, version: str | None) -> None:
        """Starts anew, with bytes of this version."""
        for path in (self._path, self._note):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._note.unlink(missing_ok=True)
        with self._path.open("wb"):
            pass
        if version is not None:
            self._note.write_text(json.dumps({"version": version}), encoding="utf-8")

    def append(self, blocks: Iterable[bytes]) -> None:
        """Adds to the bytes. What `blocks` raises goes through; a full disk is an OSError."""
        with self._path.open("ab") as file:
            for block in blocks:
                file.write(block)


def patiently(attempt: Callable[[], T], progress: Callable[[], int], wanted: Wanted) -> T:
    """Tries until `attempt` does not raise UnavailableError; tries that brought bytes do not count.

    Raises StageError(UNAVAILABLE) after too many in a row that brought none.
    """
    failed, before = 0, progress()
    while True:
        try:
            return attempt()
        except UnavailableError as error:
            failed, before = (0 if progress() > before else failed + 1), progress()
            if failed > len(PAUSES):
                raise StageError(
                    ExitCode.UNAVAILABLE,
                    "SourceUnavailable",
                    f"{wanted.shown} {error}. What was fetched is kept, and the next try goes on from there.",
                ) from error
            print(f"{wanted.shown} {error}; trying again.", flush=True)
            time.sleep(PAUSES[max(failed - 1, 0)])


def reported(blocks: Iterable[bytes], present: int, total: int | None, wanted: Wanted) -> Iterator[bytes]:
    """The blocks of a file of which `present` bytes are there; says now and then how far it is."""
    said = time.monotonic()
    for block in blocks:
        yield block
        present += len(block)
        if time.monotonic() - said >= REPORT_SECONDS:
            said = time.monotonic()
            of = f" of {total / 1e6:,.0f}" if total is not None else ""
            print(f"{wanted.shown}: {present / 1e6:,.0f}{of} MB fetched.", flush=True)


@contextmanager
def room(wanted: Wanted) -> Iterator[None]:
    """Turns a full disk into a StageError(CANNOT_WRITE) that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StageError(
            ExitCode.CANNOT_WRITE,
            "DiskFull",
            f"The workspace claim is full while {wanted.shown} is fetched. Enlarge the claim or free space on it; what "
            "was fetched is kept, and the next try goes on from there.",
        ) from error
