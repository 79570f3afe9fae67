"""From rows to a micro-batch: padded to its longest row and no further, so that a short row costs what it holds."""

from collections.abc import Sequence
from typing import Any

import torch

from falcon_trainer.data.store import IGNORED

MULTIPLE = 8
"""Padded lengths are multiples of it, as tensor cores like them."""


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """`input_ids`, `position_ids`, `labels` of shape [rows, T] from rows of `PackedRows.row`.

    Padding is one more document after the others, seen by none and never trained; its token does not matter.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    length = -(-longest // MULTIPLE) * MULTIPLE
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    labels = torch.full((len(rows), length), IGNORED)
    positions = torch.empty(len(rows), length, dtype=torch.int64)
    for number, row in enumerate(rows):
        used = len(row["input_ids"])
        ids[number, :used] = torch.from_numpy(row["input_ids"])
        labels[number, :used] = torch.from_numpy(row["labels"])
        positions[number, :used] = torch.from_numpy(row["position_ids"])
        positions[number, used:] = torch.arange(length - used)
    return {"input_ids": ids, "position_ids": positions, "labels": labels}
