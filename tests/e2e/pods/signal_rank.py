"""Sends a signal to one rank of the pod that this runs in. Arguments: rank, name of the signal."""

import json
import os
import signal
import sys
from pathlib import Path

STAGE = b"falcon_trainer.cli"


def process_of(rank: int) -> int:
    """The rank's process: the first one that torchrun started under this number, before any helper of its own."""
    wanted, found = f"RANK={rank}".encode(), []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            named = wanted in (folder / "environ").read_bytes().split(b"\0")
            if named and STAGE in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has ended since, or belongs to somebody else
            continue
    if not found:
        raise SystemExit(f"this pod has no process of rank {rank}")
    return min(found)


def main(rank: str, name: str) -> None:
    pid = process_of(int(rank))
    os.kill(pid, signal.Signals[name])
    print(json.dumps({"pid": pid}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
