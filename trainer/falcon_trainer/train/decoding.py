"""Greedy answers in few passes, for a model whose every pass is dear and which keeps no cache of keys and values.

A pass tells the likeliest token after *each* position. So a guess of the whole answer is checked in one pass: as far as
it agrees with the model it is the answer, and one token more is the model's own. The first guess is the record's
answer; the next is what the last pass said after the place where it went wrong, however wrong its reasons. The answer
is the one that token by token would give: speculative decoding (Leviathan et al. 2023, arXiv 2211.17192) with the
record as draft, then Jacobi decoding (Santilli et al. 2023, arXiv 2305.10427).
"""

from dataclasses import dataclass, field

Tokens = list[int]


@dataclass
class Answer:
    """One answer in the making, of at most `limit` tokens."""

    prompt: Tokens
    guess: Tokens
    end_of_text: int
    limit: int
    tokens: Tokens = field(default_factory=list)
    """What is certain, end-of-text included."""

    def __post_init__(self) -> None:
        self.guess = self.guess[: self.limit - 1]

    @property
    def finished(self) -> bool:
        return len(self.tokens) >= self.limit or self.tokens[-1:] == [self.end_of_text]

    @property
    def document(self) -> Tokens:
        """What the model is to read; never empty, where the prompt is not."""
        return self.prompt + self.tokens + self.guess

    @property
    def open(self) -> int:
        """So many of the document's last positions are asked what comes after them."""
        return len(self.guess) + 1

    def take(self, said: Tokens) -> None:
        """Takes what the model said after each open position."""
        right = next((n for n, guess in enumerate(self.guess) if guess != said[n]), len(self.guess))
        certain = said[: right + 1]
        if self.end_of_text in certain:
            certain = certain[: certain.index(self.end_of_text) + 1]
        self.tokens += certain
        left = max(self.limit - len(self.tokens) - 1, 0)
        self.guess = (said[right + 1 :] + said[-1:] * left)[:left]
