"""The merge stage: the accepted adapter is checked, merged into the base by streaming, verified and published."""

from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.artifacts import Manifest, as_artifact, problem, read_manifest, remove, remove_drafts
from falcon_trainer.beats import Beats
from falcon_trainer.config import Artifact, RunConfig
from falcon_trainer.identity import claim
from falcon_trainer.layout import RunLayout
from falcon_trainer.merge.draft import NAME
from falcon_trainer.merge.making import KIND, Adapter, Making
from falcon_trainer.model.lora import ADAPTER_FILE, check_adapter
from falcon_trainer.model.shapes import adapter_shapes
from falcon_trainer.model.source import model_folder, refuse_changed
from falcon_trainer.model.weights import UnusableWeights, Weights
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train import adapter as adapters


def merge(config: RunConfig, beats: Beats, layout: RunLayout) -> dict[str, JsonValue]:
    """Merges the adapter, or finds it merged. Raises StageError, and OSError where reading or writing fails."""
    beats.update("verify")
    identity = claim(config, layout)
    folder, manifest = _adapter(config, layout, identity)
    inputs: dict[str, JsonValue] = {"adapter": f"sha256:{manifest.digest}", "dtype": config.merge.dtype}
    if found := _finished(layout, inputs):
        remove_drafts(layout.merged(NAME))
        return _result(layout, *found)
    refuse_changed(config.model, layout, identity)
    base = _base(config, layout)
    check_adapter(folder / ADAPTER_FILE, adapter_shapes(base.shapes, config.lora), trained=True)
    if config.merged:
        _keep_only(layout, config.merged)
    making = Making(config, beats, layout, base, Adapter(folder, manifest.facts))
    return _result(layout, *making.run(inputs))


def _adapter(config: RunConfig, layout: RunLayout, identity: str) -> tuple[Path, Manifest]:
    """The adapter that was accepted, or (started by hand) the one that training finished; its contents are read."""
    if config.adapter:
        folder = layout.workspace / config.adapter.path
        manifest = read_manifest(folder)
        if manifest is None or f"sha256:{manifest.digest}" != config.adapter.digest:
            raise StageError(
                ExitCode.NO_INPUT, "AdapterNotFound", f"{folder} does not hold the adapter {config.adapter.digest}."
            )
    elif found := adapters.finished(layout, identity):
        folder, manifest = found
    else:
        raise StageError(ExitCode.NO_INPUT, "AdapterNotFound", f"{layout.root} holds no finished adapter: run train.")
    if wrong := problem(folder, manifest, contents=True):
        raise StageError(ExitCode.DATA, "AdapterDamaged", f"The adapter is damaged: {wrong}.")
    return folder, manifest


def _base(config: RunConfig, layout: RunLayout) -> Weights:
    try:
        return Weights.of(model_folder(config.model, layout.workspace))
    except (UnusableWeights, OSError, ValueError) as error:
        raise StageError(
            ExitCode.NO_INPUT, "ModelNotUsable", f"{config.model.source}: its weights cannot be read: {error}."
        ) from error


def _finished(layout: RunLayout, inputs: dict[str, JsonValue]) -> tuple[Path, Manifest] | None:
    for folder in _merged_folders(layout):
        manifest = read_manifest(folder)
        same = manifest is not None and manifest.kind == KIND and manifest.facts.get("inputs") == inputs
        if manifest and same and problem(folder, manifest, contents=False) is None:
            return folder, manifest
    return None


def _result(layout: RunLayout, folder: Path, manifest: Manifest) -> dict[str, JsonValue]:
    """What the status shows of the stage."""
    artifact = as_artifact(folder, manifest, layout.workspace)
    return {"merged": artifact.to_wire(), "merge": manifest.facts["merge"]}


def _keep_only(layout: RunLayout, served: Artifact) -> None:
    """Removes merged models that are not served: the volume needs room for two, the served one and its successor."""
    folders = _merged_folders(layout)
    if layout.workspace / served.path not in folders:
        return
    for folder in folders:
        if folder != layout.workspace / served.path:
            print(f"Removing the merged model {layout.relative(folder)}, which is not served.", flush=True)
            remove(folder, layout.merged(NAME))


def _merged_folders(layout: RunLayout) -> list[Path]:
    """Without drafts, whose names begin with a dot."""
    return sorted(layout.merged(NAME).parent.glob("[!.]*"))
