"""From text to tokens, such that a served prompt is a trained prompt, token by token.

A served prompt is read as one text. So everything before an answer is read as one text here, and the answer by itself:
the border between them is a token border, as it is when the model answers. Read together, the last character of a
prompt and the first of an answer may become one token, which no served prompt ends with.

Where an earlier answer of a conversation is such a case (it begins with two line breaks, say), no single row of tokens
serves both: what was an answer is part of a prompt in the next turn, and reads otherwise there. The conversation then
becomes several documents; each repeats what was said before, and every answer is trained once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from falcon_trainer.data.formats import Document
from falcon_trainer.outcome import ExitCode, StageError

TEMPLATE = "chat_template.jinja"
"""In the folder of a prepared data set that has one."""
PLAIN = "Yes"
"""An answer that no prompt's end should change."""
BATCH = 1000
"""Documents per call of the tokenizer: enough for its threads, small in memory."""
CHARACTERS = 2_000_000
"""Characters after which a call is full: the tokenizer holds some 150 bytes of each."""


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

    def encode(self, documents: Iterable[Document]) -> Iterator[tuple[Tokens, ...]]:
        """The tokens of each document, in order: nearly always one Tokens, see the module for when there are more.

        An answer ends in end-of-text, which is trained with it; it is appended where the text does not end in it.
        Raises StageError(CONFIGURATION) where the chat template lets plain answers run into their prompts.
        """
        for batch in _batches(documents):
            read = [_exchanges(document) for document in batch]
            texts = [text for exchanges in read for text in _texts(exchanges)]
            encoded = (encoding.ids for encoding in self._backend.encode_batch(texts, add_special_tokens=False))
            for exchanges in read:
                yield tuple(self._documents(exchanges, encoded))

    def _documents(self, exchanges: "list[_Exchange]", encoded: Iterator[list[int]]) -> Iterator[Tokens]:
        """`encoded` gives the tokens of `_texts`."""
        row, history = _Row(), list[int]()
        for number, exchange in enumerate(exchanges, start=1):
            prompt, answer = next(encoded), self._ended(next(encoded)) if exchange.answer else []
            row.add(prompt, trained=self._train_on == "all")
            row.add(answer, trained=True)
            if number == len(exchanges):
                break
            whole = self._ended(next(encoded))
            history += whole
            if whole != prompt + answer:
                self._refuse_running_on(exchange.prompt)
                yield row.tokens()
                row = _Row(list(history))
        yield row.tokens()

    def _refuse_running_on(self, prompt: str) -> None:
        """Raises StageError where even a plain word runs into the prompt: then the template is to blame for it, and
        would turn every conversation into as many documents as it has answers.
        """
        apart, word, whole = (
            encoding.ids
            for encoding in self._backend.encode_batch([prompt, PLAIN, prompt + PLAIN], add_special_tokens=False)
        )
        if whole != apart + word:
            raise StageError(
                ExitCode.CONFIGURATION,
                "TemplateNotUsable",
                f"dataset.template cannot be trained with: before an answer it prints {prompt[-20:]!r}, whose end the "
                "tokenizer reads otherwise once the answer follows, so that in a later turn the model would be served "
                "tokens that were never trained. End it with one line break, or print white space with the answer.",
            )

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if ids[-1:] == [self._end_of_text] else [*ids, self._end_of_text]


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += sum(len(segment.text) for segment in document)
        if len(batch) >= BATCH or characters >= CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class _Exchange:
    """A prompt, perhaps empty, and its answer; only the end of a document has none."""

    prompt: str
    answer: str


@dataclass
class _Row:
    """Tokens as they are put together."""

    ids: list[int] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)

    def add(self, ids: list[int], *, trained: bool) -> None:
        # Nothing comes before a document's first token, so nothing can predict it.
        start = max(len(self.ids), 1)
        self.ids += ids
        if trained and start < len(self.ids):
            self.trained += [start, len(self.ids)]

    def tokens(self) -> Tokens:
        return Tokens(self.ids, self.trained)


def _exchanges(document: Document) -> list[_Exchange]:
    found, prompt = [], ""
    for segment in document:
        if segment.answer:
            found.append(_Exchange(prompt, segment.text))
            prompt = ""
        else:
            prompt += segment.text
    return found if found and not prompt else [*found, _Exchange(prompt, "")]


def _texts(exchanges: list[_Exchange]) -> Iterator[str]:
    """What is tokenized: each prompt and answer, and both as one text where that becomes part of a later prompt."""
    for number, exchange in enumerate(exchanges, start=1):
        yield exchange.prompt
        if exchange.answer:
            yield exchange.answer
        if number < len(exchanges):
            yield exchange.prompt + exchange.answer


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


def stored_template(folder: Path) -> str | None:
    """The chat template of a prepared data set; None where its records have none."""
    path = folder / TEMPLATE
    return path.read_text(encoding="utf-8") if path.exists() else None


def travelling(tokenizer: Any, chat_template: str | None) -> Any:
    """The tokenizer as it is saved with adapter and merged model: with the chat template and a pad token.

    Without a chat template it has none, not even the base's own: the model was not trained to answer in that one.
    The pad token is one that exists already, so the embedding keeps its size; not end-of-text if there is another,
    because trainers that mask padding would then unlearn to stop.
    """
    tokenizer.chat_template = chat_template
    if tokenizer.pad_token_id is None:
        added = sorted(tokenizer.added_tokens_decoder.items())
        others = [str(token) for number, token in added if token.special and number != tokenizer.eos_token_id]
        tokenizer.pad_token = others[0] if others else tokenizer.eos_token
    return tokenizer
