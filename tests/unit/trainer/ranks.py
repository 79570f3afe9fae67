"""Ranks in a hurry: a process that has imported torch, transformers, PEFT and DeepSpeed, and forks gangs on request.

A rank imports for ten seconds and trains a small Falcon in one. `python -m tests.unit.trainer.ranks` reads one JSON
line per gang, {program, log, environment, ranks}, forks its ranks as torchrun would start them, and answers with
their exit codes. It imports nothing of falcon_trainer, whose modules read their environment when they are imported.
"""

import json
import os
import runpy
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any


class Ranks:
    """The client's side of the process."""

    def __init__(self, repository: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=repository,
            # One thread a rank, as torchrun gives it: ranks that share two cores wait for each other's threads.
            env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: Path, environment: dict[str, str], ranks: int) -> None:
        """Runs the program in every rank of a new gang; fails with the log where a rank fails."""
        log = program.with_suffix(".log")
        asked = {"program": str(program), "log": str(log), "environment": environment, "ranks": ranks}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        assert codes == [0] * ranks, f"exit codes {codes}\n{log.read_text()[-6000:]}"

    def close(self) -> None:
        self._process.communicate()


def _fork(asked: dict[str, Any], rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(asked["environment"])
        size = str(asked["ranks"])
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=size, LOCAL_WORLD_SIZE=size)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        runpy.run_path(asked["program"], run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print on import is not an answer
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    import safetensors.torch  # noqa: F401
    import tensorboardX  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    from transformers import AutoTokenizer, FalconForCausalLM, Trainer  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        port = _free_port()
        children = [_fork(asked, rank, port) for rank in range(asked["ranks"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        answers.write(json.dumps(codes) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
