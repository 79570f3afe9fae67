"""A conversation: the turns of a record, whose text a chat template makes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from falcon_trainer.data.formats.record import InvalidRecord

Role = Literal["system", "developer", "user", "assistant"]
Message = dict[str, str]
"""`role` and `content`, as OpenAI's API has them; the content is always one string."""


@dataclass(frozen=True)
class Turn:
    """One message; `trained` says whether the model learns to say it."""

    role: Role
    content: str
    trained: bool = False

    @property
    def message(self) -> Message:
        """The turn as a client would send it."""
        return {"role": self.role, "content": self.content}


Conversation = tuple[Turn, ...]
"""Turns up to the last one that is trained."""


def conversation(found: Iterable[tuple[str, Turn]], field: str) -> Conversation:
    """The turns up to the last trained one; what is said after it teaches nothing and is left out.

    `found` are the turns, each with the path it is known by, and `field` the field that holds them. Raises
    InvalidRecord where nothing is trained, where nothing asks for an answer, and for two answers in a row: the second
    would be trained right after an end-of-text, where no server asks for one.
    """
    turns: list[Turn] = []
    for path, turn in found:
        if turns and turns[-1].role == turn.role == "assistant":
            raise InvalidRecord(f"{path}.role", "role order", "is an answer that follows another answer")
        turns.append(turn)
    while turns and not turns[-1].trained:
        turns.pop()
    if not turns:
        raise InvalidRecord(field, "no answer", "holds no answer to train on")
    if len(turns) == 1:
        raise InvalidRecord(field, "no prompt", "begins with its only answer: nothing asks for it")
    return tuple(turns)
