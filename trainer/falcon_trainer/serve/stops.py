"""Stop sequences in a stream of text. Pure."""

from collections.abc import Sequence


class StopFilter:
    """Passes text on until one of `stops` appears, which itself is never passed on.

    Text that may turn out to be the beginning of a stop sequence is held back, and nothing else is. transformers' own
    stopping criterion leaves the sequence in the answer, and prepares tables over the whole vocabulary for it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text that may be passed on now; after a stop sequence `stopped` is set and nothing is."""
        if self.stopped:
            return ""
        self._held += text
        found = [position for stop in self._stops if (position := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._may_begin_stop())

    def rest(self) -> str:
        """What was held back when the text ends."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _may_begin_stop(self) -> int:
        """Length of the longest end of what is held that begins a stop sequence."""
        longest = min(len(self._held), max((len(stop) - 1 for stop in self._stops), default=0))
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
