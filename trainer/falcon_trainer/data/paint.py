"""How a look at the data is drawn: in colours on a terminal, with marks everywhere else."""

from dataclasses import dataclass
from itertools import groupby

RESET, DIM, BOLD, TRAINED, BLUE, CYAN = ("\x1b[0m", "\x1b[2m", "\x1b[1m", "\x1b[32m", "\x1b[34m", "\x1b[36m")
WIDTH = 110
"""Columns of wrapped lines."""
GAP = "  "
BAR = 64
"""Columns of a row's bar."""


@dataclass(frozen=True)
class Paint:
    """Colours, or the marks that stand for them: what is trained is green, or between » and «."""

    colour: bool = False

    def heading(self, text: str) -> str:
        return self._in(BOLD, text) if self.colour else f"--- {text} ---"

    def trained(self, text: str) -> str:
        return self._in(TRAINED, text) if self.colour else f"»{text}«"

    def words(self, words: list[tuple[str, bool]]) -> str:
        """Words, each with whether it is trained, in lines of WIDTH columns."""
        lines: list[list[tuple[str, bool]]] = [[]]
        columns = 0
        for word in words:
            if columns and columns + len(word[0]) > WIDTH:
                lines.append([])
                columns = 0
            lines[-1].append(word)
            columns += len(word[0]) + len(GAP)
        return "\n".join(self._line(line) for line in lines)

    def _line(self, words: list[tuple[str, bool]]) -> str:
        runs = [
            (trained, GAP.join(text for text, _ in run)) for trained, run in groupby(words, key=lambda word: word[1])
        ]
        return GAP.join(self.trained(text) if trained else text for trained, text in runs)

    def bar(self, lengths: list[int], capacity: int) -> str:
        """A row as a bar: its documents in turn dark and light, what is left empty as dots."""
        ends = [round(BAR * sum(lengths[: index + 1]) / capacity) for index in range(len(lengths))]
        drawn, start = [], 0
        for index, end in enumerate(ends):
            drawn.append(self._block(index, end - start))
            start = end
        return "".join(drawn) + (self._in(DIM, "·" * (BAR - start)) if self.colour else "·" * (BAR - start))

    def _block(self, index: int, columns: int) -> str:
        if self.colour:
            return self._in((BLUE, CYAN)[index % 2], "█" * columns)
        return "█▒"[index % 2] * columns

    def _in(self, code: str, text: str) -> str:
        """Line by line: a pager forgets a colour at the end of a line."""
        return "\n".join(f"{code}{line}{RESET}" if line else line for line in text.split("\n"))
