"""A merge under way, on the volume: it outlives its pod, and the next one goes on at the shard where it stopped.

    merged/.merged.KEY.draft/
        model/          becomes the merged folder
        done/NAME.json  size and digest of a shard, durable before the shard gets its name
        NAME.partial    the shard that is being written

KEY is a digest of what is merged, so that shards of other inputs are never taken for these. One pod at a time merges a
run (its Job replaces a pod only when it has ended).
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import JsonValue, ValidationError

from falcon_trainer.artifacts import HALF_WRITTEN, FileEntry, remove_drafts, sha256_of, sync, write_file
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError

NAME = "merged"


class Draft:
    """The shards that are done, and those that are not."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.model = root / "model"

    @classmethod
    def of(cls, layout: RunLayout, inputs: JsonValue) -> "Draft":
        """The draft of these inputs, begun or not; those of others are removed."""
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        beside = layout.merged(NAME)
        root = beside.with_name(f".{NAME}.{key[:16]}.draft")
        remove_drafts(beside, keep=root)
        return cls.at(root)

    @classmethod
    def at(cls, root: Path) -> "Draft":
        """The draft in a folder, begun or not."""
        draft = cls(root)
        draft.model.mkdir(parents=True, exist_ok=True)
        (root / "done").mkdir(exist_ok=True)
        for left in (*root.glob("*.partial"), *root.rglob(HALF_WRITTEN)):
            left.unlink()
        return draft

    def done(self, names: Sequence[str], threads: int) -> dict[str, FileEntry]:
        """The shards that are whole, by name: their contents are read. Others are removed."""
        with ThreadPoolExecutor(threads) as pool:
            entries = dict(zip(names, pool.map(self._whole, names), strict=True))
        for name, entry in entries.items():
            if entry is None:
                (self.model / name).unlink(missing_ok=True)
        return {name: entry for name, entry in entries.items() if entry}

    def partial(self, name: str) -> Path:
        """Where a shard is written."""
        return self._root / f"{name}.partial"

    def keep(self, name: str, entry: FileEntry) -> None:
        """Gives a written and synced shard its name."""
        write_file(self._record(name), json.dumps(entry.to_wire()))
        self.partial(name).rename(self.model / name)
        sync(self.model)

    def require_space(self, needed: int) -> None:
        """Raises StageError(CANNOT_WRITE) where the volume has less than `needed` bytes to give."""
        free = shutil.disk_usage(self.model).free
        if free < needed:
            raise StageError(
                ExitCode.CANNOT_WRITE,
                "DiskFull",
                f"The merged model needs {_size(needed)} more on the workspace, which has {_size(free)} free: make the "
                "volume larger or delete what is not needed. What is merged so far stays, and the merge goes on there.",
            )

    def remove(self) -> None:
        """Removes what is left when `model` has become the merged folder."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _record(self, name: str) -> Path:
        return self._root / "done" / f"{name}.json"

    def _whole(self, name: str) -> FileEntry | None:
        shard = self.model / name
        try:
            entry = FileEntry.model_validate_json(self._record(name).read_bytes())
            whole = shard.stat().st_size == entry.bytes and sha256_of(shard) == entry.sha256
        except (OSError, ValidationError):
            return None
        return entry if whole else None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
