"""From text to tokens. Each segment is tokenized by itself, so the border between prompt and answer is a token border.

Read together, the last character of a prompt and the first of an answer may merge into one token, which no served
prompt ever ends with.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from falcon_trainer.data.formats import Document
from falcon_trainer.outcome import ExitCode, StageError

BATCH = 1000
"""Documents per call of the tokenizer: enough for its threads, small in memory."""


@dataclass(frozen=True)
class Tokens:
    """A tokenized document. `trained` lists [start, end) pairs, flat: the tokens that count in the loss."""

    ids: list[int]
    trained: list[int]

    @property
    def trained_count(self) -> int:
        return sum(self.trained[1::2]) - sum(self.trained[::2])

    def cut(self, length: int) -> "Tokens":
        """The first `length` tokens."""
        pairs = zip(self.trained[::2], self.trained[1::2], strict=True)
        kept = [(start, min(end, length)) for start, end in pairs if start < length]
        return Tokens(self.ids[:length], [edge for pair in kept for edge in pair])


class Encoder:
    """Tokenizes documents with the base model's tokenizer."""

    def __init__(self, tokenizer: Any, train_on: Literal["completion", "all"]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._end_of_text: int = tokenizer.eos_token_id
        self._train_on = train_on

    def encode(self, documents: Iterable[Document]) -> Iterator[Tokens]:
        """The documents' tokens, in order; end-of-text stands after each answer and is trained with it."""
        iterator = iter(documents)
        while batch := list(islice(iterator, BATCH)):
            texts = [segment.text for document in batch for segment in document]
            encoded = iter(self._backend.encode_batch(texts, add_special_tokens=False))
            for document in batch:
                yield self._joined([(next(encoded).ids, segment.answer) for segment in document])

    def _joined(self, parts: list[tuple[list[int], bool]]) -> Tokens:
        ids: list[int] = []
        trained: list[int] = []
        for part, answer in parts:
            start = len(ids)
            ids += part
            if answer:
                ids.append(self._end_of_text)
            if answer or self._train_on == "all":
                # Nothing comes before a document's first token, so nothing can predict it.
                trained += [max(start, 1), len(ids)]
        return Tokens(ids, trained)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises StageError(NO_INPUT) where it is missing or cannot end a text."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001,RUF100 - whatever the library raises, the folder is to blame
        raise StageError(
            ExitCode.NO_INPUT, "TokenizerNotUsable", f"The tokenizer in {folder} does not load: {error}"
        ) from error
    if tokenizer.eos_token_id is None or getattr(tokenizer, "backend_tokenizer", None) is None:
        raise StageError(
            ExitCode.NO_INPUT,
            "TokenizerNotUsable",
            f"The tokenizer in {folder} has no end-of-text token or no tokenizer.json: a model trained with it would "
            "never stop. Give the model folder the tokenizer files of the published Falcon.",
        )
    return tokenizer


def travelling(tokenizer: Any, chat_template: str) -> Any:
    """The tokenizer as it is saved with adapter and merged model: with the chat template and a pad token.

    The pad token is one that exists already, so the embedding keeps its size; not end-of-text if there is another,
    because trainers that mask padding would then unlearn to stop.
    """
    tokenizer.chat_template = chat_template
    if tokenizer.pad_token_id is None:
        added = sorted(tokenizer.added_tokens_decoder.items())
        others = [str(token) for number, token in added if token.special and number != tokenizer.eos_token_id]
        tokenizer.pad_token = others[0] if others else tokenizer.eos_token
    return tokenizer
