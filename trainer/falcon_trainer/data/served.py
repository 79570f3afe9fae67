"""Holds served prompts against trained ones, with the tokenizer at hand, before anything is trained."""

from collections.abc import Iterable
from typing import Any

from falcon_trainer.data.formats import Conversion, Sample, Segment
from falcon_trainer.data.tokenization import Encoder
from falcon_trainer.outcome import ExitCode, StageError

SHOWN = 8
"""Tokens of a prompt that fit into a sentence."""


def check_served(tokenizer: Any, conversion: Conversion, records: Iterable[dict[str, Any]]) -> None:
    """Raises StageError(NO_INPUT) where this tokenizer would be asked other tokens than the model is trained on.

    `tokenizer` is the one that travels with the model, `records` the fields of a few valid records. Falcon's tokenizers
    pass. One that puts a token of its own before each text does not, nor one that fills names of the template which
    training knows nothing of.
    """
    encoder = Encoder(tokenizer, "completion")
    for fields in records:
        sample = conversion.sample(fields)
        served, trained = _served(tokenizer, sample), _trained(encoder, conversion, fields, sample)
        if served != trained:
            raise StageError(
                ExitCode.NO_INPUT,
                "TokenizerNotUsable",
                f"The model's tokenizer reads a prompt as {_tokens(tokenizer, served)} when it is served and as "
                f"{_tokens(tokenizer, trained)} when it is trained. Give the model folder the tokenizer files of the "
                "published Falcon.",
            )


def _served(tokenizer: Any, sample: Sample) -> list[int]:
    if sample["messages"] is None:
        return list(tokenizer(sample["prompt"])["input_ids"])
    encoded = tokenizer.apply_chat_template(sample["messages"], add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


def _trained(encoder: Encoder, conversion: Conversion, fields: dict[str, Any], sample: Sample) -> list[int]:
    document = conversion.document(fields)
    if all(segment.answer for segment in document):  # a plain text: its beginning stands for a prompt
        ((tokens,),) = encoder.encode([(Segment(sample["prompt"], answer=False),)])
        return tokens.ids
    *_, tokens = next(encoder.encode([document]))
    return tokens.ids[: tokens.trained[-2]]


def _tokens(tokenizer: Any, ids: list[int]) -> str:
    return f"{tokenizer.convert_ids_to_tokens(ids[:SHOWN])}{'…' if len(ids) > SHOWN else ''}"
