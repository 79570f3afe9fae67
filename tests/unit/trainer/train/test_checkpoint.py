"""Which checkpoint a run goes on from, and which ones stay."""

from pathlib import Path
from typing import Any

import pytest
import torch

from falcon_trainer.layout import RunLayout
from falcon_trainer.train.checkpoint import TRAINED, CheckpointWriter, found, newest_valid, remove_stale_drafts

IDENTITY = "ours"


class State:
    """Stands for the Trainer's state."""

    def save_to_json(self, path: str) -> None:
        Path(path).write_text("{}")


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout("run", tmp_path)


def save(
    layout: RunLayout, attempt: int, step: int, *, pod: str = "pod", identity: str = IDENTITY, keep: int = 9
) -> Path:
    writer = CheckpointWriter(layout, layout.incarnation(attempt, pod), identity, keep)
    tensors = {"weight.fp32": torch.full((2, 2), float(step))}
    random_states: list[Any] = [{"cpu": torch.get_rng_state()}]
    return writer.save(step, tensors, {"adamStep": step}, State(), random_states)


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


def test_a_damaged_one_is_passed_over_for_the_one_before_and_said(
    layout: RunLayout, caplog: pytest.LogCaptureFixture
) -> None:
    save(layout, 0, 5)
    damaged = save(layout, 0, 10) / TRAINED
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")  # same size
    assert name(layout) == "0-pod/checkpoint-5"
    assert "Passing over the damaged" in caplog.text
    assert TRAINED in caplog.text


def test_a_folder_without_manifest_and_a_draft_do_not_count(layout: RunLayout) -> None:
    save(layout, 0, 5)
    (layout.attempts / "0-pod" / "checkpoint-7").mkdir()
    whole = save(layout, 0, 9)
    whole.rename(whole.with_name(".checkpoint-9.pod-1.draft"))
    assert name(layout) == "0-pod/checkpoint-5"


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
    drafts = [layout.incarnation(attempt, "pod") / ".checkpoint-5.host-1.draft" for attempt in (1, 2)]
    for draft in drafts:
        draft.mkdir(parents=True)
    remove_stale_drafts(layout, 2)
    assert [draft.exists() for draft in drafts] == [False, True]
