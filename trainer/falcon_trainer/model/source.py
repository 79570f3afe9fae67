"""The base model of a run: found, checked by name and shape of every tensor, and fetched where it is on the Hub."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer import layout
from falcon_trainer.artifacts import problem, write_file
from falcon_trainer.config import Lora, Model
from falcon_trainer.layout import RunLayout
from falcon_trainer.model import hub
from falcon_trainer.model.shapes import attention_facts, base_shapes, falcon_config, targets_without_layer
from falcon_trainer.model.weights import UnusableWeights, Weights
from falcon_trainer.outcome import ExitCode, StageError

IGNORED_ENDINGS = (".rotary_emb.inv_freq",)
"""Tensors of old checkpoints that are computed today."""


CHECKED = "model.json"
"""In the run's folder: what was found of the model, and the sizes and times of its files then."""


@dataclass(frozen=True)
class Located:
    """A model folder whose configuration and tokenizer are there; `remote` where the weights are still to fetch."""

    folder: Path
    remote: hub.HubModel | None = None


def model_folder(model: Model, workspace: Path) -> Path:
    """Where the weights of a prepared run lie."""
    scheme, _, name = model.source.partition("://")
    if scheme == "pvc":
        return layout.source_path(model.source)
    return layout.hub_model(workspace, name, model.revision or "main")


def published_name(model: Model, workspace: Path) -> str:
    """The base as it stands in adapter_config.json: the Hub's name, or the folder that the claim is mounted at."""
    scheme, _, name = model.source.partition("://")
    return name if scheme == "hf" else str(model_folder(model, workspace))


def card_base(model: Model) -> str:
    """The line of a model card that names the base; empty for one that the Hub does not have, whose card it refuses."""
    scheme, _, name = model.source.partition("://")
    return f"base_model: {name}\n" if scheme == "hf" else ""


def locate(model: Model, run: str, workspace: Path) -> Located:
    """Finds configuration and tokenizer, and checks that this is a Falcon we can train. Raises StageError."""
    scheme, _, name = model.source.partition("://")
    if scheme == "pvc":
        located = Located(layout.source_path(model.source))
        if not located.folder.is_dir():
            raise _missing(model, "there is no such folder on the claim")
    elif hub.standing(workspace, name, model.revision or "main"):
        located = Located(model_folder(model, workspace))
    else:
        remote = hub.find(workspace, run, name, model.revision or "main")
        located = Located(remote.partial, remote)
    _check_kind(model, located)
    return located


def complete(model: Model, located: Located, lora: Lora, workspace: Path) -> dict[str, JsonValue]:
    """Fetches what is still missing, checks the weights, and returns what the status shows. Raises StageError."""
    config = falcon_config(located.folder)
    _check_targets(base_shapes(config), lora)
    facts: dict[str, JsonValue] = {"source": model.source}
    if located.remote:
        hub.fetch_weights(located.remote)
        facts["commit"] = located.remote.commit
    elif model.source.startswith("hf://"):
        facts["commit"] = _standing_commit(model, workspace)
    weights = _checked_weights(model, located.folder, config)
    if located.remote:
        hub.keep(located.remote)
    size = {"parameters": weights.parameters, "bytes": weights.bytes, "tensors": len(weights.tensors)}
    return facts | size | attention_facts(config)


def remember(model: Model, layout: RunLayout, identity: str, facts: dict[str, JsonValue]) -> None:
    """Notes that the model was checked, so that a prepare whose outcome was lost reports again in a moment."""
    noted = {"identity": identity, "facts": facts, "files": _files(model_folder(model, layout.workspace))}
    write_file(layout.root / CHECKED, json.dumps(noted, indent=1))


def remembered(model: Model, layout: RunLayout, identity: str) -> dict[str, JsonValue] | None:
    """What `complete` found before, where every file still has its size and time."""
    noted = _noted(layout, identity)
    same = noted.get("files") == _files(model_folder(model, layout.workspace))
    return noted["facts"] if noted and same else None


def refuse_changed(model: Model, layout: RunLayout, identity: str) -> None:
    """Raises StageError(CONFIGURATION) where a run began with other weights than those that lie there now: its
    checkpoints, and an adapter that it finished, belong to the old ones.
    """
    before, now = _noted(layout, identity).get("files", {}), _files(model_folder(model, layout.workspace))
    names = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
    if names:
        raise StageError(
            ExitCode.CONFIGURATION,
            "WorkspaceInUse",
            f"{model.source} has changed ({', '.join(names[:3])}) since the workspace folder "
            f"{layout.relative(layout.root)} was prepared. Use another name for a run on the new weights, or delete "
            "that folder to start anew.",
        )


def _noted(layout: RunLayout, identity: str) -> dict[str, Any]:
    try:
        noted: dict[str, Any] = json.loads((layout.root / CHECKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if noted.get("identity") == identity else {}


def _files(folder: Path) -> dict[str, list[int]]:
    """Size and time of change (ns) of every file that decides what the model computes."""
    found = [(path.name, path.stat()) for path in sorted(folder.glob("*")) if path.suffix in (".safetensors", ".json")]
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found}


def _standing_commit(model: Model, workspace: Path) -> JsonValue:
    """The commit of a model that an earlier run fetched; its files are read again and compared with its manifest."""
    found = hub.standing(workspace, model.source.removeprefix("hf://"), model.revision or "main")
    assert found
    folder, manifest = found
    wrong = problem(folder, manifest, contents=True)
    if wrong:
        raise StageError(
            ExitCode.DATA, "ModelDamaged", f"{wrong}. Delete the folder {folder}, and the model is fetched again."
        )
    return manifest.facts["commit"]


def _check_kind(model: Model, located: Located) -> None:
    folder = located.folder
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(model, "it holds no config.json") from None
    except ValueError as error:
        raise _missing(model, f"its config.json cannot be read ({error})") from None
    kind = config.get("model_type")
    if kind != "falcon":
        raise StageError(
            ExitCode.CONFIGURATION,
            "ModelNotSupported",
            f"{model.source} is of type {kind!r}, not 'falcon'. Falcon 7B, 40B, 180B and Falcon2 11B are supported; "
            "Falcon3, Falcon-H1 and Falcon-Mamba are other architectures.",
        )
    if config.get("alibi"):
        raise StageError(
            ExitCode.CONFIGURATION,
            "ModelNotSupported",
            f"{model.source} uses ALiBi positions (as Falcon-RW does), which packed training does not support.",
        )
    if not located.remote and not list(folder.glob("*.safetensors")):
        pickles = ", ".join(sorted(file.name for file in folder.glob("*.bin"))[:2])
        raise _missing(
            model,
            f"it holds its weights as pickles ({pickles}), which are never loaded because they can run code. Convert "
            "them with safetensors' convert.py or take a revision that has safetensors"
            if pickles
            else "it holds no safetensors file",
        )


def _check_targets(shapes: dict[str, tuple[int, ...]], lora: Lora) -> None:
    unknown = targets_without_layer(shapes, lora)
    if unknown:
        layers = sorted({name.split(".")[-2] for name, shape in shapes.items() if ".h." in name and len(shape) == 2})
        raise StageError(
            ExitCode.CONFIGURATION,
            "UnknownTarget",
            f"lora.targetModules names {', '.join(unknown)}, but the layers of this model that can be adapted are "
            f"{', '.join(layers)}.",
        )


def _checked_weights(model: Model, folder: Path, config: Any) -> Weights:
    """The weights, after every expected tensor was found with its shape and no tensor was left over."""
    try:
        weights = Weights.of(folder)
    except (UnusableWeights, OSError, KeyError, ValueError) as error:
        raise _missing(model, f"its weights cannot be used: {error}") from error
    expected = base_shapes(config)
    found = {name: shape for name, shape in weights.shapes.items() if not name.endswith(IGNORED_ENDINGS)}
    missing = sorted(expected.keys() - found.keys())
    foreign = sorted(found.keys() - expected.keys() - {"lm_head.weight"})
    if missing or foreign:
        what = f"{len(missing)} tensors are missing ({', '.join(missing[:3])})" if missing else ""
        more = f"{len(foreign)} are unknown to this configuration ({', '.join(foreign[:3])})" if foreign else ""
        raise _missing(model, "its weights do not fit its config.json: " + " and ".join(filter(None, (what, more))))
    for name, shape in expected.items():
        if found[name] != shape:
            raise _missing(model, f"{name} has the shape {list(found[name])}; its config.json says {list(shape)}")
    return weights


def _missing(model: Model, what: str) -> StageError:
    return StageError(ExitCode.NO_INPUT, "ModelNotUsable", f"{model.source}: {what}.")
