"""Tokens of documents: exact borders between prompt and answer, and a trained end."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from falcon_trainer.data.formats import Document, Segment
from falcon_trainer.data.tokenization import Encoder, Tokens, load_tokenizer, travelling
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.conversations import CHATML, END, conversion, messages
from tests.unit.trainer.workshop import FALCON_TOKENIZER, records, tokenizer

falcon = pytest.mark.skipif(not FALCON_TOKENIZER.exists(), reason="the Falcon tokenizer is not beside the checkout")


def encode(*documents: Document, train_on: str = "completion") -> list[Tokens]:
    """Of documents that are one each."""
    return [tokens for (tokens,) in Encoder(tokenizer(), train_on).encode(documents)]  # type: ignore[arg-type]


def test_only_the_answer_and_the_end_of_text_are_trained() -> None:
    documents = [conversion(format="dolly").document(record) for record in records()]
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


def test_an_answer_ends_in_end_of_text_once() -> None:
    for text in ("b", f"b{END}"):
        (tokens,) = encode((Segment("a", answer=False), Segment(text, answer=True)))
        assert tokenizer().decode(tokens.ids) == f"ab{END}"
        assert tokenizer().decode(tokens.ids[tokens.trained[0] :]) == f"b{END}"


def test_a_text_without_a_prompt_is_trained_from_its_second_token() -> None:
    (tokens,) = encode((Segment("Carp live in ponds.", answer=True),))
    assert tokens.trained == [1, len(tokens.ids)]
    assert tokens.ids[-1] == tokenizer().eos_token_id


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


LINES = "\n\nSo be it.\n\n"
TURNS = messages(("user", "a"), ("assistant", LINES), ("user", "b"), ("assistant", "c"))


@falcon
@pytest.mark.parametrize("train_on", ["completion", "all"])
def test_an_answer_that_reads_otherwise_as_part_of_a_later_prompt_ends_its_document(train_on: str) -> None:
    plain = load_tokenizer(FALCON_TOKENIZER)
    document = conversion().document({"messages": TURNS})
    first, second = next(Encoder(plain, train_on).encode([document]))  # type: ignore[arg-type]
    text = "".join(segment.text for segment in document)
    assert plain.decode(first.ids) == text[: text.index(END) + len(END)]
    assert plain.decode(second.ids) == text
    ids = plain(text)["input_ids"]
    assert second.ids == ids  # as a server reads it: the line breaks of heading and answer together
    assert first.ids != ids[: len(first.ids)]
    trained = [
        plain.decode(part.ids[start:end])
        for part in (first, second)
        for start, end in zip(part.trained[::2], part.trained[1::2], strict=True)
    ]
    if train_on == "completion":
        assert trained == [LINES + END, f"c{END}"]
    else:  # every token but the first, once
        assert plain.decode(first.ids[:1]) + "".join(trained) == text


@falcon
def test_a_conversation_whose_answers_begin_with_a_word_is_one_document() -> None:
    document = conversion().document({"messages": messages(*[("user", "a"), ("assistant", " b\n\n")] * 5)})
    (parts,) = Encoder(load_tokenizer(FALCON_TOKENIZER), "completion").encode([document])
    assert len(parts) == 1


@falcon
@pytest.mark.parametrize("heading", ["A: ", "A\n\n"], ids=["a space", "two line breaks"])
def test_a_template_whose_prompts_run_into_every_answer_is_refused(heading: str) -> None:
    template = CHATML.replace("<|im_start|>assistant\n", heading).replace(
        "<|im_start|>{{ message.role }}\n", f"{{{{ {heading!r} if message.role == 'assistant' else 'Q: ' }}}}"
    )
    encoder = Encoder(load_tokenizer(FALCON_TOKENIZER), "completion")
    converted = conversion(template=template)
    list(encoder.encode([converted.document({"messages": TURNS[2:]})]))  # nothing follows its only answer
    with pytest.raises(StageError, match="whose end the tokenizer reads otherwise once the answer follows") as caught:
        list(encoder.encode([converted.document({"messages": TURNS})]))
    assert (caught.value.code, caught.value.reason) == (ExitCode.CONFIGURATION, "TemplateNotUsable")
    assert repr(heading)[1:-1] in caught.value.message


def test_a_tokenizer_that_cannot_end_a_text_is_refused(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(StageError, match="has no end-of-text token") as caught:
        load_tokenizer(tmp_path)
    assert (caught.value.code, caught.value.reason) == (ExitCode.NO_INPUT, "TokenizerNotUsable")


@falcon
def test_the_pad_token_of_falcon_is_an_existing_one_that_does_not_end_texts() -> None:
    plain = load_tokenizer(FALCON_TOKENIZER)
    size = len(plain)
    carrier = travelling(plain, "template")
    assert len(carrier) == size
    assert carrier.pad_token_id not in (None, carrier.eos_token_id)


def test_a_tokenizer_travels_without_the_chat_template_of_its_base_where_there_is_none_to_carry(tmp_path: Path) -> None:
    base = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token=END)
    base.chat_template = "the base's own"
    base.save_pretrained(tmp_path / "base")
    travelling(load_tokenizer(tmp_path / "base"), None).save_pretrained(tmp_path / "adapter")
    assert load_tokenizer(tmp_path / "base").chat_template == "the base's own"
    assert load_tokenizer(tmp_path / "adapter").chat_template is None
