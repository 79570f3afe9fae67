"""Checkpoints on the volume: written under the incarnation's own name, found again among those of all.

```
attempts/K-PODUID/checkpoint-STEP/   trained.safetensors   weights and Adam moments, full tensors in fp32
                                     state.json            Adam's step, learning rates, scheduler, evaluations so far
                                     trainer_state.json    the Trainer's step and history
                                     rng_state_RANK.pth    random states, used again at the same world size
                                     manifest.json         sizes and digests; there, the checkpoint is whole
```
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import draft_beside, problem, publish, read_manifest
from falcon_trainer.layout import RunLayout
from falcon_trainer.train.standing import Standing

log = logging.getLogger(__name__)

KIND = "checkpoint"
TRAINED = "trained.safetensors"
STATE = "state.json"
TRAINER_STATE = "trainer_state.json"
EVALUATION_LOSS, COMPLETE = "evaluationLoss", "complete"
"""Facts of a checkpoint's manifest, see Checkpoint."""
DAMAGED = ".damaged-"
"""Before the name of a checkpoint that was put aside."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has a manifest."""

    path: Path
    step: int
    facts: dict[str, JsonValue]

    @property
    def evaluation_loss(self) -> float | None:
        """The validation loss of its step, where that was measured before it was written."""
        loss = self.facts.get(EVALUATION_LOSS)
        return float(loss) if isinstance(loss, (int, float)) else None

    @property
    def complete(self) -> bool:
        """Whether training is over with it: the adapter can be published without loading the base again."""
        return self.facts.get(COMPLETE) is True


def found(layout: RunLayout) -> list[Checkpoint]:
    """Whole checkpoints of all incarnations, the newest step first; of equal steps, the later attempt."""
    paths = layout.attempts.glob("*/checkpoint-*")
    known = [(path, manifest) for path in paths if (manifest := read_manifest(path)) and manifest.kind == KIND]
    checkpoints = [Checkpoint(path, int(str(manifest.facts["step"])), manifest.facts) for path, manifest in known]
    return sorted(checkpoints, key=lambda c: (c.step, attempt_of(c.path), *c.path.parts[-2:]), reverse=True)


def attempt_of(path: Path) -> int:
    """The attempt whose folder holds a checkpoint."""
    match = re.match(r"\d+", path.parent.name)
    return int(match.group()) if match else -1


def newest_valid(layout: RunLayout, identity: str) -> Checkpoint | None:
    """The newest checkpoint of this run whose contents are what was written. Says which were passed over and why, and
    puts them aside: a damaged one that still counted as the newest would push good ones out when old ones are removed.
    """
    return next(filter(_valid, _of(found(layout), identity)), None)


def best(layout: RunLayout, identity: str) -> Checkpoint | None:
    """The checkpoint of the lowest evaluation loss that the volume holds; of equal ones the first step's."""
    return next(iter(_by_loss(found(layout), identity)), None)


def best_valid(layout: RunLayout, identity: str) -> Checkpoint | None:
    """As `best`, with contents that are what was written; damaged ones are put aside as by `newest_valid`."""
    return next(filter(_valid, _by_loss(found(layout), identity)), None)


def _of(checkpoints: list[Checkpoint], identity: str) -> Iterator[Checkpoint]:
    for checkpoint in checkpoints:
        if checkpoint.facts.get("identity") == identity:
            yield checkpoint
        else:
            log.warning("Passing over %s: it belongs to a run with other settings.", checkpoint.path)


def _by_loss(checkpoints: list[Checkpoint], identity: str) -> list[Checkpoint]:
    ours = [each for each in checkpoints if each.facts.get("identity") == identity]
    measured = [(each.evaluation_loss, each.step, each) for each in ours if each.evaluation_loss is not None]
    return [each for *_, each in sorted(measured, key=lambda found: found[:2])]


def _valid(checkpoint: Checkpoint) -> bool:
    manifest = read_manifest(checkpoint.path)
    wrong = problem(checkpoint.path, manifest, contents=True) if manifest else "its manifest is gone"
    if wrong is None:
        return True
    log.warning("Passing over the damaged %s: %s. Going back to another one.", checkpoint.path, wrong)
    checkpoint.path.rename(checkpoint.path.with_name(f"{DAMAGED}{checkpoint.path.name}"))
    return False


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
        self,
        step: int,
        tensors: dict[str, Any],
        state: dict[str, Any],
        trainer_state: Any,
        random_states: list[Any],
        *,
        evaluation_loss: float | None = None,
        complete: bool = False,
    ) -> Path:
        """Writes one checkpoint and removes the oldest beyond `keep`, but never the best one."""
        import torch
        from safetensors.torch import save_file

        final = self._incarnation / f"checkpoint-{step}"
        if read_manifest(final):
            # Started again by hand in the same incarnation, to make up for an evaluation that a stop had cut short.
            final = final.with_name(f"{final.name}-evaluated")
        draft = draft_beside(final)
        save_file(tensors, str(draft / TRAINED))
        (draft / STATE).write_text(json.dumps(state))
        trainer_state.save_to_json(str(draft / TRAINER_STATE))
        for rank, states in enumerate(random_states):
            name = f"rng_state_{rank}.pth" if len(random_states) > 1 else "rng_state.pth"
            torch.save(states, draft / name)
        facts: dict[str, JsonValue] = {"step": step, "identity": self._identity, "worldSize": len(random_states)}
        facts |= {COMPLETE: complete} | ({} if evaluation_loss is None else {EVALUATION_LOSS: evaluation_loss})
        path, _ = publish(draft, final, kind=KIND, facts=facts)
        self._remove_old()
        return path

    def _remove_old(self) -> None:
        known = [each for each in found(self._layout) if each.facts.get("identity") == self._identity]
        kept = best(self._layout, self._identity)
        for old in known[self._keep :]:
            if kept is None or old.path != kept.path:
                shutil.rmtree(old.path, ignore_errors=True)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `save` was given as `state`."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text())
    return state


def read_trained(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors (mapped, read when used) and the state of a checkpoint."""
    from safetensors.torch import load_file

    return load_file(str(checkpoint / TRAINED)), read_state(checkpoint)


def read_weights(checkpoint: Path, kind: str) -> dict[str, Any]:
    """The tensors of one kind (see partitions.KINDS) alone."""
    from safetensors import safe_open

    with safe_open(str(checkpoint / TRAINED), "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys() if name.endswith(f".{kind}")}  # noqa: SIM118


def standing_at(checkpoint: Checkpoint, layout: RunLayout, identity: str) -> Standing:
    """What evaluations had shown when this checkpoint, the newest one, was written.

    The best is the best of what the volume still holds: one that was damaged since can no longer become the adapter, so
    it must not keep another from it.
    """
    known = Standing.model_validate(read_state(checkpoint.path).get("evaluation", {}))
    held = best(layout, identity)
    best_step, best_loss = (held.step, held.evaluation_loss) if held else (None, None)
    return known.model_copy(update={"best_step": best_step, "best_loss": best_loss})


def last_loss(checkpoint: Path) -> float:
    """The training loss of its step."""
    history = json.loads((checkpoint / TRAINER_STATE).read_text())["log_history"]
    return float(next(entry["loss"] for entry in reversed(history) if "loss" in entry))
