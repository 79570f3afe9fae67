"""Lists of messages: OpenAI's `messages`, and ShareGPT's `conversations`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from falcon_trainer.data.formats.conversation import Conversation, Role, Turn, conversation
from falcon_trainer.data.formats.record import InvalidRecord, any_text_at, short, text_at, value_of


@dataclass(frozen=True)
class Spelling:
    """The keys of a message, and what its roles are called."""

    role: str
    content: str
    roles: Mapping[str, Role]


OPENAI = Spelling(
    "role", "content", {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant"}
)
SHAREGPT = Spelling(
    "from",
    "value",
    {
        **{"human": "user", "user": "user", "system": "system"},
        **{"gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant"},
        **{"bot": "assistant", "bing": "assistant", "bard": "assistant"},
    },
)


def turns_of(value: object, field: str, *, trained: bool = True, sharegpt: bool = False) -> Iterator[tuple[str, Turn]]:
    """The messages of a list with their paths, such as `messages[2]`; `trained` says whether answers are.

    A system message without text says nothing and is left out. Raises InvalidRecord, which names the path.
    """
    if not isinstance(value, list | tuple):
        raise InvalidRecord(field, "wrong type", f"is not a list of messages but {short(value)}")
    if not value:
        raise InvalidRecord(field, "empty", "is empty")
    for index, message in enumerate(value):
        path = f"{field}[{index}]"
        if not isinstance(message, dict):
            raise InvalidRecord(path, "wrong type", f"is not a message but {short(message)}")
        turn = _turn(message, path, SHAREGPT if sharegpt and "from" in message else OPENAI, trained=trained)
        if turn.role not in ("system", "developer") or turn.content.strip():
            yield path, turn


def _turn(message: dict[str, Any], path: str, spelling: Spelling, *, trained: bool) -> Turn:
    role = _role(message, path, spelling)
    for unsupported in ("tool_calls", "function_call"):
        if message.get(unsupported):
            raise InvalidRecord(
                f"{path}.{unsupported}", "not supported", "is a call of a tool, which no template prints"
            )
    where = f"{path}.{spelling.content}"
    content = _content(value_of(message, spelling.content, where), where)
    if role in ("system", "developer"):
        return Turn(role, content)
    if role == "user":
        return Turn(role, text_at(content, where))
    weighed = _weight(message, path)
    return Turn(role, text_at(content, where, empty="no answer"), trained=trained and weighed)


def _role(message: dict[str, Any], path: str, spelling: Spelling) -> Role:
    where = f"{path}.{spelling.role}"
    name = any_text_at(value_of(message, spelling.role, where), where)
    role = spelling.roles.get(name) or spelling.roles.get(name.lower())
    if role is None:
        raise InvalidRecord(where, "unknown role", f"is {short(name)}; known are {', '.join(spelling.roles)}")
    return role


def _content(value: object, path: str) -> str:
    """The text of a message: a string, or parts of text as OpenAI's API has them, joined as the server joins them."""
    if not isinstance(value, list | tuple):
        return any_text_at(value, path)
    return "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(value))


def _part(part: object, path: str) -> str:
    if not isinstance(part, dict):
        raise InvalidRecord(path, "wrong type", f"is not a part of a message but {short(part)}")
    kind = value_of(part, "type", f"{path}.type")
    if kind != "text":
        raise InvalidRecord(f"{path}.type", "not supported", f"is {short(kind)}; only 'text' can be trained on")
    return any_text_at(value_of(part, "text", f"{path}.text"), f"{path}.text")


def _weight(message: dict[str, Any], path: str) -> bool:
    """Whether an answer is trained, as OpenAI's fine-tuning API has it: `weight` 0 or 1, default 1."""
    weight = message.get("weight")
    if weight is None or weight == 1:
        return True
    if weight == 0:
        return False
    raise InvalidRecord(f"{path}.weight", "wrong type", f"is {short(weight)}, not 0 (only read) or 1 (trained)")


class Chat:
    """OpenAI's `messages`: any number of turns, of which every assistant message is trained."""

    name = "chat"
    fields = "'messages', a list of messages with 'role' and 'content'"
    is_chat = True

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why the record is taken for one of this format."""
        return "it has the field 'messages'" if "messages" in fields else None

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """Raises InvalidRecord."""
        for tools in ("tools", "functions"):
            if fields.get(tools):
                raise InvalidRecord(tools, "not supported", "offers tools, which no template prints")
        return conversation(turns_of(value_of(fields, "messages"), "messages"), "messages")


class ShareGpt:
    """ShareGPT's `conversations`: turns of human and gpt, perhaps a system text, in the turns or beside them."""

    name = "sharegpt"
    fields = "'conversations', a list of turns with 'from' and 'value'"
    is_chat = True

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why the record is taken for one of this format."""
        return "it has the field 'conversations'" if "conversations" in fields else None

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """Raises InvalidRecord."""
        return conversation(self._turns(fields), "conversations")

    def _turns(self, fields: dict[str, Any]) -> Iterator[tuple[str, Turn]]:
        beside = fields.get("system")
        if beside is not None and any_text_at(beside, "system").strip():
            yield "system", Turn("system", beside)
        yield from turns_of(value_of(fields, "conversations"), "conversations", sharegpt=True)


CHAT, SHARE_GPT = Chat(), ShareGpt()
