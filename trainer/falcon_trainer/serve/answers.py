"""Answers in OpenAI's form, whole and in chunks. Pure."""

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from falcon_trainer.serve.question import Kind

DONE = "data: [DONE]\n\n"
OBJECTS: dict[Kind, tuple[str, str]] = {
    "chat": ("chat.completion", "chat.completion.chunk"),
    "completion": ("text_completion", "text_completion"),
}
PREFIXES: dict[Kind, str] = {"chat": "chatcmpl-", "completion": "cmpl-"}


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer."""

    prompt: int
    completion: int

    def body(self) -> dict[str, int]:
        """OpenAI's form."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(frozen=True)
class Answer:
    """The frame of one answer: every chunk of a stream carries the same id, time and model."""

    kind: Kind
    model: str
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", PREFIXES[self.kind] + uuid.uuid4().hex)

    def whole(self, text: str, finish: str, usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        said = {"message": {"role": "assistant", "content": text}} if self.kind == "chat" else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return self._frame(OBJECTS[self.kind][0], [choice]) | {"usage": usage.body()}

    def opening(self) -> str | None:
        """The first event of a chat's stream: who speaks."""
        return self._event({"role": "assistant", "content": ""}, None) if self.kind == "chat" else None

    def piece(self, text: str) -> str:
        """An event with more of the text."""
        return self._event({"content": text}, None) if self.kind == "chat" else self._event(text, None)

    def closing(self, finish: str) -> str:
        """The event that says why the text ends."""
        return self._event({} if self.kind == "chat" else "", finish)

    def usage_event(self, usage: Usage) -> str:
        """The event without a choice that clients ask for with stream_options.include_usage."""
        return _sse(self._frame(OBJECTS[self.kind][1], []) | {"usage": usage.body()})

    def _event(self, said: dict[str, str] | str, finish: str | None) -> str:
        content = {"delta": said} if self.kind == "chat" else {"text": said}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        return _sse(self._frame(OBJECTS[self.kind][1], [choice]))

    def _frame(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model, "choices": choices}


def error_event(body: dict[str, Any]) -> str:
    """An error after the stream has begun; OpenAI's clients raise it."""
    return _sse(body)


def _sse(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
