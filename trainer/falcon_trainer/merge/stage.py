"""The merge stage: the accepted adapter is checked, merged into the base by streaming, verified and published."""

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer.artifacts import (
    FileEntry,
    Manifest,
    as_artifact,
    draft_beside,
    problem,
    publish,
    read_manifest,
    remove_drafts,
)
from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.data.contents import PROMPTS
from falcon_trainer.identity import claim
from falcon_trainer.layout import MANIFEST, RunLayout
from falcon_trainer.model.lora import ADAPTER_FILE, check_adapter
from falcon_trainer.model.shapes import adapter_shapes
from falcon_trainer.model.source import model_folder
from falcon_trainer.model.weights import UnusableWeights, Weights
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train import adapter as adapters

KIND = "merged"
OF_ADAPTER_ALONE = (ADAPTER_FILE, "adapter_config.json", "README.md", MANIFEST)
OF_BASE = ("config.json", "generation_config.json", "LICENSE", "LICENSE.txt")


def merge(config: RunConfig, beats: Beats, layout: RunLayout) -> dict[str, JsonValue]:
    """Merges the adapter, or finds it merged. Raises StageError."""
    beats.update("verify")
    identity = claim(config, layout)
    folder, manifest = _adapter(config, layout, identity)
    inputs: dict[str, JsonValue] = {"adapter": f"sha256:{manifest.digest}", "dtype": config.merge.dtype}
    if found := _finished(layout, inputs):
        return _result(layout, *found)
    base = _base(config, layout)
    check_adapter(folder / ADAPTER_FILE, adapter_shapes(base.shapes, config.lora), trained=True)
    return _Merge(config, beats, layout, base, folder).run(inputs)


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
    for folder in sorted(layout.merged("x").parent.glob("*")):
        manifest = read_manifest(folder)
        same = manifest is not None and manifest.kind == KIND and manifest.facts.get("inputs") == inputs
        if manifest and same and problem(folder, manifest, contents=False) is None:
            return folder, manifest
    return None


def _result(layout: RunLayout, folder: Path, manifest: Manifest) -> dict[str, JsonValue]:
    facts = {key: value for key, value in manifest.facts.items() if key != "inputs"}
    return {"merged": as_artifact(folder, manifest, layout.workspace).to_wire(), **facts}


class _Merge:
    """One merge, from the checked inputs to the published folder."""

    def __init__(self, config: RunConfig, beats: Beats, layout: RunLayout, base: Weights, adapter: Path) -> None:
        from falcon_trainer.merge.stream import Update

        self._config, self._beats, self._layout = config, beats, layout
        self._base, self._adapter = base, adapter
        self._update = Update(Weights([adapter / ADAPTER_FILE]), config.lora.scale)
        self._dtype = config.merge.dtype

    def run(self, inputs: dict[str, JsonValue]) -> dict[str, JsonValue]:
        remove_drafts(self._layout.merged("merged"))
        draft = draft_beside(self._layout.merged("merged"))
        self._copy_beside(draft)
        known = self._stream(draft)
        self._beats.update("check")
        facts = {"inputs": inputs, **self._verify(draft)}
        folder, manifest = publish(draft, self._layout.merged, kind=KIND, facts=facts, known=known)
        return _result(self._layout, folder, manifest)

    def _stream(self, draft: Path) -> dict[str, FileEntry]:
        from falcon_trainer.merge.stream import merge_shards

        total = self._base.bytes
        megabytes = max(total >> 20, 1)

        def progress(done: int) -> None:
            self._beats.update("merge", step=done >> 20, total_steps=megabytes, message=f"{done / total:.0%} of bytes")

        return merge_shards(self._base, self._update, self._dtype, draft, progress)

    def _copy_beside(self, draft: Path) -> None:
        """Everything but the weights: configuration of the base, tokenizer and chat template of the adapter."""
        base = model_folder(self._config.model, self._layout.workspace)
        for name in OF_BASE:
            if (base / name).is_file():
                shutil.copyfile(base / name, draft / name)
        for path in sorted(self._adapter.iterdir()):
            if path.is_file() and path.name not in OF_ADAPTER_ALONE:
                shutil.copyfile(path, draft / path.name)
        if self._dtype != "auto":
            fields: dict[str, Any] = json.loads((draft / "config.json").read_text())
            fields.pop("torch_dtype", None)
            (draft / "config.json").write_text(json.dumps(fields | {"dtype": self._dtype}, indent=2))

    def _verify(self, draft: Path) -> dict[str, JsonValue]:
        from falcon_trainer.merge.verify import check_logits, check_tensors, fits_in_memory, logit_difference

        merged = Weights.of(draft)
        changed = check_tensors(self._base, merged, self._update)
        facts: dict[str, JsonValue] = {"tensors": len(merged.tensors), "changedTensors": changed}
        if not fits_in_memory(merged.parameters):
            print("The model does not fit in memory: its logits are not compared, its tensors were.", flush=True)
            return facts
        base = model_folder(self._config.model, self._layout.workspace)
        prompts = [sample["prompt"] for sample in json.loads((self._layout.data / PROMPTS).read_text())]
        difference = logit_difference(base, self._adapter, draft, prompts)
        dtype = next(merged.flat(name, 0, 1).dtype for name in merged.tensors if self._update.pair(name))
        check_logits(difference, dtype)
        return facts | {"logitDifference": f"{difference:.2e}"}
