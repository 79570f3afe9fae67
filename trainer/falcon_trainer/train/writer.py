"""Writes checkpoints (see `checkpoint` for their files) under the incarnation's own name; each is whole or absent."""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import draft_beside, publish, read_manifest
from falcon_trainer.layout import RunLayout
from falcon_trainer.train.checkpoint import (
    COMPLETE,
    EVALUATION_LOSS,
    KIND,
    STATE,
    TRAINED,
    TRAINER_STATE,
    best,
    found,
    remove,
)


@dataclass(frozen=True)
class Snapshot:
    """A training's state at the end of a step, in full and by itself: training goes on while it is written."""

    step: int
    tensors: dict[str, Any]
    state: str
    """JSON, as is the Trainer's own state: the objects that they are made of change with the next step."""
    trainer_state: str
    random_states: list[Any]
    """Of each rank."""
    evaluation_loss: float | None = None
    complete: bool = False


class CheckpointWriter:
    """Rank 0's writer of one incarnation's checkpoints."""

    def __init__(self, layout: RunLayout, incarnation: Path, identity: str, keep: int) -> None:
        self._layout, self._incarnation, self._identity, self._keep = layout, incarnation, identity, keep

    def save(self, snapshot: Snapshot) -> Path:
        """Writes one checkpoint and removes the oldest beyond `keep`, but never the best one.

        Where it cannot be written nothing is left of it, and the error is whatever the system, safetensors or torch
        raise (see faults.understand).
        """
        final = self._incarnation / f"checkpoint-{snapshot.step}"
        if read_manifest(final):
            # Started again by hand in the same incarnation, to make up for an evaluation that a stop had cut short.
            final = final.with_name(f"{final.name}-evaluated")
        draft = draft_beside(final)
        try:
            _fill(draft, snapshot)
            path, _ = publish(draft, final, kind=KIND, facts=self._facts(snapshot))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)  # the disk may be full
            raise
        self._remove_old()
        return path

    def _facts(self, snapshot: Snapshot) -> dict[str, JsonValue]:
        facts: dict[str, JsonValue] = {"step": snapshot.step, "identity": self._identity}
        facts |= {"worldSize": len(snapshot.random_states), COMPLETE: snapshot.complete}
        return facts | ({} if snapshot.evaluation_loss is None else {EVALUATION_LOSS: snapshot.evaluation_loss})

    def _remove_old(self) -> None:
        known = [each for each in found(self._layout) if each.facts.get("identity") == self._identity]
        kept = best(self._layout, self._identity)
        for old in known[self._keep :]:
            if kept is None or old.path != kept.path:
                remove(old.path)


def _fill(draft: Path, snapshot: Snapshot) -> None:
    from safetensors.torch import save_file

    save_file(snapshot.tensors, str(draft / TRAINED))
    (draft / STATE).write_text(snapshot.state)
    (draft / TRAINER_STATE).write_text(snapshot.trainer_state)
    for rank, states in enumerate(snapshot.random_states):
        name = f"rng_state_{rank}.pth" if len(snapshot.random_states) > 1 else "rng_state.pth"
        (draft / name).write_bytes(_encoded(states))


def _encoded(random_states: Any) -> bytes:
    """In memory, since torch's own words for a full disk do not say so ("unexpected pos 576 vs 534")."""
    import torch

    encoded = io.BytesIO()
    torch.save(random_states, encoded)
    return encoded.getvalue()
