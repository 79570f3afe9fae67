"""The records that the benches work on, tokenized as prepare tokenizes them."""

import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from falcon_trainer.config import Dataset, DatasetSource
from falcon_trainer.data.formats import Conversion, InvalidRecord
from falcon_trainer.data.tokenization import Encoder, Tokens, load_tokenizer
from falcon_trainer.tiny import texts_of, train_tokenizer

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
EXAMPLES = REPOSITORY / "examples" / "data" / "dolly-mini.jsonl"


@cache
def tokenizer() -> Any:
    """Falcon's own where it is at hand, else a small one trained on the examples."""
    published = SHARED / "falcon-tokenizer"
    return load_tokenizer(published) if published.is_dir() else train_tokenizer(texts_of([EXAMPLES]))


def dolly() -> list[Tokens]:
    """151 records of databricks-dolly-15k; without them, the examples."""
    file = SHARED / "dolly-sample.jsonl"
    lines = (file if file.is_file() else EXAMPLES).read_text(encoding="utf-8").splitlines()
    return tokenized("dolly", [json.loads(line) for line in lines])


def alpaca() -> list[Tokens]:
    """2,015 records of Code Alpaca; none where they are not at hand."""
    file = SHARED / "code-alpaca-2k.json"
    return tokenized("alpaca", json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []


def tokenized(name: Literal["dolly", "alpaca"], records: list[dict[str, Any]]) -> list[Tokens]:
    """Those that can be used: Code Alpaca has two without an answer."""
    dataset = Dataset(sources=[DatasetSource(uri="pvc://bench/records.jsonl")], format=name)
    conversion = Conversion.of(dataset, tokenizer().eos_token)
    documents = []
    for fields in records:
        with suppress(InvalidRecord):
            documents.append(conversion.document(fields))
    return [tokens for made in Encoder(tokenizer(), "completion").encode(documents) for tokens in made]


def described() -> str:
    """What these records are, for a bench's first lines."""
    return "Dolly (151 records) and Code Alpaca (2,015)" if SHARED.is_dir() else f"{EXAMPLES.name} of the examples"
