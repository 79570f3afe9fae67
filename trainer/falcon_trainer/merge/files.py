"""A file of the base, read at any place by several threads, and a merged file, written from its beginning to its end.

Written directly (O_DIRECT) where the file system can: the merged model is larger than the page cache, and putting it
there costs more of the CPU than all else that is done with it. Measured on 2 cores of a virtual machine, s of a core
per GB: 0.06 to 0.12 direct, 0.27 to 2.2 through the cache, the more the newer its pages are to the machine.
"""

import errno
import fcntl
import os
from mmap import PAGESIZE, mmap
from pathlib import Path


class Source:
    """Reads a file. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        _set_direct(self._descriptor, True)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)

    def read(self, into: memoryview, offset: int, needed: int) -> None:
        """Reads at least `needed` bytes at `offset`. Raises OSError, naming the file.

        A direct read wants `offset` and `into` to begin at a page and to be whole pages, which may reach beyond what is
        needed and beyond the file.
        """
        try:
            done = 0
            while done < needed:
                count = self._get(into[done:], offset + done)
                if count == 0:
                    raise OSError(errno.EIO, "became shorter while it was read")
                done += count
        except OSError as error:
            raise _named(error, self._path) from error

    def _get(self, into: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._descriptor, [into], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        # Whether this read was direct is not known: another thread may have been refused as well, and been here first.
        _set_direct(self._descriptor, False)
        return os.preadv(self._descriptor, [into], offset)


class Sink:
    """Writes a file. A context manager; the file is whole and durable after `finish`, not before."""

    def __init__(self, path: Path, stage: mmap) -> None:
        """`stage` is memory for one write, of a multiple of the page size."""
        self._path, self._stage, self._staged, self._written = path, stage, 0, 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._direct = _set_direct(self._descriptor, True)

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)

    def write(self, data: memoryview) -> None:
        """Takes the file's next bytes. Raises OSError, naming the file."""
        while data:
            count = min(len(data), len(self._stage) - self._staged)
            self._stage[self._staged : self._staged + count] = data[:count]
            self._staged, data = self._staged + count, data[count:]
            if self._staged == len(self._stage):
                self._flush(self._staged)

    def finish(self) -> None:
        """Makes durable what was written. Raises OSError, naming the file."""
        size = self._written + self._staged
        try:
            self._flush(whole_pages(self._staged))  # a direct write takes whole pages
            os.ftruncate(self._descriptor, size)
            os.fsync(self._descriptor)
        except OSError as error:
            raise _named(error, self._path) from error

    def _flush(self, size: int) -> None:
        data = memoryview(self._stage)[:size]
        try:
            while data:
                count = self._put(data)
                data, self._written = data[count:], self._written + count
        except OSError as error:
            raise _named(error, self._path) from error
        self._staged = 0

    def _put(self, data: memoryview) -> int:
        try:
            count = os.pwrite(self._descriptor, data, self._written)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
            # A file system that takes the flag, and then no direct write of this size.
            self._direct = _set_direct(self._descriptor, False)
            count = os.pwrite(self._descriptor, data, self._written)
        if self._direct and count % PAGESIZE:
            self._direct = _set_direct(self._descriptor, False)  # the rest would not begin at a page
        if not self._direct:
            # Starts writing back, so that little is left for the fsync in the end (Linux).
            os.posix_fadvise(self._descriptor, self._written, count, os.POSIX_FADV_DONTNEED)
        return count


def whole_pages(size: int) -> int:
    """`size` bytes, rounded up to whole pages."""
    return -(-size // PAGESIZE) * PAGESIZE


def _set_direct(descriptor: int, direct: bool) -> bool:
    """Whether the descriptor is direct now."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return direct


def _named(error: OSError, path: Path) -> OSError:
    """The error with the file's name, which reads and writes by descriptor do not know."""
    return OSError(error.errno, error.strerror, str(path))
