"""A micro-batch is as long as its longest row, and its padding is a document of its own."""

import numpy as np
import torch

from falcon_trainer.model.packed import PackedFalcon
from falcon_trainer.train.collate import MULTIPLE, collate
from tests.unit.trainer.workshop import small_falcon


def row(*documents: int) -> dict[str, np.ndarray]:
    """A row of documents of these lengths; the second half of each is trained."""
    ids = np.arange(1, sum(documents) + 1)
    positions = np.concatenate([np.arange(length) for length in documents])
    trained = np.concatenate([np.arange(length) >= length // 2 for length in documents])
    return {"input_ids": ids, "position_ids": positions, "labels": np.where(trained, ids, -100)}


def test_rows_are_padded_to_the_longest_and_padding_is_not_trained() -> None:
    batch = collate([row(3, 4), row(9)])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (2, 2 * MULTIPLE),
        "position_ids": (2, 2 * MULTIPLE),
        "labels": (2, 2 * MULTIPLE),
    }
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 0, 1, 2, 3, *range(9)]
    assert (batch["labels"][0, 7:] == -100).all()
    assert (batch["labels"][1, 9:] == -100).all()


def test_the_loss_of_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    model: PackedFalcon = small_falcon()
    rows = [row(3, 4), row(30), row(5)]
    with torch.inference_mode():
        together = model(**collate(rows), num_items_in_batch=torch.tensor(10.0))["loss"]
        alone = sum(model(**collate([one]), num_items_in_batch=torch.tensor(10.0))["loss"] for one in rows)
    assert torch.allclose(together, alone, rtol=1e-6)
