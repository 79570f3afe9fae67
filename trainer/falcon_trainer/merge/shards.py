"""All shards of the merged model, in the base's files: those that an earlier pod finished stay as they are."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from falcon_trainer.artifacts import FileEntry, write_file
from falcon_trainer.launcher.cgroup import Cgroup
from falcon_trainer.merge.budget import Budget
from falcon_trainer.merge.draft import Draft
from falcon_trainer.merge.plan import ShardPlan, index_of
from falcon_trainer.merge.stream import Merger, Progress
from falcon_trainer.merge.update import Update
from falcon_trainer.model.weights import Weights

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
"""The one name that transformers finds without an index."""
BESIDE = 64 << 20
"""Bytes that are kept free for what lies beside the weights: tokenizer, configuration, records."""


@dataclass(frozen=True)
class Recipe:
    """What is merged, and how."""

    base: Weights
    update: Update
    dtype: str
    """A torch name such as "bfloat16", or "auto" for each tensor's own."""
    memory: int
    """Bytes for weights on their way."""


def merge_shards(recipe: Recipe, draft: Draft, progress: Progress) -> dict[str, FileEntry]:
    """Writes what is missing of the shards, and their index, into the draft; returns their sizes and digests.

    `progress` is told bytes of the base. Raises StageError(CANNOT_WRITE) where the volume has too little space, and
    OSError, naming the file, where reading or writing fails; then the shard that was being written is gone.
    """
    cpus = Cgroup().cpus()
    plans = {file: ShardPlan.of(file, recipe.dtype) for file in recipe.base.files}
    entries = draft.done([file.name for file in plans], cpus)
    missing = [plan.bytes for file, plan in plans.items() if file.name not in entries]
    if entries:
        print(f"{len(entries)} of {len(plans)} shards are merged already.", flush=True)
        progress(sum(file.stat().st_size for file in plans if file.name in entries))
    if missing:
        draft.require_space(sum(missing) + BESIDE)
        with Merger(recipe.update, Budget.of(recipe.memory, cpus)) as merger:
            for file, plan in plans.items():
                if file.name not in entries:
                    entries[file.name] = _merge(merger, file, plan, draft, progress)
    if [file.name for file in plans] != [SINGLE]:
        index = index_of(list(recipe.base.tensors.values()), recipe.dtype)
        write_file(draft.model / INDEX, json.dumps(index, indent=1))
    return entries


def _merge(merger: Merger, file: Path, plan: ShardPlan, draft: Draft, progress: Callable[[int], None]) -> FileEntry:
    partial = draft.partial(file.name)
    try:
        entry = merger.merge(file, plan, partial, progress)
    except BaseException:
        partial.unlink(missing_ok=True)  # others on a full volume have more use for the space
        raise
    draft.keep(file.name, entry)
    return entry
