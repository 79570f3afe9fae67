"""What is asked: the samples of the report, each in the form in which a client would ask it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from falcon_trainer.data.contents import PROMPTS
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.report.samples import NEW_TOKENS, Samples, read_samples, stored

CHAT, COMPLETIONS = "chat/completions", "completions"


@dataclass(frozen=True)
class Question:
    """One prompt. `messages` are there where the model has a chat template, which makes the same text of them."""

    prompt: str
    messages: Sequence[Mapping[str, str]] | None = None

    @property
    def path(self) -> str:
        """Below the endpoint's base URL."""
        return CHAT if self.messages else COMPLETIONS

    @property
    def short(self) -> str:
        """What it asks, without the words of the template."""
        return self.messages[-1]["content"] if self.messages else self.prompt

    def body(self, model: str) -> dict[str, Any]:
        """The request: greedy, and as long as the base's stored answers."""
        asked: dict[str, Any] = {"messages": list(self.messages)} if self.messages else {"prompt": self.prompt}
        return {"model": model, **asked, "max_tokens": NEW_TOKENS, "temperature": 0}


def read_questions(layout: RunLayout) -> tuple[Samples, list[Question]]:
    """The run's samples, with the base's answers where it was asked, and one question for each of them.

    Raises StageError(NO_INPUT) where the prepared data set is gone.
    """
    file = layout.data / PROMPTS
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(
            ExitCode.NO_INPUT,
            "PromptsMissing",
            f"The stored prompts {file} cannot be read ({_reason(error)}): was the workspace changed?",
        ) from error
    messages = {record["prompt"]: record["messages"] for record in records}
    # What the training kept of them, in its order; all of them where it asked nothing.
    samples = read_samples(layout.report) or stored(file)
    return samples, [Question(each.prompt, messages.get(each.prompt)) for each in samples.samples]


def _reason(error: Exception) -> str:
    return str(error.strerror) if isinstance(error, OSError) else str(error)
