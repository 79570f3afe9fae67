"""Running programs and waiting for conditions, with errors that say what was tried."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Word = str | Path


class ClusterError(Exception):
    """Something that the person at the keyboard must know; its text says what happened and what to do."""


def run(
    command: Sequence[Word],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run to the end and return standard output; raise ClusterError with the program's own words when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, check=False, input=stdin, env=env, cwd=cwd, timeout=timeout, text=True, capture_output=True
        )
    except FileNotFoundError:
        raise ClusterError(f"{words[0]} is not installed; `make cluster-deps` installs what is needed") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"gave up after {timeout:.0f} s: {shlex.join(words)}") from None
    if done.returncode != 0:
        words_of_it = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-20:])
        raise ClusterError(f"failed with exit code {done.returncode}: {shlex.join(words)}\n{words_of_it}")
    return done.stdout


def succeeds(command: Sequence[Word], timeout: float = 30.0) -> bool:
    """Whether the program ends with 0; its output is nobody's business."""
    try:
        run(command, timeout=timeout)
    except ClusterError:
        return False
    return True


def wait_until(
    condition: Callable[[], bool], *, timeout: float, what: str, hint: str = "", interval: float = 0.1
) -> None:
    """Poll until `condition` holds; raise ClusterError naming `what` when `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {timeout:.0f} s in vain for {what}" + (f"; {hint}" if hint else ""))
        time.sleep(interval)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and, once it is over, how long it took."""
    begin = time.monotonic()
    say(f"  {title} …")
    yield
    seconds = time.monotonic() - begin
    if seconds >= 1:
        say(f"  {title}: {seconds:.0f} s")
