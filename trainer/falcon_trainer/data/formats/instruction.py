"""Dolly and Alpaca: one instruction, perhaps a context, one answer."""

from dataclasses import dataclass
from typing import Any

from falcon_trainer.data.formats.conversation import Conversation, Turn
from falcon_trainer.data.formats.record import any_text_at, text_at, value_of
from falcon_trainer.data.prompt import user_message


@dataclass(frozen=True)
class InstructionFormat:
    """The context goes into the user message, exactly as the recipe prints it."""

    name: str
    context: str
    answer: str
    instruction: str = "instruction"
    is_chat: bool = True

    @property
    def fields(self) -> str:
        """The fields, for a sentence."""
        return f"{self.instruction!r} and {self.answer!r}"

    def resembles(self, fields: dict[str, Any]) -> str | None:
        """Why the record is taken for one of this format; one that lacks its answer is still recognised."""
        if self.instruction in fields and (self.answer in fields or self.context in fields):
            own = (self.instruction, self.context, self.answer)
            return "it has the fields " + ", ".join(repr(name) for name in own if name in fields)
        return None

    def conversation(self, fields: dict[str, Any]) -> Conversation:
        """The user's turn and the answer. Raises InvalidRecord."""
        instruction = text_at(value_of(fields, self.instruction), self.instruction)
        context = fields.get(self.context)
        asked = user_message(instruction, "" if context is None else any_text_at(context, self.context))
        answer = text_at(value_of(fields, self.answer), self.answer, empty="no answer")
        return Turn("user", asked), Turn("assistant", answer, trained=True)


DOLLY = InstructionFormat("dolly", context="context", answer="response")
ALPACA = InstructionFormat("alpaca", context="input", answer="output")
