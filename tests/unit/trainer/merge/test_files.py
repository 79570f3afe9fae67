"""What is written is what is read, on file systems that take direct reads and writes, and on those that do not."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from mmap import PAGESIZE, mmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falcon_trainer.merge import files
from falcon_trainer.merge.files import Sink, Source, whole_pages

Call = Callable[..., Any]
THREADS = 8


def no_flag(patch: pytest.MonkeyPatch) -> None:
    """As tmpfs of old kernels: the flag itself is refused."""
    call = fcntl.fcntl

    def refuse(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return call(descriptor, command, flags)

    patch.setattr(fcntl, "fcntl", refuse)


def no_direct_call(patch: pytest.MonkeyPatch) -> None:
    """As some network file systems: the flag is taken, and then no call."""

    def refused(call: Call) -> Call:
        def refuse(descriptor: int, *arguments: Any) -> int:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EINVAL, "Invalid argument")
            count: int = call(descriptor, *arguments)
            return count

        return refuse

    patch.setattr(os, "pwrite", refused(os.pwrite))
    patch.setattr(os, "preadv", refused(os.preadv))


def short_calls(patch: pytest.MonkeyPatch) -> None:
    """Calls that do less than they were asked for, and end within a page."""
    write, read = os.pwrite, os.preadv
    patch.setattr(os, "pwrite", lambda descriptor, data, offset: write(descriptor, data[:5000], offset))
    patch.setattr(os, "preadv", lambda descriptor, into, offset: read(descriptor, [into[0][:8192]], offset))


def nothing(_: pytest.MonkeyPatch) -> None:
    """The file system of the tests."""


@pytest.mark.parametrize("system", [nothing, no_flag, no_direct_call, short_calls])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 9000), max_size=6), offset=st.integers(0, 3))
def test_pieces_of_any_size_come_back(
    tmp_path: Path, system: Callable[[pytest.MonkeyPatch], None], sizes: list[int], offset: int
) -> None:
    pieces = [os.urandom(size) for size in sizes]
    content, file = b"".join(pieces), tmp_path / "file"
    with pytest.MonkeyPatch.context() as patch:
        system(patch)
        with Sink(file, mmap(-1, 2 * PAGESIZE)) as sink:
            for piece in pieces:
                sink.write(memoryview(piece))
            sink.finish()
        assert file.read_bytes() == content
        start = offset * PAGESIZE
        needed = max(0, len(content) - start)
        buffer = mmap(-1, whole_pages(needed) or PAGESIZE)
        with Source(file) as source:
            source.read(memoryview(buffer), start, needed)
        assert buffer[:needed] == content[start:]


def test_direct_reads_that_are_refused_to_several_threads_at_once_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(THREADS * PAGESIZE)
    (tmp_path / "file").write_bytes(content)
    read, set_direct = os.preadv, files._set_direct
    all_refused, cleared = threading.Barrier(THREADS), threading.Event()
    refused = threading.local()

    def refuse_first(descriptor: int, into: list[memoryview], offset: int) -> int:
        if not hasattr(refused, "once"):
            refused.once = True
            if all_refused.wait(60):
                cleared.wait(60)  # one thread goes through the fallback first
            raise OSError(errno.EINVAL, "Invalid argument")
        return read(descriptor, into, offset)

    def tell(descriptor: int, direct: bool) -> bool:
        now = set_direct(descriptor, direct)
        if not direct:
            cleared.set()
        return now

    def read_page(number: int) -> bytes:
        buffer = mmap(-1, PAGESIZE)
        source.read(memoryview(buffer), number * PAGESIZE, PAGESIZE)
        return buffer[:]

    with Source(tmp_path / "file") as source, ThreadPoolExecutor(THREADS) as pool:
        monkeypatch.setattr(files, "_set_direct", tell)
        monkeypatch.setattr(os, "preadv", refuse_first)
        assert b"".join(pool.map(read_page, range(THREADS))) == content


def test_an_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10))
    with Source(tmp_path / "file") as source, pytest.raises(OSError, match=r"became shorter.*file"):
        source.read(memoryview(mmap(-1, PAGESIZE)), 0, 11)
