"""Which checkpoint a run goes on from, and which ones stay."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_trainer.layout import RunLayout
from falcon_trainer.train.checkpoint import (
    TRAINED,
    best,
    best_valid,
    found,
    newest_valid,
    remove,
    remove_stale_drafts,
    standing_at,
)
from falcon_trainer.train.standing import Standing
from falcon_trainer.train.writer import CheckpointWriter, Snapshot

IDENTITY = "ours"


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout("run", tmp_path)


def save(
    layout: RunLayout,
    attempt: int,
    step: int,
    *,
    pod: str = "pod",
    identity: str = IDENTITY,
    keep: int = 9,
    loss: float | None = None,
    state: dict[str, Any] | None = None,
) -> Path:
    writer = CheckpointWriter(layout, layout.incarnation(attempt, pod), identity, keep)
    tensors = {"weight.fp32": torch.full((2, 2), float(step))}
    random_states: list[Any] = [{"cpu": torch.get_rng_state()}]
    text = json.dumps(state or {"adamStep": step})
    return writer.save(Snapshot(step, tensors, text, "{}", random_states, evaluation_loss=loss))


def name(layout: RunLayout) -> str | None:
    newest = newest_valid(layout, IDENTITY)
    return str(newest.path.relative_to(layout.attempts)) if newest else None


def test_there_is_none_at_first(layout: RunLayout) -> None:
    assert name(layout) is None


def test_the_newest_step_of_all_incarnations_counts(layout: RunLayout) -> None:
    save(layout, 0, 5)
    save(layout, 1, 20, pod="a")
    save(layout, 2, 10)
    assert name(layout) == "1-a/checkpoint-20"


def test_of_equal_steps_the_later_attempts_counts(layout: RunLayout) -> None:
    save(layout, 9, 5)
    save(layout, 10, 5)
    assert name(layout) == "10-pod/checkpoint-5"


def test_a_checkpoint_of_other_settings_does_not_count(layout: RunLayout) -> None:
    save(layout, 0, 5)
    save(layout, 0, 10, identity="theirs")
    assert name(layout) == "0-pod/checkpoint-5"


def test_only_the_newest_are_kept_over_all_incarnations(layout: RunLayout) -> None:
    for attempt, step in ((0, 5), (0, 10), (1, 15), (1, 20)):
        save(layout, attempt, step, keep=2)
    assert [checkpoint.step for checkpoint in found(layout)] == [20, 15]


def test_a_damaged_newest_one_does_not_push_the_good_ones_out(layout: RunLayout) -> None:
    save(layout, 0, 5)
    (save(layout, 0, 10) / TRAINED).write_bytes(b"damaged")
    assert name(layout) == "0-pod/checkpoint-5"
    save(layout, 1, 7, keep=1)
    assert name(layout) == "1-pod/checkpoint-7"


def test_what_earlier_attempts_left_half_written_goes_and_what_this_one_writes_stays(layout: RunLayout) -> None:
    names = (".checkpoint-5.host-1.draft", ".removed-checkpoint-1")
    left = [layout.incarnation(attempt, "pod") / name for attempt in (1, 2) for name in names]
    for folder in left:
        folder.mkdir(parents=True)
    told: list[str] = []
    remove_stale_drafts(layout, 2, told.append)
    assert [folder.exists() for folder in left] == [False, False, True, True]
    assert len(told) == 1, "an old checkpoint that was being deleted is no news"
    assert told[0].startswith("Checkpoint 1-pod/.checkpoint-5.host-1.draft was only half written")


def test_a_checkpoint_that_is_being_deleted_is_none_for_readers(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(layout, 0, 5)
    monkeypatch.setattr("falcon_trainer.train.checkpoint.shutil.rmtree", lambda *_, **__: None)  # killed before
    remove(path)
    told: list[str] = []
    assert newest_valid(layout, IDENTITY, told.append) is None
    assert told == []


def steps(layout: RunLayout) -> list[int]:
    return [checkpoint.step for checkpoint in found(layout)]


def test_the_best_stays_beside_the_newest_and_is_one(layout: RunLayout) -> None:
    for step, loss in ((5, 3.0), (10, 2.0), (15, None), (20, 2.5), (25, 1.0), (30, None), (35, 1.0), (40, None)):
        save(layout, step // 20, step, keep=1, loss=loss)
        if step == 20:
            assert steps(layout) == [20, 10]
    assert steps(layout) == [40, 25]


def test_a_best_among_the_newest_takes_no_place_beside_them(layout: RunLayout) -> None:
    for step, loss in ((5, 3.0), (10, None), (15, 2.0), (20, None)):
        save(layout, 0, step, keep=2, loss=loss)
    assert steps(layout) == [20, 15]


def test_the_best_of_a_run_with_other_settings_does_not_count(layout: RunLayout) -> None:
    save(layout, 0, 5, identity="theirs", loss=0.5)
    save(layout, 0, 10, loss=2.0)
    found_best = best(layout, IDENTITY)
    assert found_best
    assert (found_best.step, found_best.evaluation_loss) == (10, 2.0)


def test_a_damaged_best_is_passed_over_for_the_next_best(layout: RunLayout) -> None:
    for step, loss in ((5, 2.0), (10, 1.0), (15, 3.0)):
        path = save(layout, 0, step, loss=loss)
        if step == 10:
            (path / TRAINED).write_bytes(b"damaged")
    chosen = best_valid(layout, IDENTITY)
    assert chosen
    assert chosen.step == 5


def test_a_best_that_is_lost_gives_way_to_the_best_that_the_volume_holds(layout: RunLayout) -> None:
    """Else no later adapter could become the best one: all would be measured against weights that are gone."""
    save(layout, 0, 5, loss=2.0)
    standing = Standing().after(5, 2.0, None).after(10, 1.0, None).after(15, 3.0, None)
    save(layout, 0, 15, loss=3.0, state={"evaluation": standing.to_wire()})
    newest = newest_valid(layout, IDENTITY)
    assert newest
    resumed = standing_at(newest, layout, IDENTITY)
    assert (resumed.best_step, resumed.best_loss) == (5, 2.0)
    assert (resumed.step, resumed.reference, resumed.waited) == (15, 1.0, 1)


def test_a_checkpoint_that_is_written_again_with_its_evaluation_counts_before_the_first_one(layout: RunLayout) -> None:
    save(layout, 0, 5)
    save(layout, 0, 5, loss=2.0)
    newest = newest_valid(layout, IDENTITY)
    assert newest
    assert newest.evaluation_loss == 2.0
