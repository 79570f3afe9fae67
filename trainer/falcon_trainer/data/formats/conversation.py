"""A conversation: the turns of a record whose text a chat template makes."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from falcon_trainer.data.formats.record import InvalidRecord

Role = Literal["system", "developer", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant")
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


def conversation(turns: list[Turn], field: str, path: str = "{field}[{index}].role") -> Conversation:
    """The turns up to the last trained one; what is said after it teaches nothing and is left out.

    Two answers in a row are refused: the second would be trained right after an end-of-text, where no server asks.
    """
    for index, (before, turn) in enumerate(pairwise(turns), start=1):
        if before.role == turn.role == "assistant":
            where = path.format(field=field, index=index)
            raise InvalidRecord(where, "role order", "is an answer that follows another answer")
    trained = [index for index, turn in enumerate(turns) if turn.trained]
    if not trained:
        raise InvalidRecord(field, "no answer", "holds no assistant message that is trained")
    if len(turns[: trained[-1] + 1]) == 1:
        raise InvalidRecord(field, "no prompt", "begins with its only answer: nothing asks for it")
    return tuple(turns[: trained[-1] + 1])
