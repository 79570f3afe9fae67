"""Checkpoints on the volume: found among those of all incarnations, verified, read. `writer` writes them.

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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import JsonValue

from falcon_trainer.artifacts import Manifest, problem, read_manifest
from falcon_trainer.layout import RunLayout
from falcon_trainer.train.damage import Tell
from falcon_trainer.train.standing import Standing

log = logging.getLogger(__name__)

KIND = "checkpoint"
TRAINED = "trained.safetensors"
STATE = "state.json"
TRAINER_STATE = "trainer_state.json"
EVALUATION_LOSS, COMPLETE = "evaluationLoss", "complete"
"""Facts of a checkpoint's manifest, see Checkpoint."""
DAMAGED, REMOVED = ".damaged-", ".removed-"
"""Before the name of a checkpoint that was put aside, and of one that is being deleted: no reader takes these for
checkpoints."""


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
    known = [(path, read_manifest(path)) for path in _folders(layout)]
    checkpoints = [
        Checkpoint(path, _step_of(path), manifest.facts) for path, manifest in known if _describes(manifest, path)
    ]
    return sorted(checkpoints, key=lambda c: (c.step, attempt_of(c.path), *c.path.parts[-2:]), reverse=True)


def _folders(layout: RunLayout) -> Iterator[Path]:
    return layout.attempts.glob("*/checkpoint-*")


def _step_of(path: Path) -> int:
    match = re.match(r"checkpoint-(\d+)", path.name)
    return int(match.group(1)) if match else -1


def _describes(manifest: Manifest | None, path: Path) -> TypeGuard[Manifest]:
    """Whether a manifest that was read from a checkpoint's folder is the one that was written there."""
    return manifest is not None and manifest.kind == KIND and manifest.facts.get("step") == _step_of(path)


def attempt_of(path: Path) -> int:
    """The attempt whose folder holds a checkpoint."""
    match = re.match(r"\d+", path.parent.name)
    return int(match.group()) if match else -1


def newest_valid(layout: RunLayout, identity: str, tell: Tell = log.warning) -> Checkpoint | None:
    """The newest checkpoint of this run whose contents are what was written. Tells which were passed over and why, and
    puts them aside: a damaged one that still counted as the newest would push good ones out when old ones are removed.
    """
    for path in list(_folders(layout)):
        if not _describes(read_manifest(path), path):
            _put_aside(path, "it has no manifest that can be read", tell)
    return next((each for each in _of(found(layout), identity) if _valid(each, tell)), None)


def best(layout: RunLayout, identity: str) -> Checkpoint | None:
    """The checkpoint of the lowest evaluation loss that the volume holds; of equal ones the first step's."""
    return next(iter(_by_loss(found(layout), identity)), None)


def best_valid(layout: RunLayout, identity: str, tell: Tell = log.warning) -> Checkpoint | None:
    """As `best`, with contents that are what was written; damaged ones are put aside as by `newest_valid`."""
    return next((each for each in _by_loss(found(layout), identity) if _valid(each, tell)), None)


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


def _valid(checkpoint: Checkpoint, tell: Tell) -> bool:
    manifest = read_manifest(checkpoint.path)
    wrong = problem(checkpoint.path, manifest, contents=True) if manifest else "its manifest is gone"
    if wrong:
        _put_aside(checkpoint.path, wrong, tell)
    return wrong is None


def _put_aside(path: Path, wrong: str, tell: Tell) -> None:
    aside = path.with_name(f"{DAMAGED}{path.name}")
    shutil.rmtree(aside, ignore_errors=True)  # of the same step, put aside before
    with suppress(FileNotFoundError):  # a late writer of an earlier attempt was just deleting it
        path.rename(aside)
        tell(f"{_name(path)} is damaged and was put aside: {wrong}")


def _name(path: Path) -> str:
    return f"Checkpoint {path.parent.name}/{path.name}"


def remove_stale_drafts(layout: RunLayout, attempt: int, tell: Tell = log.warning) -> None:
    """Removes what earlier attempts left half-written or half-deleted when they were killed; the operator starts an
    attempt only when the ones before it are over.
    """
    for draft in layout.attempts.glob("*/.*.draft"):
        if attempt_of(draft) < attempt:
            tell(f"{_name(draft)} was only half written when its attempt ended; it was removed, and is not used.")
            shutil.rmtree(draft, ignore_errors=True)
    for removed in layout.attempts.glob(f"*/{REMOVED}*"):
        if attempt_of(removed) < attempt:
            shutil.rmtree(removed, ignore_errors=True)


def remove(path: Path) -> None:
    """Deletes a checkpoint at once as far as readers can see: one that was half deleted would look damaged."""
    removed = path.with_name(f"{REMOVED}{path.name}")
    with suppress(OSError):  # another incarnation was first, or the volume is read-only: neither is worth the training
        path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state of a snapshot that was saved."""
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
