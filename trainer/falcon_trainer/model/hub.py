"""Models of the Hub: downloaded once for all runs of a workspace, with errors that say what to do."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer import layout
from falcon_trainer.artifacts import Manifest, publish, read_manifest
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
    with _explained(name, revision):
        info = _api().model_info(name, revision=revision, files_metadata=True, timeout=60)
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
    with _explained(model.name, model.revision):
        _download(model, WEIGHTS)


def keep(model: HubModel) -> None:
    """Puts a model that was checked under its final name, for all runs."""
    shutil.rmtree(model.partial / ".cache", ignore_errors=True)
    facts: dict[str, JsonValue] = {"name": model.name, "revision": model.revision, "commit": model.commit}
    publish(model.partial, model.final, kind=KIND, facts=facts)


def _api() -> Any:
    from huggingface_hub import HfApi

    token = layout.TOKEN.read_text().strip() if layout.TOKEN.is_file() else None
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


def _download(model: HubModel, patterns: list[str]) -> None:
    model.partial.mkdir(parents=True, exist_ok=True)
    _api().snapshot_download(
        model.name, revision=model.commit, local_dir=model.partial, allow_patterns=patterns, etag_timeout=60
    )


@contextmanager
def _explained(name: str, revision: str) -> Iterator[None]:
    """Turns the Hub's errors into StageErrors that say what to do."""
    from huggingface_hub import errors

    unreached: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except errors.GatedRepoError as error:
        raise StageError(
            ExitCode.NO_PERMISSION,
            "ModelGated",
            f"{name} is gated: open its page on the Hub, accept its terms with your account, and name a Secret with "
            "a token of that account in model.tokenSecretRef.",
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise StageError(
            ExitCode.NO_INPUT,
            "ModelNotFound",
            f"The Hub knows no model {name}, or shows it only to its owners: check model.source, and "
            "model.tokenSecretRef if it is private.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StageError(
            ExitCode.NO_INPUT, "ModelNotFound", f"{name} has no revision {revision}: check model.revision."
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, unreached, ConnectionError) as error:
        raise _unavailable(name, error) from error


def _unavailable(name: str, error: Exception) -> StageError:
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (401, 403):
        return StageError(
            ExitCode.NO_PERMISSION,
            "TokenRefused",
            f"The Hub refuses the token for {name} (HTTP {status}): check the Secret in model.tokenSecretRef.",
        )
    what = f"answers HTTP {status}" if status else f"cannot be reached ({type(error).__name__}: {error})"
    return StageError(
        ExitCode.UNAVAILABLE,
        "HubUnavailable",
        f"The Hub {what} while {name} is fetched. Without access to the Hub, put the "
        "model on a claim and name it as pvc://CLAIM/PATH.",
    )
