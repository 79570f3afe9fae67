"""Who measures which validation rows: the same micro-batches for every gang, as many rounds on every rank."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.train.evaluation import micro_batches, share

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)
SIZES = st.integers(1, 9)


@given(LENGTHS, SIZES)
def test_every_row_is_measured_once_with_rows_of_its_length_the_longest_first(lengths: list[int], size: int) -> None:
    batches = micro_batches(np.array(lengths), size)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    assert all(len(batch) == size for batch in batches[:-1])


@given(LENGTHS, SIZES, SIZES)
def test_all_ranks_run_as_many_forward_passes_and_share_every_micro_batch(
    lengths: list[int], size: int, world_size: int
) -> None:
    batches = micro_batches(np.array(lengths), size)
    shares = [share(batches, rank, world_size) for rank in range(world_size)]
    rounds = {len(each) for each in shares}
    assert rounds == {-(-len(batches) // world_size)}
    assert sorted(batch for each in shares for batch in each if batch) == sorted(batches)
    idle = [number for each in shares for number, batch in enumerate(each) if batch is None]
    assert all(number == rounds.copy().pop() - 1 for number in idle)
