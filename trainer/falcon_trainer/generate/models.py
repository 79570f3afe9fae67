"""The models of a run, loaded as stock transformers loads them."""

from pathlib import Path
from typing import Any, Literal

from falcon_trainer.artifacts import read_manifest
from falcon_trainer.config import RunConfig
from falcon_trainer.identity import digest_of, identity_of
from falcon_trainer.layout import RunLayout
from falcon_trainer.model.source import model_folder
from falcon_trainer.outcome import ExitCode, StageError

Which = Literal["base", "adapter", "merged"]


def load_model(config: RunConfig, layout: RunLayout, which: Which) -> Any:
    """A transformers model, ready to generate. Raises StageError(NO_INPUT) where the run does not have it (yet)."""
    base = model_folder(config.model, layout.workspace)
    if which == "base":
        return _load(base)
    if which == "merged":
        if folder := _merged(config, layout):
            return _load(folder)
    elif folder := _adapter(config, layout):
        from peft import PeftModel

        return PeftModel.from_pretrained(_load(base), str(folder))
    raise StageError(ExitCode.NO_INPUT, "NothingToAsk", f"{layout.root} holds no {which} yet: run the stages before.")


def _adapter(config: RunConfig, layout: RunLayout) -> Path | None:
    from falcon_trainer.train.adapter import finished  # here, because it imports torch

    found = finished(layout, digest_of(identity_of(config)))
    return found[0] if found else None


def _merged(config: RunConfig, layout: RunLayout) -> Path | None:
    """The accepted model where the configuration tells it, else the newest one; what has a manifest is whole."""
    if config.merged:
        return layout.workspace / config.merged.path
    whole = [folder for folder in layout.merged("x").parent.glob("*") if read_manifest(folder)]
    return max(whole, key=lambda folder: folder.stat().st_mtime, default=None)


def _load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    # Not run on a GPU: there the layers are spread over all of them, as they are stored. Without one it computes in
    # fp32, because most CPUs compute bf16 more slowly.
    gpus = torch.cuda.is_available()
    placed = {"dtype": "auto", "device_map": "auto"} if gpus else {"dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, **placed).eval()
