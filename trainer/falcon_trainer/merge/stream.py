"""One file of the base becomes one merged file, in a fixed amount of memory.

    workers   read a block into a buffer, and change it in place
    main      hands out the blocks, and digests the changed ones, both in the file's order
    writer    writes what is digested, and the buffer is free again

So reading, computing, digesting and writing overlap; torch, hashlib and the system's reads and writes let go of the
interpreter's lock. Every worker computes with one thread: torch's own threads would wait for each other at the end of
each product, and where other work keeps the CPUs busy that takes longer than the product.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap
from pathlib import Path
from typing import Any

import torch

from falcon_trainer.artifacts import FileEntry
from falcon_trainer.merge.budget import Budget
from falcon_trainer.merge.files import Sink, Source, whole_pages
from falcon_trainer.merge.plan import Block, ShardPlan, even_parts
from falcon_trainer.merge.update import Update
from falcon_trainer.model.weights import TORCH_NAMES

Progress = Callable[[int], None]
"""Told how many bytes of the base were done since it was told last."""


class Merger:
    """Merges files one after the other, with the same threads and the same memory. A context manager."""

    def __init__(self, update: Update, budget: Budget) -> None:
        self._update, self._budget = update, budget
        self._change = _Change(update, budget.scratch)
        self._buffers = [_memory(budget.block + 3 * PAGESIZE) for _ in range(budget.buffers)]
        self._stage = _memory(budget.stage)
        self._workers = ThreadPoolExecutor(budget.workers, thread_name_prefix="merge")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")

    def __enter__(self) -> "Merger":
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.shutdown(cancel_futures=True)
        self._writer.shutdown(cancel_futures=True)

    def merge(self, source: Path, plan: ShardPlan, target: Path, progress: Progress) -> FileEntry:
        """Writes `target`, durably, and returns its size and digest. Raises OSError, naming the file that failed."""
        digest = hashlib.sha256(plan.header)
        with Source(source) as reading, Sink(target, self._stage) as writing, one_thread():
            writing.write(memoryview(plan.header))
            line = _Line(self._buffers)
            try:
                for block in plan.blocks(self._budget.block, self._update.changes):
                    while (buffer := line.free()) is None:
                        self._digest(line, digest, writing, progress)
                    line.changing.append((block, buffer, self._workers.submit(self._change, block, buffer, reading)))
                while line.changing:
                    self._digest(line, digest, writing, progress)
                line.drain()
            finally:
                line.stop()  # before the files are closed
            writing.finish()
        return FileEntry(bytes=plan.bytes, sha256=digest.hexdigest())

    def _digest(self, line: "_Line", digest: "hashlib._Hash", writing: Sink, progress: Progress) -> None:
        block, buffer, changed = line.changing.popleft()
        data = changed.result()
        digest.update(data)
        line.writing.append((buffer, self._writer.submit(writing.write, data)))
        progress(block.source_bytes)


def _memory(size: int) -> mmap:
    """Whole pages, which direct reads and writes want. Private, to be counted as what it is: the process's own memory,
    where mmap's default is a shared file without a name.
    """
    return mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)


class _Line:
    """Where the buffers of one file are."""

    def __init__(self, buffers: Iterable[mmap]) -> None:
        self._free = list(buffers)
        self.changing: deque[tuple[Block, mmap, Future[memoryview]]] = deque()
        self.writing: deque[tuple[mmap, Future[None]]] = deque()

    def free(self) -> mmap | None:
        """A buffer that is free now, or soon: only where nothing else is to be done does it wait for the writer."""
        while self.writing and (self.writing[0][1].done() or not (self._free or self.changing)):
            buffer, written = self.writing.popleft()
            written.result()
            self._free.append(buffer)
        return self._free.pop() if self._free else None

    def drain(self) -> None:
        """Waits for the writer. Raises what it raised."""
        for _, written in self.writing:
            written.result()

    def stop(self) -> None:
        """Returns when no thread uses a buffer any more."""
        futures: list[Future[Any]] = [future for _, _, future in self.changing]
        for future in futures + [future for _, future in self.writing]:
            if not future.cancel():
                future.exception()


class _Change:
    """What a worker does with a block."""

    def __init__(self, update: Update, scratch: int) -> None:
        self._update, self._scratch = update, _Scratch(scratch)

    def __call__(self, block: Block, buffer: mmap, reading: Source) -> memoryview:
        """Reads the block and changes it; returns where in the buffer the merged bytes lie."""
        grows = block.target_bytes - block.source_bytes
        # Elements that grow are read to the buffer's end: those written from its beginning never catch up with them.
        page = whole_pages(max(0, grows))
        skipped = block.source_offset % PAGESIZE
        needed = skipped + block.source_bytes
        into = memoryview(buffer)[page : page + whole_pages(needed)]
        reading.read(into, block.source_offset - skipped, needed)
        source = _tensor(buffer, block.entry.dtype, block.elements, page + skipped)
        at = page + skipped if block.dtype == block.entry.dtype else 0
        target = _tensor(buffer, block.dtype, block.elements, at)
        if self._update.changes(block.entry.name):
            self._merge(block, source, target)
        elif source.dtype != target.dtype:
            _convert(source, target, self._scratch.first)
        return memoryview(buffer)[at : at + block.target_bytes]

    def _merge(self, block: Block, source: torch.Tensor, target: torch.Tensor) -> None:
        pair = self._update.pair(block.entry.name)
        columns = block.entry.shape[1]
        weights, change = self._scratch.first.view(torch.float32), self._scratch.second.view(torch.float32)
        in_place = source.dtype == target.dtype == torch.float32
        for start, rows in even_parts(block.elements // columns, max(1, weights.numel() // columns)):
            piece = slice(start * columns, (start + rows) * columns)
            old = source[piece].view(rows, columns)
            new = old if in_place else weights[: old.numel()].view(rows, columns).copy_(old)
            self._update.add(new, pair, block.first // columns + start, change)
            if not in_place:
                target[piece].copy_(new.view(-1))


class _Scratch(threading.local):
    """Memory of each worker, made when it first computes."""

    def __init__(self, size: int) -> None:
        self.first, self.second = torch.empty(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)


def _convert(source: torch.Tensor, target: torch.Tensor, scratch: torch.Tensor) -> None:
    """Copies to another element type, rounded once, where both lie in one buffer."""
    beside = scratch.view(target.dtype)
    for start in range(0, source.numel(), beside.numel()):
        piece = source[start : start + beside.numel()]
        target[start : start + piece.numel()].copy_(beside[: piece.numel()].copy_(piece))


def _tensor(buffer: mmap, dtype: str, elements: int, offset: int) -> torch.Tensor:
    return torch.frombuffer(buffer, dtype=getattr(torch, TORCH_NAMES[dtype]), count=elements, offset=offset)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes each operation with the thread that asks for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
