"""Which prompts are put to the model, and when none are."""

import json
from itertools import count
from pathlib import Path

import pytest

from falcon_trainer.beats import Beats
from falcon_trainer.report.samples import NEW_TOKENS, Samples, read_samples
from falcon_trainer.train.answering import LONGEST_PROMPT, TRIES, Patience, Questions
from tests.unit.trainer.workshop import tokenizer


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    return start(tmp_path)


def start(root: Path, *prompts: str) -> Questions:
    """A start of the run; the prompts are those that prepare stored."""
    tokenizer().save_pretrained(root / "model")
    records = [{"prompt": prompt, "answer": "A city."} for prompt in prompts or ("What is Paris?", "What is Rome?")]
    (root / "prompts.json").write_text(json.dumps(records))
    return Questions(root / "prompts.json", root / "report", root / "model", Beats("train", directory=root))


def known(root: Path) -> Samples:
    found = read_samples(root / "report")
    assert found
    return found


def test_at_first_every_prompt_is_asked_with_the_record_as_the_guess(questions: Questions, tmp_path: Path) -> None:
    asked = questions.wanted("before", 0)
    assert asked
    assert [tokenizer().decode(answer.prompt) for answer in asked.values()] == ["What is Paris?", "What is Rome?"]
    assert all(tokenizer().decode(answer.guess) == "A city." for answer in asked.values())
    assert all(answer.limit == NEW_TOKENS for answer in asked.values())
    assert known(tmp_path).tries == {"before": 1}


def test_what_is_answered_is_not_asked_again(questions: Questions, tmp_path: Path) -> None:
    questions.wanted("before", 0)
    known(tmp_path).answered("before", {0: "yes", 1: ""}).write(tmp_path / "report")
    assert start(tmp_path).wanted("before", 0) is None
    after = start(tmp_path).wanted("after", 6)
    assert after
    assert len(after) == 2


def test_a_resumed_training_cannot_ask_the_base_any_more(questions: Questions, tmp_path: Path) -> None:
    assert questions.wanted("before", 3) is None
    assert start(tmp_path).wanted("before", 3) is None
    assert known(tmp_path).notes == ["The base was not asked: the training went on from step 3."]


def test_attempts_that_end_while_answering_do_not_go_on_for_ever(tmp_path: Path) -> None:
    for _ in range(TRIES):
        assert start(tmp_path).wanted("before", 0)
    assert start(tmp_path).wanted("before", 0) is None
    assert "attempts came to their end while answering" in known(tmp_path).notes[0]


def test_prompts_without_text_and_endless_ones_are_left_out_with_a_note(tmp_path: Path) -> None:
    asked = start(tmp_path, "", "What is Rome?", "word " * LONGEST_PROMPT).wanted("before", 0)
    assert asked
    assert len(asked) == 1
    assert [sample.prompt for sample in known(tmp_path).samples] == ["What is Rome?"]
    assert len(known(tmp_path).notes) == 1


def test_where_none_can_be_asked_nothing_is(tmp_path: Path) -> None:
    assert start(tmp_path, "").wanted("before", 0) is None
    assert start(tmp_path, "").wanted("after", 6) is None
    assert known(tmp_path).samples == []


@pytest.mark.parametrize(
    ("seconds_of_a_pass", "passes"),
    [(0.01, 150), (0.05, 30), (0.25, 8), (1, 8), (3, 8), (5, 7), (10, 4), (40, 1)],
    ids=["tiny", "small", "slow hooks", "a second", "three seconds", "five seconds", "ten seconds", "longer than all"],
)
def test_patience_ends_sooner_with_slower_passes_but_not_before_the_first_few(
    seconds_of_a_pass: float, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0, seconds_of_a_pass)
    monkeypatch.setattr("falcon_trainer.train.answering.time.monotonic", lambda: next(clock))
    patience = Patience()
    done = next(number for number in count(1) if patience.over())
    assert done == pytest.approx(passes, abs=1)
