"""Prompts with completions, and plain texts: no template prints them, they are trained and served as they are."""

from collections.abc import Iterator
from typing import Any

from falcon_trainer.data.formats.conversation import Conversation, Turn, conversation
from falcon_trainer.data.formats.messages import turns_of
from falcon_trainer.data.formats.record import InvalidRecord, short, text_at, value_of


class PromptCompletion:
    """Two texts: the prompt is read, the completion is trained."""

    name = "prompt-completion"
    fields = "'prompt' and 'completion'"
    is_chat = False

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why the record is taken for one of this format. Without 'completion' it may be a pair of preferences."""
        return "it has the field 'completion'" if "completion" in fields else None

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """The two texts as they are. Raises InvalidRecord."""
        prompt = text_at(_one_text(fields, "prompt"), "prompt")
        completion = text_at(_one_text(fields, "completion"), "completion", empty="no answer")
        return Turn("user", prompt), Turn("assistant", completion, trained=True)


class ConversationalPromptCompletion:
    """Two lists of messages, as TRL has them: a chat, of which the answers in the completion are trained."""

    name = "prompt-completion"
    fields = "'prompt' and 'completion', lists of messages"
    is_chat = True

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why the record is taken for one of this format."""
        if "completion" in fields and isinstance(fields.get("prompt"), list | tuple):
            return "it has the field 'completion', and its 'prompt' is a list of messages"
        return None

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """Raises InvalidRecord."""
        return conversation(self._turns(fields), "completion")

    def _turns(self, fields: dict[str, Any]) -> Iterator[tuple[str, Turn]]:
        yield from turns_of(value_of(fields, "prompt"), "prompt", trained=False)
        yield from turns_of(value_of(fields, "completion"), "completion")


class Text:
    """One text, trained from its second token on: nothing comes before the first, so nothing can predict it."""

    name = "text"
    fields = "'text'"
    is_chat = False

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why the record is taken for one of this format."""
        return "it has the field 'text'" if "text" in fields else None

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """The text as if it were an answer to nothing. Raises InvalidRecord."""
        return (Turn("assistant", text_at(value_of(fields, "text"), "text"), trained=True),)


def _one_text(fields: dict[str, Any], field: str) -> object:
    value = value_of(fields, field)
    if isinstance(value, list | tuple):
        raise InvalidRecord(field, "wrong type", f"is {short(value)}, and in the first record 'prompt' was a text")
    return value


PROMPT_COMPLETION, CONVERSATIONAL, TEXT = PromptCompletion(), ConversationalPromptCompletion(), Text()
