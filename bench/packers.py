"""What ours is compared with: the bound that no packer can beat, and first-fit-decreasing as compiled code."""

from typing import Any

import numba
import numpy as np

from falcon_trainer.data.packing import Ints

GROUP = 100_000
"""Documents that are packed together, axolotl's default (`group_size` of its multipack sampler)."""


def lower_bound(lengths: Ints, capacity: int) -> int:
    """Rows that any packing of whole documents needs: the larger of ceil(sum / capacity) and Martello and Toth's L2.

    L2 (Martello, Toth 1990, "Lower bounds and reduction procedures for the bin packing problem"): for each k up to half
    a row, documents longer than a row less k are alone; those longer than half a row are never together; of what is
    from k to half a row, only so much fits beside the latter.
    """
    histogram = np.bincount(lengths, minlength=capacity + 1).astype(np.int64)
    counts, tokens = np.cumsum(histogram), np.cumsum(histogram * np.arange(capacity + 1))
    half = capacity // 2
    k = np.arange(1, half + 1)
    longer_than_half = counts[-1] - counts[half]
    beside = (counts[capacity - k] - counts[half]) * capacity - (tokens[capacity - k] - tokens[half])
    small = tokens[half] - tokens[k - 1]
    l2 = longer_than_half + np.maximum(0, -((beside - small) // capacity)).max()
    return max(-(-int(tokens[-1]) // capacity), int(l2))


def _first_fit(sizes: Ints, capacity: int, row_of: Ints) -> int:
    """Each document into the first row with room; rows are looked through one after the other."""
    free = np.empty(len(sizes), np.int32)
    rows = 0
    for document in range(len(sizes)):
        row = 0
        while row < rows and free[row] < sizes[document]:
            row += 1
        if row == rows:
            free[rows] = capacity
            rows += 1
        free[row] -= sizes[document]
        row_of[document] = row
    return rows


_compiled: Any = numba.njit(_first_fit)


def first_fit_decreasing(lengths: Ints, capacity: int) -> tuple[Ints, int]:
    """Row of each document and number of rows; groups of documents are packed one after the other."""
    row_of, rows = np.empty(len(lengths), np.int64), 0
    for start in range(0, len(lengths), GROUP):
        group = lengths[start : start + GROUP]
        order = np.argsort(-group, kind="stable")
        placed = np.empty(len(group), np.int64)
        opened: int = _compiled(group[order], capacity, placed)
        row_of[start + order] = rows + placed
        rows += opened
    return row_of, rows
