"""When an answer counts as another one than the base's, and the sentence that the status shows."""

import pytest

from falcon_trainer.evaluate.comparison import differs, sentence
from falcon_trainer.evaluate.questions import Question
from falcon_trainer.report.samples import Sample

ANSWERS: dict[str, tuple[str | None, str | None, bool | None]] = {
    "the same": ("Because.", "Because.", False),
    "another": ("Because.", "Rayleigh.", True),
    "white space around it": ("Because.\n", " Because.", False),
    "white space within it": ("a b", "a  b", True),
    "the base was cut where the served model went on": ("Because of …", "Because of scattering.", False),
    "the served model was cut where the base went on": ("Because of scattering.", "Because of …", False),
    "both were cut at the same place": ("Because of …", "Because of …", False),
    "cut, and different before": ("Because it …", "Because of …", True),
    "the served model stops early by itself": ("Because of scattering.", "Because", True),
    "cut within a character": ("Grü\ufffd …", "Grüße", False),
    "the base was cut before its first word": (" …", "Because.", None),
    "the base was not asked": (None, "Because.", None),
    "the served model gave no answer": ("Because.", None, None),
    "both say nothing": ("", "", False),
}


@pytest.mark.parametrize(("before", "served", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_two_answers_differ(before: str | None, served: str | None, expected: bool | None) -> None:
    assert differs(before, served) is expected


def sample(before: str | None, served: str | None) -> Sample:
    return Sample(prompt="p", expected="e", before=before, served=served)


def test_the_sentence_prefers_a_changed_answer() -> None:
    samples = [sample(None, "x"), sample("same", "same"), sample("old", "new")]
    questions = [Question("a"), Question("b"), Question("c")]
    assert sentence(questions, samples) == '"c" is answered with "new", by the base with "old".'
    assert sentence(questions[:2], samples[:2]) == '"b" is answered with "same", by the base with "same".'
    assert sentence(questions[:1], samples[:1]) == '"a" is answered with "x"; the base was not asked.'
    assert sentence([], []) == "No stored prompt could be asked."


def test_the_sentence_fits_a_status_however_long_the_texts_are() -> None:
    long = "word\n" * 5000
    assert len(sentence([Question(long)], [sample(long, long + "x")])) < 400


def test_a_text_without_spaces_is_cut_by_characters() -> None:
    long = "天空为什么是蓝色的" * 50
    said = sentence([Question(long)], [sample(long, "a\n b")])
    assert said.startswith(f'"{long[:98]} …" is answered with "a b", by the base with "{long[:98]} …"')
