"""A few examples chosen at random, the same ones in whatever order they come."""

import heapq

from falcon_trainer.data.records import Example


class Samples:
    """The `count` examples of the smallest keys, which are hashes under the run's seed.

    Examples that were cut come last, and of equal ones there is one.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[bool, int, Example]] = []  # the one to give up comes first
        self._keys: set[int] = set()

    def offer(self, example: Example, *, cut: bool) -> None:
        """Takes the example where it is among the best so far."""
        if example.key in self._keys:
            return
        heapq.heappush(self._heap, (not cut, -example.key, example))
        self._keys.add(example.key)
        if len(self._heap) > self._count:
            self._keys.remove(heapq.heappop(self._heap)[2].key)

    def chosen(self) -> list[Example]:
        """The best first."""
        return [example for _, _, example in sorted(self._heap, key=lambda kept: kept[:2], reverse=True)]
