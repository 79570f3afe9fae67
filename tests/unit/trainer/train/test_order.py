"""The order of rows, and the steps made of it: pure functions, the same for any number of ranks."""

from pathlib import Path

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, SequentialSampler

from falcon_trainer.config import Training
from falcon_trainer.data.packing import one_each
from falcon_trainer.data.store import DocumentWriter, PackedRows, write_plan
from falcon_trainer.data.tokenization import Tokens
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train.batching import accumulation_steps, total_steps
from falcon_trainer.train.order import RowOrder, TrainingRows


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 3))
def test_each_epoch_reads_every_row_once(rows: int, seed: int, epoch: int) -> None:
    order = RowOrder(rows, seed)
    assert sorted(order.rows(epoch * rows, (epoch + 1) * rows)) == list(range(rows))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 5), st.lists(st.integers(0, 200), min_size=1, max_size=30))
def test_a_place_has_its_row_whatever_was_read_before(rows: int, seed: int, places: list[int]) -> None:
    fresh = [RowOrder(rows, seed).row(place) for place in places]
    used = RowOrder(rows, seed)
    assert [used.row(place) for place in places] == fresh


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    assert RowOrder(50, 0).rows(0, 50) != RowOrder(50, 0).rows(50, 100)
    assert RowOrder(50, 0).rows(0, 50) != RowOrder(50, 1).rows(0, 50)


SKIPPED = st.sets(st.integers(0, 12), max_size=5)


@settings(deadline=None)
@given(rows=st.integers(1, 30), batch_size=st.integers(1, 8), steps=st.integers(1, 12), skipped=SKIPPED)
def test_no_row_is_lost_or_trained_twice_but_those_of_skipped_batches(
    rows: int, batch_size: int, steps: int, skipped: set[int]
) -> None:
    order, uncut = RowOrder(rows, 7, batch_size, skipped), RowOrder(rows, 7, batch_size)
    trained = [order.of_step(step) for step in range(1, steps + 1)]
    numbers = [number for number in range(steps + len(skipped)) if number not in skipped]
    assert trained == [uncut.of_step(number + 1) for number in numbers[:steps]]
    assert [order.batch(step) for step in range(1, steps + 1)] == numbers[:steps]


@settings(deadline=None)
@given(rows=st.integers(1, 30), batch_size=st.integers(1, 8), bad=st.integers(1, 10), skipped=SKIPPED)
def test_skipping_a_step_moves_up_what_follows_and_leaves_what_was_before(
    rows: int, batch_size: int, bad: int, skipped: set[int]
) -> None:
    """So a checkpoint from before the step fits the new order, and several skips may follow one another."""
    before = RowOrder(rows, 7, batch_size, skipped)
    after = RowOrder(rows, 7, batch_size, skipped | {before.batch(bad)})
    for step in range(1, 15):
        assert after.of_step(step) == before.of_step(step if step < bad else step + 1)


def test_before_the_first_step_no_batch_is_trained() -> None:
    assert RowOrder(8, 0, 4, [0, 1]).batch(0) == -1


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_the_rows_of_a_step_are_the_same_for_any_number_of_ranks(world_size: int) -> None:
    """As accelerate deals micro-batches out to the ranks: the set of each global batch must not change."""
    global_batch, micro_batch, steps = 12, 2, 5
    accumulation = accumulation_steps(
        Training(global_batch_size=global_batch, micro_batch_size=micro_batch), world_size
    )
    places = range(steps * global_batch)
    ranks = [
        list(BatchSamplerShard(BatchSampler(SequentialSampler(places), micro_batch, False), world_size, rank))
        for rank in range(world_size)
    ]
    for step in range(steps):
        mine = [batch for rank in ranks for batch in rank[step * accumulation : (step + 1) * accumulation]]
        assert sorted(place for batch in mine for place in batch) == list(
            range(step * global_batch, (step + 1) * global_batch)
        )


def test_training_rows_end_where_the_run_ends(tmp_path: Path) -> None:
    writer = DocumentWriter(tmp_path)
    for number in range(3):
        writer.add(Tokens([number + 1] * 4, [1, 4]))
    writer.close()
    write_plan(tmp_path, one_each(3))
    rows = TrainingRows(PackedRows(tmp_path), RowOrder(3, 0), 8)
    assert len(rows) == 8
    first = [int(rows[place]["input_ids"][0]) for place in range(3)]
    assert sorted(first) == [1, 2, 3]
    with pytest.raises(IndexError):
        rows[8]


@pytest.mark.parametrize(
    ("training", "rows", "steps"),
    [
        pytest.param({"epochs": 3, "global_batch_size": 8}, 8, 3, id="whole batches"),
        pytest.param({"epochs": 3, "global_batch_size": 8}, 7, 3, id="the last batch is filled up"),
        pytest.param({"epochs": 1, "global_batch_size": 64}, 5, 1, id="fewer rows than a batch"),
        pytest.param({"global_batch_size": 2}, 4, 6, id="three epochs by default"),
        pytest.param({"max_steps": 17}, 4, 17, id="steps as told"),
    ],
)
def test_total_steps(training: dict[str, int], rows: int, steps: int) -> None:
    assert total_steps(Training(**training), rows) == steps


@pytest.mark.parametrize(
    ("batch", "micro", "world", "advice"),
    [
        pytest.param(10, 4, 2, "is not a multiple of 8 (microBatchSize 4 x 2 ranks): take 8 or 16.", id="in between"),
        pytest.param(4, 4, 2, "take 8.", id="too small"),
    ],
)
def test_a_global_batch_that_does_not_divide_is_refused(batch: int, micro: int, world: int, advice: str) -> None:
    with pytest.raises(StageError) as caught:
        accumulation_steps(Training(global_batch_size=batch, micro_batch_size=micro), world)
    assert caught.value.code == ExitCode.CONFIGURATION
    assert advice in caught.value.message
