"""Curves made fit to look at: 100,000 steps become as many points as a screen can show."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

POINTS = 1600
"""Points of a drawn curve: two for each of 800 columns."""
SMOOTHEST, SHORTEST = 40, 5
"""The mean that is drawn over a noisy curve spans a fortieth of it, and at least five steps."""

Array = NDArray[np.float64]


def thinned(x: Array, y: Array, points: int = POINTS) -> tuple[Array, Array]:
    """At most `points` of a curve: the lowest and the highest of each of points / 2 equal stretches.

    Every spike stays, which picking each n-th point would lose.
    """
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), points // 2 + 1).astype(int)
    kept = [
        start + place
        for start, end in pairwise(edges.tolist())
        for place in sorted({int(np.argmin(y[start:end])), int(np.argmax(y[start:end]))})
    ]
    return x[kept], y[kept]


def span(length: int) -> int:
    """Steps that the mean of a curve of `length` points spans, an odd number."""
    return max(SHORTEST, length // SMOOTHEST) // 2 * 2 + 1


def smoothed(y: Array, width: int) -> Array:
    """Mean of the values less than `width` / 2 away from each one: it does not lag behind as a running mean does."""
    places = np.arange(len(y))
    first, end = np.maximum(places - width // 2, 0), np.minimum(places + width // 2 + 1, len(y))
    sums = np.concatenate(([0.0], np.cumsum(y)))
    mean: Array = (sums[end] - sums[first]) / (end - first)
    return mean
