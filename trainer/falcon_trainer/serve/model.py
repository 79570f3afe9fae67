"""The served model as our layer knows it: its name, its tokenizer, its limits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from falcon_trainer.artifacts import problem, read_manifest
from falcon_trainer.config import Artifact
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.serve.errors import invalid

DEFAULT_POSITIONS = 2048
"""Falcon's, where config.json names none (transformers, configuration_falcon.py)."""
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k")


def checked_folder(workspace: Path, merged: Artifact | None) -> Path:
    """The folder of the merged model, its files as large as its manifest says. Raises StageError(NO_INPUT or DATA)."""
    if merged is None:
        raise StageError(
            ExitCode.CONFIGURATION, "InvalidConfiguration", "The run configuration names no merged model to serve."
        )
    folder = workspace / merged.path
    manifest = read_manifest(folder)
    if manifest is None:
        raise StageError(
            ExitCode.NO_INPUT, "ModelNotFound", f"{folder} holds no merged model: was the workspace changed? Run merge."
        )
    if f"sha256:{manifest.digest}" != merged.digest:
        raise StageError(ExitCode.DATA, "ModelChanged", f"{folder} is not the merged model {merged.digest}.")
    if wrong := problem(folder, manifest, contents=False):
        raise StageError(
            ExitCode.DATA, "ModelDamaged", f"The merged model is damaged: {wrong}. Delete it and merge again."
        )
    return folder


@dataclass(frozen=True)
class ServedModel:
    """What requests are checked against. `tokenizer` is the merged model's own (transformers, fast)."""

    names: tuple[str, ...]
    """What a request may call it: the run's name, which answers carry, and perhaps an alias."""
    tokenizer: Any
    positions: int
    """The most tokens that prompt and answer may have together."""
    sampling: Mapping[str, float]
    """Sampling where a request says nothing: what serve.args, else the model's generation_config.json, ask for."""

    @property
    def name(self) -> str:
        """The run's name: an alias stands for it, as OpenAI's aliases stand for the snapshot that an answer names."""
        return self.names[0]

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens of a raw prompt."""
        return len(self.tokenizer(prompt)["input_ids"])

    def chat_tokens(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Tokens of a chat in the model's template. Raises ApiError where the template refuses the messages."""
        from jinja2.exceptions import TemplateError

        if not self.tokenizer.chat_template:
            raise invalid(
                "This model was trained on text as it stands and has no chat template: ask /v1/completions, with the "
                "whole prompt.",
                param="messages",
                code="no_chat_template",
            )
        try:
            encoded = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        except TemplateError as error:
            raise invalid(f"The model's chat template refuses the messages: {error}.", param="messages") from error
        return len(encoded["input_ids"])


def names_of(run: str, alias: str | None) -> tuple[str, ...]:
    """What requests may call a run's model, the run's name first."""
    return (run, alias) if alias and alias != run else (run,)


def load_served_model(
    name: str,
    folder: Path,
    *,
    alias: str | None = None,
    max_length: int | None = None,
    sampling: Mapping[str, float] | None = None,
) -> ServedModel:
    """Reads what our layer needs of the model, not its weights. Raises StageError.

    `max_length` is serve.maxModelLength, `sampling` what goes before the model's own defaults.
    """
    generation = _json(folder / "generation_config.json")
    defaults = {key: generation[key] for key in SAMPLING_DEFAULTS if generation.get(key) is not None}
    return ServedModel(
        names=names_of(name, alias),
        tokenizer=_load_tokenizer(folder),
        positions=_positions(_json(folder / "config.json"), max_length),
        sampling=defaults | dict(sampling or {}),
    )


def _positions(config: Mapping[str, Any], max_length: int | None) -> int:
    trained = int(config.get("max_position_embeddings") or DEFAULT_POSITIONS)
    if max_length is not None and max_length > trained:
        raise StageError(
            ExitCode.CONFIGURATION,
            "ModelTooShort",
            f"serve.maxModelLength is {max_length}, but the model has {trained} positions. Lower it, or leave it out.",
        )
    return max_length or trained


def _load_tokenizer(folder: Path) -> Any:
    """Not AutoTokenizer, which imports torch: this process would take 500 MB more and start seconds later."""
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # noqa: BLE001,RUF100 - whatever the library raises, the folder is to blame
        raise StageError(
            ExitCode.NO_INPUT, "TokenizerNotUsable", f"The tokenizer in {folder} does not load: {error}"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StageError(ExitCode.NO_INPUT, "ModelNotUsable", f"{path} cannot be read: {error}") from error
    return found
