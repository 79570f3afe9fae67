"""Guessing saves passes, and never changes an answer."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.train.decoding import Answer, Tokens

END = 0
LIMIT = 12

Model = Callable[[Tokens], int]
"""The likeliest token after a text."""


def greedy(model: Model, prompt: Tokens) -> Tokens:
    """Token by token."""
    tokens: Tokens = []
    while len(tokens) < LIMIT and tokens[-1:] != [END]:
        tokens.append(model(prompt + tokens))
    return tokens


def completed(model: Model, prompt: Tokens, guess: Tokens) -> tuple[Tokens, int]:
    """The answer, and the passes that it took."""
    answer, passes = Answer(prompt, guess, END, LIMIT), 0
    while not answer.finished:
        document = answer.document
        answer.take([model(document[: end + 1]) for end in range(len(document) - answer.open, len(document))])
        passes += 1
    return answer.tokens, passes


def learned(prompt: Tokens, answer: Tokens) -> Model:
    """A model that knows one answer by heart."""
    return lambda text: (answer + [END] * 99)[len(text) - len(prompt)]


def counting(text: Tokens) -> int:
    """A model that counts up from the last token, and never ends."""
    return text[-1] + 1


tokens = st.lists(st.integers(0, 3), max_size=20)


@given(prompt=st.lists(st.integers(1, 3), min_size=1, max_size=5), guess=tokens, salt=st.integers())
def test_whatever_is_guessed_the_answer_is_the_greedy_one(prompt: Tokens, guess: Tokens, salt: int) -> None:
    def model(text: Tokens) -> int:
        return hash((salt, *text)) % 4

    answer, passes = completed(model, prompt, guess)
    assert answer == greedy(model, prompt)
    assert 1 <= passes <= len(answer)


@pytest.mark.parametrize(
    ("model", "guess", "answer", "passes"),
    [
        (learned([5], [7, 8, 9]), [7, 8, 9], [7, 8, 9, END], 1),
        (learned([5], [7, 8, 9]), [7, 1, 1], [7, 8, 9, END], 2),
        (learned([5], [7, 8, 9]), [], [7, 8, 9, END], 3),
        (lambda text: 4, [], [4] * LIMIT, 2),
        (counting, [1, 1], list(range(6, 6 + LIMIT)), LIMIT),
        (learned([5], []), [7, 8], [END], 1),
        (learned([5], [7] * 40), [7] * 40, [7] * LIMIT, 1),
    ],
    ids=[
        "a right guess takes one pass",
        "one that goes wrong goes on with what the model said",
        "no guess at all",
        "a model that repeats itself is guessed soon",
        "a model that no guess fits takes a pass a token",
        "an answer that ends at once",
        "a guess longer than the limit",
    ],
)
def test_passes(model: Model, guess: Tokens, answer: Tokens, passes: int) -> None:
    assert completed(model, [5], guess) == (answer, passes)
