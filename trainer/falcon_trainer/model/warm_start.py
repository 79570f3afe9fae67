"""The adapter that a run starts from: fetched and checked in prepare, kept with the run, found again by training.

It is copied, so that a run that is under way does not depend on what becomes of the original.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from falcon_trainer import hub, uris
from falcon_trainer.artifacts import draft_beside, problem, publish, read_manifest, remove_drafts
from falcon_trainer.config import Lora, RunConfig
from falcon_trainer.hub import Repository, explained
from falcon_trainer.layout import RunLayout, source_path
from falcon_trainer.model.lora import ADAPTER_FILE, check_adapter
from falcon_trainer.model.shapes import Shapes, adapter_shapes, base_shapes, falcon_config
from falcon_trainer.model.weights import UnusableWeights, read_header
from falcon_trainer.outcome import ExitCode, StageError

KIND = "initial-adapter"
CONFIG_FILE = "adapter_config.json"
FILES = (CONFIG_FILE, ADAPTER_FILE)
FIELD = "lora.initialAdapter"
STANDARD: dict[str, tuple[JsonValue, ...]] = {
    "use_dora": (None, False),
    "bias": (None, "none"),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "modules_to_save": (None, []),
    "fan_in_fan_out": (None, False),
}
"""Settings of PEFT that change what the two matrices mean, with the values under which they mean what ours do."""


def provided(config: RunConfig, layout: RunLayout, identity: str) -> bool:
    """Whether nothing is left to do for the warm start: none is asked for, or the adapter stands whole."""
    return config.lora.initial_adapter is None or _standing(layout, identity) is not None


def provide(config: RunConfig, layout: RunLayout, identity: str, base: Path) -> None:
    """Fetches, checks and keeps the adapter that the run asks for.

    `base` is the folder with the base's config.json. Raises StageError naming what does not fit.
    """
    assert config.lora.initial_adapter
    facts: dict[str, JsonValue] = {"identity": identity, "source": config.lora.initial_adapter}
    remove_drafts(layout.initial_adapter)
    draft = draft_beside(layout.initial_adapter)
    if config.lora.initial_adapter.startswith("hf://"):
        facts["commit"] = _download(config.lora.initial_adapter, draft)
    else:
        _copy(config.lora.initial_adapter, draft)
    trained_on = _check(config.lora, draft, adapter_shapes(base_shapes(falcon_config(base)), config.lora))
    shutil.rmtree(layout.initial_adapter, ignore_errors=True)
    publish(draft, layout.initial_adapter, kind=KIND, facts=facts)
    print(f"Starting from the adapter {config.lora.initial_adapter}, trained on {trained_on}.", flush=True)


def stored(config: RunConfig, layout: RunLayout, identity: str) -> Path | None:
    """The adapter file that training starts from; None where a new one is made.

    Raises StageError(NO_INPUT) where prepare did not leave it.
    """
    if config.lora.initial_adapter is None:
        return None
    folder = _standing(layout, identity)
    if folder is None:
        raise StageError(
            ExitCode.NO_INPUT,
            "NotPrepared",
            f"{layout.initial_adapter} does not hold the adapter {config.lora.initial_adapter} whole: run prepare.",
        )
    return folder / ADAPTER_FILE


def _standing(layout: RunLayout, identity: str) -> Path | None:
    folder = layout.initial_adapter
    manifest = read_manifest(folder)
    if manifest is None or manifest.kind != KIND or manifest.facts.get("identity") != identity:
        return None
    return None if problem(folder, manifest, contents=True) else folder


def _copy(uri: str, draft: Path) -> None:
    folder = source_path(uri)
    for name in FILES:
        if not (folder / name).is_file():
            raise _missing(uri, f"{folder} holds no {name}", [path.name for path in folder.glob("adapter_*")])
        shutil.copyfile(folder / name, draft / name)


def _download(uri: str, draft: Path) -> str:
    """Fetches the two files; returns the commit."""
    found = uris.hub_adapter(uri)
    repository = Repository("Adapter", found.name, found.revision or "main", FIELD, FIELD)
    with explained(repository):
        info = hub.api().model_info(found.name, revision=repository.revision, timeout=hub.TIMEOUT)
        names = [file.rfilename for file in info.siblings or []]
        for name in FILES:
            if name not in names:
                raise _missing(uri, f"the repository holds no {name}", names)
        hub.api().snapshot_download(
            found.name, revision=info.sha, local_dir=draft, allow_patterns=list(FILES), etag_timeout=hub.TIMEOUT
        )
    shutil.rmtree(draft / ".cache", ignore_errors=True)
    return str(info.sha)


def _check(lora: Lora, folder: Path, expected: Shapes) -> str:
    """Raises StageError where the adapter is not one that this run could have made itself. Returns its base's name."""
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        entries, _ = read_header(folder / ADAPTER_FILE)
    except (ValueError, UnusableWeights) as error:
        raise StageError(
            ExitCode.DATA, "AdapterNotUsable", f"{FIELD} {lora.initial_adapter} cannot be read: {error}."
        ) from error
    if differences := [*_differing_settings(lora, settings), *_differing_modules(lora, entries, expected)]:
        raise StageError(
            ExitCode.CONFIGURATION,
            "InitialAdapterDoesNotFit",
            f"{FIELD} {lora.initial_adapter} does not fit this run: {'; '.join(differences)}. Training can only start "
            "from an adapter of the same base, rank, alpha, variant and target modules: change those fields, or leave "
            f"{FIELD} out.",
        )
    check_adapter(folder / ADAPTER_FILE, expected, trained=False)
    return str(settings.get("base_model_name_or_path") or "a base that it does not name")


def _differing_settings(lora: Lora, settings: dict[str, Any]) -> list[str]:
    variant = "rslora" if settings.get("use_rslora") else "lora"
    wanted = {
        "peft_type": ("LORA", settings.get("peft_type"), "this run trains"),
        "rank": (lora.rank, settings.get("r"), "lora.rank is"),
        "alpha": (lora.alpha, settings.get("lora_alpha"), "lora.alpha is"),
        "variant": (lora.variant, variant, "lora.variant is"),
    }
    differing = [f"its {name} is {its}, {says} {ours}" for name, (ours, its, says) in wanted.items() if its != ours]
    unknown = [name for name, values in STANDARD.items() if settings.get(name) not in values]
    return differing + [f"its {name} is {json.dumps(settings[name])}, which is not supported" for name in unknown]


def _differing_modules(lora: Lora, entries: list[Any], expected: Shapes) -> list[str]:
    """Told by the tensors: target_modules of a PEFT configuration may be a list, a pattern, or full names."""
    names = {entry.name for entry in entries}
    if names != expected.keys():
        adapted = sorted({name.split(".")[-3] for name in names if ".lora_A." in name or ".lora_B." in name})
        ours = ", ".join(sorted(lora.target_modules))
        if adapted != sorted(lora.target_modules):
            return [f"it adapts {', '.join(adapted) or 'nothing'}, lora.targetModules are {ours}"]
        lacking, foreign = sorted(expected.keys() - names), sorted(names - expected.keys())
        example = (lacking or foreign)[0]
        return [
            f"it lacks {len(lacking)} of the tensors that this base needs and has {len(foreign)} others ({example})"
        ]
    wrong = next((entry for entry in entries if entry.shape != expected[entry.name]), None)
    if wrong:
        shapes = f"{list(wrong.shape)} instead of {list(expected[wrong.name])}"
        return [f"its {wrong.name} has the shape {shapes}: another rank or another base"]
    return []


def _missing(uri: str, what: str, beside: list[str]) -> StageError:
    pickled = "adapter_model.bin" in beside
    hint = (
        "adapter_model.bin is a pickle, which is never loaded because it can run code: save the adapter again with "
        "a current PEFT"
        if pickled
        else "it must be a LoRA adapter as PEFT saves it"
    )
    return StageError(ExitCode.NO_INPUT, "AdapterNotFound", f"{FIELD} {uri}: {what}; {hint}.")
