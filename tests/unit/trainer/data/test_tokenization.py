"""Tokens of documents: exact borders between prompt and answer, and a trained end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.config import Dataset
from falcon_trainer.data.formats import Conversion, Document, Segment
from falcon_trainer.data.tokenization import Encoder, Tokens, load_tokenizer, travelling
from tests.unit.trainer.workshop import FALCON_TOKENIZER, records, tokenizer

falcon = pytest.mark.skipif(not FALCON_TOKENIZER.exists(), reason="the Falcon tokenizer is not beside the checkout")


def encode(*documents: Document, train_on: str = "completion") -> list[Tokens]:
    return [tokens for parts in Encoder(tokenizer(), train_on).encode(documents) for tokens in parts]  # type: ignore[arg-type]


def documents_of(records: list[dict[str, str]]) -> list[Document]:
    dataset = Dataset.model_validate({"sources": [{"uri": "pvc://data/records.jsonl"}]})
    return [Conversion.of(dataset, "<|endoftext|>").document(record) for record in records]


def test_only_the_answer_and_the_end_of_text_are_trained() -> None:
    documents = documents_of(records())
    for document, tokens in zip(documents, encode(*documents), strict=True):
        prompt, answer = (segment.text for segment in document)
        start, end = tokens.trained
        assert tokenizer().decode(tokens.ids[:start]) == prompt
        assert tokenizer().decode(tokens.ids[start:end]) == answer
        assert end == len(tokens.ids)


def test_all_tokens_are_trained_on_request_but_the_first_which_nothing_predicts() -> None:
    (tokens,) = encode((Segment("ask", answer=False), Segment("tell", answer=True)), train_on="all")
    places = [i for s, e in zip(tokens.trained[::2], tokens.trained[1::2], strict=True) for i in range(s, e)]
    assert places == list(range(1, len(tokens.ids)))


def test_a_conversation_trains_each_of_its_answers() -> None:
    turns = [
        Segment("a?", answer=False),
        Segment("b", answer=True),
        Segment("c?", answer=False),
        Segment("d", answer=True),
    ]
    (tokens,) = encode(tuple(turns))
    trained = [tokens.ids[s:e] for s, e in zip(tokens.trained[::2], tokens.trained[1::2], strict=True)]
    assert [tokenizer().decode(ids) for ids in trained] == ["b<|endoftext|>", "d<|endoftext|>"]


def test_more_documents_than_one_call_of_the_tokenizer_keep_their_order() -> None:
    documents = [(Segment(f"{n}", answer=False), Segment(f"{n}", answer=True)) for n in range(2345)]
    assert [tokenizer().decode(tokens.ids) for tokens in encode(*documents)] == [
        f"{n}{n}<|endoftext|>" for n in range(2345)
    ]


spans = (
    st.lists(st.integers(0, 60), min_size=0, max_size=6, unique=True).map(sorted).map(lambda e: e[: len(e) // 2 * 2])
)


@given(spans, st.integers(1, 60))
def test_cutting_keeps_the_trained_tokens_before_the_cut(trained: list[int], length: int) -> None:
    tokens = Tokens(list(range(60)), trained)
    places = {i for s, e in zip(trained[::2], trained[1::2], strict=True) for i in range(s, e)}
    cut = tokens.cut(length)
    kept = {i for s, e in zip(cut.trained[::2], cut.trained[1::2], strict=True) for i in range(s, e)}
    assert cut.ids == list(range(length))
    assert kept == {place for place in places if place < length}
    assert cut.trained_count == len(kept)


@falcon
def test_the_published_falcon_tokenizer_gives_its_published_tokens() -> None:
    expected = json.loads((FALCON_TOKENIZER / "expected_encoding.json").read_text())
    encoder = Encoder(load_tokenizer(FALCON_TOKENIZER), "completion")
    ((tokens,),) = encoder.encode([(Segment(expected["text"], answer=False),)])
    assert tokens.ids == expected["token_ids"]


@falcon
def test_the_pad_token_of_falcon_is_an_existing_one_that_does_not_end_texts() -> None:
    plain = load_tokenizer(FALCON_TOKENIZER)
    size = len(plain)
    carrier = travelling(plain, "template")
    assert len(carrier) == size
    assert carrier.pad_token_id not in (None, carrier.eos_token_id)
