"""The termination message and the files behind it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_trainer.config import Publication
from falcon_trainer.endings import read_endings, write_ending
from falcon_trainer.outcome import LIMIT, RETRYABLE, ExitCode, Outcome, StageError


@settings(deadline=None)
@given(st.text(max_size=6000))
def test_a_message_of_any_length_fits_a_termination_message_and_reads_back(message: str) -> None:
    outcome = Outcome(reason="InternalError", message=message, result={"step": 3})
    text = outcome.encode()
    assert len(text.encode()) <= LIMIT
    read = Outcome.decode(text)
    assert read is not None
    assert read.result == {"step": 3}
    assert read.message == message or " … " in read.message


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        lambda text, size: (text * size)[:size],
        st.text(alphabet=st.sampled_from(["a", '"', "\n", "\x00", "ß", "🦅"]), min_size=1, max_size=60),
        st.integers(4000, 9000),
    )
)
def test_a_cut_message_uses_most_of_the_room(message: str) -> None:
    assert LIMIT - 32 <= len(Outcome(reason="InternalError", message=message).encode().encode()) <= LIMIT


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    read = Outcome.decode(Outcome(reason="X", message="begin " + "x" * 9000 + " end").encode())
    assert read is not None
    assert read.message.startswith("begin ")
    assert read.message.endswith(" end")


@pytest.mark.parametrize("text", ["", "Killed", "{}", "[]", '{"reason": "lower case", "message": ""}'])
def test_another_programs_last_words_are_no_outcome(text: str) -> None:
    assert Outcome.decode(text) is None


@pytest.mark.parametrize("code", list(ExitCode))
def test_a_stage_error_can_be_tried_again_exactly_where_its_code_says_so(code: ExitCode) -> None:
    outcome = StageError(code, "Reason", "message", step=4).outcome(rank=2)
    assert outcome.retryable is (code in RETRYABLE)
    assert (outcome.step, outcome.rank) == (4, 2)


def test_endings_are_read_back_and_what_is_broken_is_left_out(tmp_path: Path) -> None:
    write_ending(0, 0, Outcome(reason="Completed", message="done"), tmp_path)
    write_ending(5, 65, Outcome(reason="BrokenRecord", message="line 7"), tmp_path)
    (tmp_path / "outcome-6.json").write_text('{"rank": 6, "co')
    endings = read_endings(tmp_path)
    assert {rank: ending.code for rank, ending in endings.items()} == {0: 0, 5: 65}
    assert endings[0].time <= endings[5].time
    assert {path.name for path in tmp_path.iterdir()} == {f"outcome-{rank}.json" for rank in (0, 5, 6)}


def test_no_endings_where_nothing_ran(tmp_path: Path) -> None:
    assert read_endings(tmp_path / "nowhere") == {}


def test_the_wire_form_leaves_absent_fields_out() -> None:
    assert json.loads(Outcome(reason="X", message="m").encode()) == {"reason": "X", "message": "m", "retryable": False}


def test_what_is_told_of_the_longest_publications_fits_a_termination_message() -> None:
    (longest,) = [
        bound.max_length for bound in Publication.model_fields["uri"].metadata if hasattr(bound, "max_length")
    ]
    told = {"what": "adapter", "digest": f"sha256:{'0' * 64}", "bytes": 10**12, "revision": "0" * 40}
    uri = "s3://bucket/" + "x" * (longest - len("s3://bucket/"))
    assert Publication(uri=uri)
    result = {"published": [{"uri": uri, **told}] * 8}
    assert (
        len(Outcome(reason="Completed", message="publish completed", rank=0, result=result).encode().encode()) < LIMIT
    )
