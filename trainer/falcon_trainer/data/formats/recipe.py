"""The recipe's chat template, printed without Jinja: the same text (a property test holds them together) in a
thirtieth of the time, and in one pass over a conversation instead of two for each of its answers.
"""

from falcon_trainer.data.formats.conversation import Conversation
from falcon_trainer.data.formats.record import Document, Segment
from falcon_trainer.data.formats.template import ChatTemplate
from falcon_trainer.data.prompt import CHAT_TEMPLATE, heading


class RecipeTemplate(ChatTemplate):
    """The template of the original recipe."""

    def __init__(self, end_of_text: str) -> None:
        super().__init__(CHAT_TEMPLATE, end_of_text)

    def document(self, conversation: Conversation) -> Document:
        """As ChatTemplate.document; it refuses nothing."""
        segments: list[Segment] = []
        asked: list[str] = []
        prompt, before = "", ""
        for turn in conversation:
            if turn.role != "assistant":
                asked.append(turn.content)
                continue
            if asked:
                prompt += before + heading("\n\n".join(filter(None, asked)))
            answer = turn.content + self.end_of_text
            if turn.trained and prompt:
                segments.append(Segment(prompt, answer=False))
            if turn.trained:
                segments.append(Segment(answer, answer=True))
            prompt = "" if turn.trained else prompt + answer
            asked, before = [], "\n\n"
        return tuple(segments)
