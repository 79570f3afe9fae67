"""The end of a training: which checkpoint's weights become the adapter, and what is said of them. Rank 0 alone.

They are read from the checkpoint, not gathered from the ranks: so the best weights take the same way as the last ones,
and an attempt that finds training over publishes without loading the base.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.artifacts import Manifest, as_artifact
from falcon_trainer.config import Evaluation, RunConfig
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train import adapter
from falcon_trainer.train.checkpoint import (
    Checkpoint,
    best_valid,
    last_loss,
    newest_valid,
    read_weights,
    standing_at,
)
from falcon_trainer.train.damage import Tell
from falcon_trainer.train.partitions import MASTER
from falcon_trainer.wire import decimal_text


@dataclass(frozen=True)
class Ending:
    """A training that is over: its last checkpoint, and the one whose weights become the adapter."""

    last: Checkpoint
    chosen: Checkpoint


def ending_at(step: int, config: RunConfig, layout: RunLayout, identity: str, tell: Tell) -> Ending:
    """The ending of a training whose last step this was. Raises StageError(TRY_AGAIN) where the checkpoint of that step
    cannot be read back: the next attempt goes on from the one before.
    """
    last = newest_valid(layout, identity, tell)
    if last is None or last.step != step:
        raise StageError(
            ExitCode.TRY_AGAIN,
            "CheckpointDamaged",
            f"The checkpoint of the last step, {step}, cannot be read back from {layout.attempts}. The next attempt "
            "trains again from the checkpoint before it.",
        )
    return ending_of(last, config, layout, identity, tell)


def ending_of(last: Checkpoint, config: RunConfig, layout: RunLayout, identity: str, tell: Tell) -> Ending:
    """The ending of a training whose last checkpoint this is. A best one that is damaged gives way to the next best."""
    settings = config.training.evaluation or Evaluation()
    if config.dataset.validation is None or settings.adapter == "last":
        return Ending(last, last)
    return Ending(last, best_valid(layout, identity, tell) or last)


def publish_adapter(ending: Ending, config: RunConfig, layout: RunLayout, identity: str) -> dict[str, JsonValue]:
    """Publishes the chosen weights, and returns the stage's result."""
    last, chosen, facts = ending.last, ending.chosen, dict[str, JsonValue]()
    if config.dataset.validation:
        standing = standing_at(last, layout, identity)
        assert chosen.evaluation_loss is not None
        facts |= {"evaluationLoss": _text(chosen.evaluation_loss), "adapterStep": chosen.step}
        facts |= {"bestStep": standing.best_step, "stoppedEarly": standing.stopped_early}
    facts |= {"identity": identity, "step": last.step, "loss": _text(last_loss(last.path))}
    tensors = read_weights(chosen.path, MASTER)
    return result(layout, *adapter.save_adapter(layout, config.model, config.lora, tensors, facts))


def result(layout: RunLayout, folder: Path, manifest: Manifest) -> dict[str, JsonValue]:
    """What the status shows of a finished adapter."""
    artifact = as_artifact(folder, manifest, layout.workspace).to_wire()
    return {"adapter": artifact, **{key: value for key, value in manifest.facts.items() if key != "identity"}}


def _text(loss: float) -> str:
    return decimal_text(float(f"{loss:.6g}"))
