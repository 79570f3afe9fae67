"""What is said of records that cannot be used: in full of the first ones, in numbers of all, in a bounded message."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.config import Dataset
from falcon_trainer.data.findings import PLACE, SENTENCE, Findings, printable, refuse, shortened
from falcon_trainer.outcome import LIMIT, ExitCode, Outcome, StageError


def dataset(**fields: object) -> Dataset:
    return Dataset.model_validate({"sources": [{"uri": "pvc://data/records.jsonl"}], **fields})


def findings(valid: int, *, missing: int = 0, empty: int = 0) -> Findings:
    found = Findings(valid=valid)
    for number in range(missing):
        found.add_invalid(f"records.jsonl line {number}", "field 'response' is missing", "missing field")
    for number in range(empty):
        found.add_invalid(f"records.jsonl line {missing + number}", "field 'response' is empty", "no answer")
    return found


def refusal(found: Findings, **fields: object) -> StageError:
    with pytest.raises(StageError) as caught:
        refuse(found, dataset(**fields), ["records.jsonl"])
    assert caught.value.code == ExitCode.DATA
    return caught.value


def test_the_message_lists_five_and_counts_all_by_kind() -> None:
    error = refusal(findings(1, missing=28, empty=2))
    assert error.reason == "InvalidData"
    assert error.message.startswith("30 of 31 records cannot be used (missing field 28, no answer 2): records.jsonl ")
    assert error.message.count("field 'response' is missing") == 5
    assert "and 25 more. Correct them, or set dataset.onInvalid to skip." in error.message


def test_the_log_lists_twenty_and_counts_all_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    findings(1, missing=28, empty=2).log()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "--- 30 of 31 records cannot be used ---"
    assert lines[1:21] == [f"records.jsonl line {number}: field 'response' is missing" for number in range(20)]
    assert lines[21:] == ["and 10 more", "by kind: missing field 28, no answer 2"]


def test_nothing_is_logged_where_all_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    findings(3).log()
    assert capsys.readouterr().out == ""


BOUNDS = {
    "none is invalid": (findings(10), "0", None),
    "exactly as many as are accepted": (findings(9, missing=1), "0.1", None),
    "one more than is accepted": (findings(8, missing=2), "0.1", "TooManyInvalidRecords"),
    "one where none is accepted": (findings(999, missing=1), "0", "TooManyInvalidRecords"),
    "nothing but invalid ones": (findings(0, missing=3), "0.99", "EmptyDataset"),
    "nothing at all": (findings(0), "0.1", "EmptyDataset"),
}


@pytest.mark.parametrize(("found", "fraction", "reason"), BOUNDS.values(), ids=BOUNDS)
def test_skipping_is_bounded(found: Findings, fraction: str, reason: str | None) -> None:
    fields = {"onInvalid": "skip", "maxInvalidFraction": fraction}
    if reason is None:
        refuse(found, dataset(**fields), ["records.jsonl"])
    else:
        assert refusal(found, **fields).reason == reason


def test_too_many_are_refused_with_the_counts_and_both_ways_out() -> None:
    message = refusal(findings(8, missing=1, empty=1), onInvalid="skip").message
    assert message.startswith("2 of 10 records cannot be used (missing field 1, no answer 1), more than ")
    assert "more than dataset.maxInvalidFraction 0.1 of them: records.jsonl line 0: field 'response'" in message
    assert message.endswith("Correct them, or raise maxInvalidFraction.")


texts = st.text(st.characters(exclude_categories=()), max_size=3000)  # halves of surrogate pairs as well
found_anything = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=12)


@settings(deadline=None, max_examples=50)
@given(found_anything, texts, st.sampled_from([{}, {"onInvalid": "skip"}]))
def test_whatever_records_and_files_are_called_the_message_fits_and_nothing_of_it_is_cut(
    found: list[tuple[str, str, str]], file: str, fields: dict[str, str]
) -> None:
    counted = Findings()
    for place, reason, kind in found:
        counted.add_invalid(place, reason, printable(kind))
    with pytest.raises(StageError) as caught:
        refuse(counted, dataset(**fields), [printable(file)] * 5)
    told = Outcome.decode(caught.value.outcome().encode())
    assert told
    assert told.message == caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.outcome().encode().encode()) <= LIMIT


@given(texts, st.integers(10, 500), st.booleans())
def test_a_sentence_is_cut_by_the_bytes_it_takes(text: str, limit: int, keep_end: bool) -> None:
    clean = printable(text)
    cut = shortened(clean, limit, keep_end=keep_end)
    assert len(json.dumps(cut, ensure_ascii=False).encode()) - 2 <= limit
    kept = cut.removeprefix("…") if keep_end else cut.removesuffix("…")
    assert clean.endswith(kept) if keep_end else clean.startswith(kept)


def test_of_a_long_place_the_number_is_kept_and_of_a_long_reason_the_field() -> None:
    found = Findings()
    found.add_invalid(f"{'n' * 250}.jsonl line 7", f"field 'response' is not a text but {'x' * 500}", "wrong type")
    place, _, reason = found.first[0].partition(": ")
    assert place.endswith(".jsonl line 7")
    assert len(place.encode()) <= PLACE
    assert reason.startswith("field 'response' is not a text but xxx")
    assert len(found.first[0].encode()) <= SENTENCE


def test_kinds_beyond_the_eighth_are_counted_together() -> None:
    found = Findings()
    for number in range(12):
        for _ in range(20 - number):
            found.add_invalid("f line 1", "is wrong", f"kind {number}")
    assert found.counts.startswith("kind 0 20, kind 1 19, ")
    assert found.counts.endswith(f"kind 7 13, others {12 + 11 + 10 + 9}")
