"""A merge in a process that dies at a given call to the system, as a pod without power would.

It imports little, so that a fork of it costs nothing.
"""

import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from falcon_trainer.merge import budget
from falcon_trainer.merge.draft import Draft
from falcon_trainer.merge.shards import Recipe, merge_shards
from falcon_trainer.merge.update import Update
from falcon_trainer.model.weights import Weights

CALLS = ("preadv", "pwrite", "ftruncate", "fsync", "rename", "replace")


def small_blocks() -> None:
    """Several blocks in each matrix of a small model, and several products in each block."""
    budget.BLOCK, budget.SCRATCH = 5 * 4096, 4 * 4096


def merge(base: Path, adapter: Path, scale: float, folder: Path) -> dict[str, Any]:
    """Merges into the draft in `folder`."""
    recipe = Recipe(Weights.of(base), Update(Weights([adapter]), scale), "auto", 64 << 20)
    return merge_shards(recipe, Draft.at(folder), lambda _: None)


def merge_and_die(base: Path, adapter: Path, scale: float, folder: Path, fatal: int) -> None:
    """As `merge`, until SIGKILL instead of call number `fatal` (from 1) that reads, writes, syncs or renames."""
    calls = count(1)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if next(calls) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counted

    for name in CALLS:
        setattr(os, name, deadly(getattr(os, name)))
    small_blocks()
    merge(base, adapter, scale, folder)
