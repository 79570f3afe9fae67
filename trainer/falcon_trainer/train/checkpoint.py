"""Checkpoints on the volume: written under the incarnation's own name, found again among those of all.

```
attempts/K-PODUID/checkpoint-STEP/   trained.safetensors   weights and Adam moments, full tensors in fp32
                                     state.json            Adam's step, learning rates, scheduler
                                     trainer_state.json    the Trainer's step and history
                                     rng_state_RANK.pth    random states, used again at the same world size
                                     manifest.json         sizes and digests; there, the checkpoint is whole
```
"""

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import draft_beside, problem, publish, read_manifest
from falcon_trainer.layout import RunLayout

log = logging.getLogger(__name__)

KIND = "checkpoint"
TRAINED = "trained.safetensors"
STATE = "state.json"
DAMAGED = ".damaged-"
"""Before the name of a checkpoint that was put aside."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has a manifest."""

    path: Path
    step: int
    facts: dict[str, JsonValue]


def found(layout: RunLayout) -> list[Checkpoint]:
    """Whole checkpoints of all incarnations, the newest step first; of equal steps, the later attempt."""
    paths = layout.attempts.glob("*/checkpoint-*")
    known = [(path, manifest) for path in paths if (manifest := read_manifest(path)) and manifest.kind == KIND]
    checkpoints = [Checkpoint(path, int(str(manifest.facts["step"])), manifest.facts) for path, manifest in known]
    return sorted(checkpoints, key=lambda c: (c.step, attempt_of(c.path), c.path.parent.name), reverse=True)


def attempt_of(path: Path) -> int:
    """The attempt whose folder holds a checkpoint."""
    match = re.match(r"\d+", path.parent.name)
    return int(match.group()) if match else -1


def newest_valid(layout: RunLayout, identity: str) -> Checkpoint | None:
    """The newest checkpoint of this run whose contents are what was written. Says which were passed over and why, and
    puts them aside: a damaged one that still counted as the newest would push good ones out when old ones are removed.
    """
    for checkpoint in found(layout):
        if checkpoint.facts.get("identity") != identity:
            log.warning("Passing over %s: it belongs to a run with other settings.", checkpoint.path)
            continue
        manifest = read_manifest(checkpoint.path)
        wrong = problem(checkpoint.path, manifest, contents=True) if manifest else "its manifest is gone"
        if wrong is None:
            return checkpoint
        log.warning("Passing over the damaged %s: %s. Going back to the one before.", checkpoint.path, wrong)
        checkpoint.path.rename(checkpoint.path.with_name(f"{DAMAGED}{checkpoint.path.name}"))
    return None


def remove_stale_drafts(layout: RunLayout, attempt: int) -> None:
    """Removes what earlier attempts left half-written when they were killed; the operator starts an attempt only when
    the ones before it are over.
    """
    for draft in layout.attempts.glob("*/.*.draft"):
        if attempt_of(draft) < attempt:
            shutil.rmtree(draft, ignore_errors=True)


class CheckpointWriter:
    """Rank 0's writer of one incarnation's checkpoints."""

    def __init__(self, layout: RunLayout, incarnation: Path, identity: str, keep: int) -> None:
        self._layout, self._incarnation, self._identity, self._keep = layout, incarnation, identity, keep

    def save(
        self, step: int, tensors: dict[str, Any], state: dict[str, Any], trainer_state: Any, random_states: list[Any]
    ) -> Path:
        """Writes one checkpoint and removes the oldest beyond `keep`."""
        import torch
        from safetensors.torch import save_file

        final = self._incarnation / f"checkpoint-{step}"
        draft = draft_beside(final)
        save_file(tensors, str(draft / TRAINED))
        (draft / STATE).write_text(json.dumps(state))
        trainer_state.save_to_json(str(draft / "trainer_state.json"))
        for rank, states in enumerate(random_states):
            name = f"rng_state_{rank}.pth" if len(random_states) > 1 else "rng_state.pth"
            torch.save(states, draft / name)
        facts: dict[str, JsonValue] = {"step": step, "identity": self._identity, "worldSize": len(random_states)}
        path, _ = publish(draft, final, kind=KIND, facts=facts)
        ours = [each for each in found(self._layout) if each.facts.get("identity") == self._identity]
        for old in ours[self._keep :]:
            shutil.rmtree(old.path, ignore_errors=True)
        return path


def read_trained(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors (mapped, read when used) and the state of a checkpoint."""
    from safetensors.torch import load_file

    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text())
    return load_file(str(checkpoint / TRAINED)), state
