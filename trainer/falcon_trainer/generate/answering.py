"""From prompts to answers, one after the other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from falcon_trainer.config import RunConfig
from falcon_trainer.data.tokenization import load_tokenizer, stored_template, travelling
from falcon_trainer.generate.models import Which, load_model
from falcon_trainer.generate.prompts import Prompt, of_texts
from falcon_trainer.layout import RunLayout
from falcon_trainer.model.shapes import falcon_config
from falcon_trainer.model.source import model_folder
from falcon_trainer.outcome import ExitCode, StageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How answers are drawn. Greedily at temperature 0."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """Of each answer by itself, so that it does not depend on the prompts before."""
    raw: bool = False
    """Texts are prompts as they stand, whatever the run's chat template."""
    stream: bool = False
    """Prints each answer while it is drawn."""


@dataclass(frozen=True)
class Answer:
    """One answer, without the end-of-text."""

    text: str
    finish: Literal["stop", "length"]
    """Whether it ends in end-of-text, or was cut."""
    prompt_tokens: int
    tokens: int


def generate(
    config: RunConfig, layout: RunLayout, messages: Sequence[str], *, which: Which = "merged", max_new_tokens: int = 128
) -> list[str]:
    """The greedy answers' texts, for use from Python; see `answers`."""
    settings = Settings(max_new_tokens=max_new_tokens)
    return [answer.text for answer in answers(config, layout, of_texts(messages), which=which, settings=settings)]


def answers(
    config: RunConfig, layout: RunLayout, prompts: Iterable[Prompt], *, which: Which, settings: Settings
) -> Iterator[Answer]:
    """Loads the model, and gives one answer for each prompt, as soon as it is drawn.

    A prompt is built with the run's chat template, as the served model builds it; a run that was trained on text, or on
    prompts with completions, has none. Raises StageError, at once, where `which` is missing, or for a prompt that
    cannot be asked: all of them are tokenized before the weights are loaded.
    """
    base = model_folder(config.model, layout.workspace)
    tokenizer = travelling(load_tokenizer(base), stored_template(layout.data))
    positions = int(falcon_config(base).max_position_embeddings)
    asked = [_ids(tokenizer, prompt, positions, raw=settings.raw) for prompt in prompts]
    model = load_model(config, layout, which)
    rooms = (min(settings.max_new_tokens, positions - len(ids)) for ids in asked)
    return (_answer(model, tokenizer, ids, room, settings) for ids, room in zip(asked, rooms, strict=True))


def _ids(tokenizer: Any, prompt: Prompt, positions: int, *, raw: bool) -> list[int]:
    """The prompt's tokens, which leave room for an answer."""
    ids = _encoded(tokenizer, prompt, raw=raw)
    if not 0 < len(ids) < positions:
        raise _refused(prompt, f"has {len(ids)} tokens, and the model {positions} positions for prompt and answer")
    return ids


def _encoded(tokenizer: Any, prompt: Prompt, *, raw: bool) -> list[int]:
    from jinja2.exceptions import TemplateError

    template = not raw and tokenizer.chat_template is not None
    if prompt.messages and not template:
        why = "--raw was asked for" if raw else "the run was trained on text and has no chat template"
        raise _refused(prompt, f"holds messages, but {why}: give it as 'prompt' or 'text'")
    if not template:
        return list(tokenizer(prompt.text)["input_ids"])
    messages = list(prompt.messages or [{"role": "user", "content": prompt.text}])
    try:
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    except TemplateError as error:
        raise _refused(prompt, f"the chat template refuses it: {error}") from error
    return list(encoded["input_ids"])


def _answer(model: Any, tokenizer: Any, ids: list[int], room: int, settings: Settings) -> Answer:
    import torch
    from transformers import TextStreamer

    drawn = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0} if settings.temperature else {}
    if settings.seed is not None:
        torch.manual_seed(settings.seed)
    prompt = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        tokens = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=room,
            do_sample=bool(drawn),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if settings.stream else None,
            **drawn,
        )
    new = tokens[0, len(ids) :].tolist()
    ended = new[-1:] == [tokenizer.eos_token_id]
    text = str(tokenizer.decode(new, skip_special_tokens=True))
    return Answer(text, "stop" if ended else "length", len(ids), len(new))


def _refused(prompt: Prompt, what: str) -> StageError:
    return StageError(ExitCode.DATA, "InvalidPrompt", f"{prompt.where}: {what}.")
