"""Records longer than a row: cut, split, left out or refused, and every token accounted for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.config import Dataset
from falcon_trainer.data.fitting import Fitting
from falcon_trainer.data.tokenization import Tokens

LENGTH = 16


def fitting(**fields: str) -> Fitting:
    asked = {"sources": [{"uri": "pvc://data/x.jsonl"}], "sequenceLength": LENGTH, **fields}
    return Fitting(Dataset.model_validate(asked))


def tokens(prompt: int, answer: int, first: int = 1) -> Tokens:
    """A prompt and a trained answer."""
    return Tokens(list(range(first, first + prompt + answer)), [max(prompt, 1), prompt + answer])


def trained(document: Tokens) -> list[int]:
    edges = document.trained
    return [i for s, e in zip(edges[::2], edges[1::2], strict=True) for i in document.ids[s:e]]


def counts(made: Fitting) -> dict[str, int]:
    named = {"truncated": made.truncated, "split": made.split, "skipped": made.skipped, "refused": made.refused}
    return {name: count for name, count in named.items() if count}


FATES: dict[str, tuple[dict[str, str], Tokens, list[int], dict[str, int]]] = {
    "a record that fits exactly stays": ({}, tokens(6, 10), [16], {}),
    "a longer one is cut at its end": ({}, tokens(6, 11), [16], {"truncated": 1}),
    "a prompt that fills the row leaves nothing to train": ({}, tokens(16, 5), [], {"skipped": 1}),
    "split makes full documents and a rest": ({"tooLong": "split"}, tokens(6, 30), [16, 16, 4], {"split": 1}),
    "split keeps a piece of prompt alone": ({"tooLong": "split"}, tokens(20, 4), [16, 8], {"split": 1}),
    "skip leaves it out": ({"tooLong": "skip"}, tokens(6, 11), [], {"skipped": 1}),
    "fail refuses it": ({"tooLong": "fail"}, tokens(6, 11), [], {"skipped": 1, "refused": 1}),
    "fail takes what fits": ({"tooLong": "fail"}, tokens(6, 10), [16], {}),
    "nothing is trained of a lone first token": ({}, tokens(0, 1), [], {"skipped": 1}),
    "concatenation cuts where the row ends, whatever tooLong says": (
        {"packing": "concatenate", "tooLong": "fail"},
        tokens(6, 30),
        [16, 16, 4],
        {"split": 1},
    ),
}


@pytest.mark.parametrize(("fields", "record", "lengths", "expected"), FATES.values(), ids=FATES)
def test_the_fate_of_a_record(
    fields: dict[str, str], record: Tokens, lengths: list[int], expected: dict[str, int]
) -> None:
    made = fitting(**fields)
    documents = made.documents([record])
    assert [len(document.ids) for document in documents] == lengths
    assert counts(made) == expected


def test_a_record_of_several_documents_is_counted_once() -> None:
    made = fitting()
    assert [len(each.ids) for each in made.documents([tokens(1, 20), tokens(30, 2), tokens(1, 40)])] == [16, 16]
    assert counts(made) == {"truncated": 1}


@st.composite
def records(draw: st.DrawFn) -> list[list[Tokens]]:
    """Records of one to three documents of several turns; every token number occurs once."""
    made: list[list[Tokens]] = []
    first = 1
    for parts in draw(st.lists(st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=5), min_size=1, max_size=3))):
        record = []
        for turns in parts:
            edges = [0]
            for size in turns:
                edges.append(edges[-1] + size)
            answers = list(pairwise(edges))[1::2]
            record.append(
                Tokens(list(range(first, first + edges[-1])), [edge for answer in answers for edge in answer])
            )
            first += edges[-1]
        made.append(record)
    return made


@given(records(), st.sampled_from([{"tooLong": "split"}, {"packing": "concatenate"}]))
def test_splitting_loses_no_token_and_no_label_but_of_tokens_that_nothing_precedes(
    made: list[list[Tokens]], fields: dict[str, str]
) -> None:
    fitted = fitting(**fields)
    documents = [document for record in made for document in fitted.documents(record)]
    assert [i for document in documents for i in document.ids] == [i for r in made for t in r for i in t.ids]
    assert all(1 <= len(document.ids) <= LENGTH for document in documents)
    lost = {i for r in made for t in r for i in trained(t)} - {i for each in documents for i in trained(each)}
    assert lost <= {document.ids[0] for document in documents}
    assert not any(document.ids[0] in trained(document) for document in documents)


@given(records(), st.sampled_from(["truncate", "skip"]))
def test_what_is_stored_of_a_record_is_its_beginning_and_teaches_something(
    made: list[list[Tokens]], too_long: str
) -> None:
    fitted = fitting(tooLong=too_long)
    for record in made:
        beginnings = {tuple(whole.ids[:LENGTH]) for whole in record}
        for document in fitted.documents(record):
            assert tuple(document.ids) in beginnings
            assert trained(document)
