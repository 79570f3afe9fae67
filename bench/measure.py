"""What the benches share: each side runs in a fresh process, so that its time and its peak of memory are clean."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

MEGABYTE = 1_000_000
BEGIN, END = "--- measuring ---", "--- measured ---"
INTERVAL = 0.002
"""Seconds between two looks at a side's memory: what lives shorter may be missed in `own_peak`, not in `peak`. Each
look costs 40 µs of a core."""


@dataclass
class Measured:
    """One side: seconds of each run, and peaks over what the process held before its first run, in bytes."""

    cpu: list[float]
    """Of all threads."""
    wall: list[float]
    peak: int
    """Of resident memory, with the pages of mapped files that were touched (the kernel's own high-water mark)."""
    facts: dict[str, Any]
    own_peak: int = 0
    """Of anonymous memory, private or shared: without mapped files, whose pages all processes share and the kernel may
    drop."""

    @property
    def seconds(self) -> float:
        return median(self.cpu)


def measure(action: Callable[[], Any], *, repeats: int = 1) -> tuple[Measured, Any]:
    """In the side's process: runs the action; peaks are those of the first run. Returns the last run's value too."""
    measured = Measured([], [], 0, {})
    value = None
    for number in range(repeats):
        value = None  # the last run's is not to be held beside the next one's
        if number == 0:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew (proc(5))
            before = memory("VmRSS")
            print(BEGIN, flush=True)
        wall, cpu = time.perf_counter(), time.process_time()
        value = action()
        measured.cpu.append(time.process_time() - cpu)
        measured.wall.append(time.perf_counter() - wall)
        if number == 0:
            measured.peak = memory("VmHWM") - before
            print(END, flush=True)
    return measured, value


def report(measured: Measured, **facts: Any) -> None:
    """In the side's process, last: hands the figures to the bench."""
    measured.facts |= facts
    print(json.dumps(asdict(measured)), flush=True)


def run_side(
    script: str, arguments: Iterable[str], *, threads: int = 1, interval: float = INTERVAL, **others: str
) -> Measured:
    """Runs a side in a fresh process, with `others` in its environment, and waits. Raises CalledProcessError where it
    fails.
    """
    command = [sys.executable, script, *arguments]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore::FutureWarning"}
    environment = {**os.environ, **limits, **quiet, "TOKENIZERS_PARALLELISM": "false", **others}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        watch, last = _Watch(process.pid, interval), ""
        for line in process.stdout:
            if line.strip() == BEGIN:
                watch.start()
            elif line.strip() == END:
                watch.stop()
            elif line.strip():
                last = line
    watch.stop()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Measured(**json.loads(last) | {"own_peak": watch.peak})


class _Watch:
    """Looks at the anonymous memory of another process."""

    def __init__(self, pid: int, interval: float) -> None:
        self._pid, self._interval, self._done = pid, interval, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak = 0

    def start(self) -> None:
        self._before = anonymous(self._pid)
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._done.set()
            self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(self._interval):
            self.peak = max(self.peak, anonymous(self._pid) - self._before)


def memory(field: str, pid: int | str = "self") -> int:
    """Bytes of a field of /proc/PID/status; 0 where the process is gone."""
    return _fields(pid, field)


def anonymous(pid: int | str = "self") -> int:
    """Bytes without a file of their own; the kernel counts those that may be shared apart, as shmem."""
    return _fields(pid, "RssAnon", "RssShmem")


@contextmanager
def on_cpus(count: int) -> Iterator[None]:
    """Within it this thread, and the processes that it starts, have only `count` of its CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _fields(pid: int | str, *names: str) -> int:
    """The sum of fields of /proc/PID/status in bytes; 0 where the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0].rstrip(":") in names)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for number, line in enumerate(lines):
        print(
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
        )
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print(flush=True)
