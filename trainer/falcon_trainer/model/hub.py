"""Models of the Hub: downloaded once for all runs of a workspace."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer import hub, layout
from falcon_trainer.artifacts import Manifest, publish, read_manifest
from falcon_trainer.hub import Repository, explained
from falcon_trainer.outcome import ExitCode, StageError

SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md"]
WEIGHTS = ["*.safetensors"]
KIND = "hub-model"


@dataclass(frozen=True)
class HubModel:
    """One commit of one model, and where its files gather until they are whole."""

    name: str
    revision: str
    commit: str
    partial: Path
    final: Path
    weight_bytes: int


def standing(workspace: Path, name: str, revision: str) -> tuple[Path, Manifest] | None:
    """A model that an earlier run fetched whole."""
    folder = layout.hub_model(workspace, name, revision)
    manifest = read_manifest(folder)
    return (folder, manifest) if manifest else None


def find(workspace: Path, run: str, name: str, revision: str) -> HubModel:
    """Asks the Hub for the commit and fetches configuration and tokenizer. Raises StageError."""
    final = layout.hub_model(workspace, name, revision)
    # The same folder after a restart of this run, so that a download of hours goes on where it stopped.
    partial = final.with_name(f".{final.name}.{run}.partial")
    with explained(_repository(name, revision)):
        info = hub.api().model_info(name, revision=revision, files_metadata=True, timeout=hub.TIMEOUT)
        sizes = [file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors")]
        model = HubModel(name, revision, str(info.sha), partial, final, sum(sizes))
        _download(model, SMALL)
    return model


def fetch_weights(model: HubModel) -> None:
    """Fetches the weights beside configuration and tokenizer. Raises StageError."""
    free = shutil.disk_usage(model.partial).free
    present = sum(file.stat().st_size for file in model.partial.glob("*.safetensors"))
    if model.weight_bytes - present > free:
        raise StageError(
            ExitCode.CANNOT_WRITE,
            "WorkspaceTooSmall",
            f"The weights of {model.name} need {model.weight_bytes / 1e9:.1f} GB and the workspace claim has "
            f"{free / 1e9:.1f} GB free. Enlarge the claim or free space on it.",
        )
    with explained(_repository(model.name, model.revision)):
        _download(model, WEIGHTS)


def keep(model: HubModel) -> None:
    """Puts a model that was checked under its final name, for all runs."""
    shutil.rmtree(model.partial / ".cache", ignore_errors=True)
    facts: dict[str, JsonValue] = {"name": model.name, "revision": model.revision, "commit": model.commit}
    publish(model.partial, model.final, kind=KIND, facts=facts)


def _download(model: HubModel, patterns: list[str]) -> None:
    model.partial.mkdir(parents=True, exist_ok=True)
    hub.api().snapshot_download(
        model.name, revision=model.commit, local_dir=model.partial, allow_patterns=patterns, etag_timeout=hub.TIMEOUT
    )


def _repository(name: str, revision: str) -> Repository:
    return Repository("Model", name, revision, field="model.source", revision_field="model.revision")
