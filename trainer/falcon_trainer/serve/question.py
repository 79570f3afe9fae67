"""From a checked request to what the engine is told. Pure, but for the tokenizer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from falcon_trainer.serve.errors import invalid, too_long, unknown_model
from falcon_trainer.serve.model import ServedModel
from falcon_trainer.serve.schema import Ask, ChatAsk, CompletionAsk

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default of /v1/completions."""

Kind = Literal["chat", "completion"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One answer to be generated."""

    kind: Kind
    prompt: Mapping[str, Any]
    """`messages` or `prompt`, as the engine takes it."""
    prompt_tokens: int
    max_tokens: int
    sampling: Mapping[str, float | bool]
    seed: int | None = None
    stops: tuple[str, ...] = ()

    def engine_body(self) -> dict[str, Any]:
        """Body of the engine's request. Always streamed: only a stream stops generating when it is closed.

        The generation settings are passed whole, because the engine samples greedily whatever the temperature unless
        the model's own settings say `do_sample`, and would keep 50 candidates (`top_k`) that nobody asked for.
        """
        settings = {"max_new_tokens": self.max_tokens, **self.sampling}
        body = {**self.prompt, "stream": True, "generation_config": json.dumps(settings)}
        return body if self.seed is None else body | {"seed": self.seed}


def chat_question(ask: ChatAsk, model: ServedModel) -> Question:
    """Raises ApiError where the model cannot answer this."""
    _check_name(ask, model)
    messages = [{"role": message.role, "content": message.text} for message in ask.messages]
    prompt = model.chat_tokens(messages)
    limit = ask.max_completion_tokens or ask.max_tokens
    return Question(
        kind="chat",
        prompt={"messages": messages},
        prompt_tokens=prompt,
        max_tokens=_room(model, prompt, limit, default=model.positions, param="messages"),
        sampling=sampling(ask, model),
        seed=ask.seed,
        stops=tuple(ask.stop),
    )


def completion_question(ask: CompletionAsk, model: ServedModel) -> Question:
    """Raises ApiError where the model cannot answer this."""
    _check_name(ask, model)
    prompt = model.prompt_tokens(ask.prompt)
    if prompt == 0:
        raise invalid("prompt: the model needs at least one token to go on from.", param="prompt")
    return Question(
        kind="completion",
        prompt={"prompt": ask.prompt},
        prompt_tokens=prompt,
        max_tokens=_room(model, prompt, ask.max_tokens, default=DEFAULT_COMPLETION_TOKENS, param="prompt"),
        sampling=sampling(ask, model),
        seed=ask.seed,
        stops=tuple(ask.stop),
    )


def sampling(ask: Ask, model: ServedModel) -> dict[str, float | bool]:
    """Greedy at temperature 0; else OpenAI's defaults (temperature 1, all candidates), or what the model asks for."""
    temperature = model.sampling.get("temperature", 1.0) if ask.temperature is None else ask.temperature
    if temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": temperature,
        "top_p": model.sampling.get("top_p", 1.0) if ask.top_p is None else ask.top_p,
        "top_k": int(model.sampling.get("top_k", 0)),
    }


def _check_name(ask: Ask, model: ServedModel) -> None:
    if ask.model not in model.names:
        raise unknown_model(ask.model, model.names)


def _room(model: ServedModel, prompt: int, asked: int | None, *, default: int, param: str) -> int:
    """Tokens that the answer may have: what was asked for must fit, a default is cut to what fits."""
    left = model.positions - prompt
    if left < (asked or 1):
        raise too_long(model.positions, prompt, asked or 1, param)
    return min(asked or default, left)
