"""Reads stacks as faulthandler writes them, and finds the telling frames. Pure."""

import re
from dataclasses import dataclass

FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$')
COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
ZERO_WAITS = "/deepspeed/runtime/zero/partition"
"""Where ZeRO-3 waits for a collective that it began earlier: no frame of the collective itself is left."""
INNERMOST = 8
"""Frames of a thread in which a collective is looked for: torch and DeepSpeed wrap theirs several times."""


@dataclass(frozen=True)
class Frame:
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({self.file.rpartition('/')[2]}:{self.line})"


@dataclass(frozen=True)
class Stacks:
    """The threads of one process, innermost frame first, the main thread last (as faulthandler writes them)."""

    threads: tuple[tuple[Frame, ...], ...]

    @property
    def main(self) -> tuple[Frame, ...]:
        return self.threads[-1] if self.threads else ()

    @property
    def in_collective(self) -> bool:
        """Whether a thread waits for other ranks. Autograd runs hooks, and so collectives, in threads of its own."""
        return any(_in_collective(thread) for thread in self.threads)

    def __str__(self) -> str:
        """Where the main thread is, and from where in this product it went there."""
        if not self.main:
            return "outside Python"
        ours = next((frame for frame in self.main if "/falcon_trainer/" in frame.file), None)
        called = f", called from {ours}" if ours and ours != self.main[0] else ""
        return f"in {self.main[0]}{called}"


def _in_collective(thread: tuple[Frame, ...]) -> bool:
    called = any(part in frame.file for frame in thread[:INNERMOST] for part in COLLECTIVES)
    return called or (bool(thread) and ZERO_WAITS in thread[0].file)


def parse(text: str) -> Stacks:
    """Reads what faulthandler wrote."""
    threads: list[list[Frame]] = []
    for line in text.splitlines():
        if "(most recent call first)" in line:
            threads.append([])
        elif (match := FRAME.match(line)) and threads:
            threads[-1].append(Frame(match["file"], int(match["line"]), match["function"]))
    return Stacks(tuple(tuple(thread) for thread in threads))
