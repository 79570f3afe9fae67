"""Who owns a run's folder on the workspace: an equal run goes on where it stopped, another one is refused.

The identity is everything that decides which adapter comes out: model, data, LoRA settings and the optimisation.
How fast it is reached (micro-batch, offload, checkpoints, number of nodes) may change between attempts, and what is to
happen where a loss is no number: which batches were left out lies in the run's folder.
"""

import hashlib
import json

from pydantic import JsonValue

from falcon_trainer.artifacts import write_file
from falcon_trainer.config import Checkpoint, Evaluation, RunConfig
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError

OPTIMISATION = (
    "epochs",
    "maxSteps",
    "globalBatchSize",
    "learningRate",
    "scheduler",
    "warmupSteps",
    "seed",
    "earlyStopping",
)


def identity_of(config: RunConfig) -> dict[str, JsonValue]:
    """The settings that decide the adapter, by head, as they stand in the spec.

    Defaults are left out: a field that a later release adds must not make strangers of the runs that are under way. So
    within this API version a default never changes.
    """
    wire = config.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    training = {name: value for name, value in wire.get("training", {}).items() if name in OPTIMISATION}
    training |= _evaluation(config)
    model = {name: value for name, value in wire["model"].items() if name != "tokenSecretRef"}
    return {"model": model, "dataset": wire["dataset"], "lora": wire.get("lora", {}), "training": training}


def _evaluation(config: RunConfig) -> dict[str, JsonValue]:
    """What of training.evaluation decides the adapter: which one is kept, and when it is measured, where that chooses
    the kept one or the end. The interval counts as it is obeyed, so it may come from training.checkpoint.
    """
    if config.dataset.validation is None:
        return {}
    training, default = config.training, Checkpoint().every_steps
    settings = training.evaluation or Evaluation()
    interval = settings.every_steps or training.checkpoint.every_steps
    decides = settings.adapter == "best" or training.early_stopping is not None
    told: dict[str, JsonValue] = {"adapter": settings.adapter} if settings.adapter != Evaluation().adapter else {}
    told |= {"everySteps": interval} if decides and interval != default else {}
    return {"evaluation": told} if told else {}


def digest_of(identity: JsonValue) -> str:
    """Hex SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def claim(config: RunConfig, layout: RunLayout) -> str:
    """Makes the run's folder ours, or finds it ours, and returns the identity's digest.

    Raises StageError(CONFIGURATION) where the folder belongs to a run with other settings. A run that came to nothing
    owns nothing: who corrects what prepare refused may use the name again.
    """
    ours = identity_of(config)
    owner = _read(layout)
    if owner is None or (owner != ours and not _came_to_anything(layout)):
        write_file(layout.identity, json.dumps({"run": config.run, "identity": ours}, indent=1, sort_keys=True))
    elif owner != ours:
        raise StageError(
            ExitCode.CONFIGURATION,
            "WorkspaceInUse",
            f"The workspace folder {layout.relative(layout.root)} belongs to an earlier run of this name with other "
            f"settings ({_differences(owner, ours)}). Use another name, or delete that folder.",
        )
    return digest_of(ours)


def _came_to_anything(layout: RunLayout) -> bool:
    """Whether there is a prepared data set, or anything that was made of one."""
    return any(path.exists() for path in (layout.data, layout.attempts, layout.adapter("x").parent))


def _read(layout: RunLayout) -> JsonValue:
    try:
        identity: JsonValue = json.loads(layout.identity.read_text(encoding="utf-8"))["identity"]
        return identity
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise StageError(
            ExitCode.CONFIGURATION,
            "WorkspaceInUse",
            f"{layout.identity} cannot be read, so nobody knows whose folder this is. Delete the folder "
            f"{layout.relative(layout.root)} if its contents are not needed.",
        ) from None


def _differences(owner: JsonValue, ours: JsonValue, path: str = "") -> str:
    """The first settings that differ, such as `lora.rank was 16, now 64`."""
    if not isinstance(owner, dict) or not isinstance(ours, dict):
        return f"{path} was {_said(owner)}, now {_said(ours)}"
    found = [
        _differences(owner.get(key), ours.get(key), f"{path}.{key}" if path else key)
        for key in sorted(owner.keys() | ours.keys())
        if owner.get(key) != ours.get(key)
    ]
    return "; ".join(found[:3])


def _said(value: JsonValue) -> str:
    return "the default" if value is None else json.dumps(value)
