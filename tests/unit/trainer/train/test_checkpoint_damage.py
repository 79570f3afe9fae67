"""A checkpoint that is not what was written is never loaded: it is told of and put aside, and an older one is used."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falcon_trainer.beats import Beats, read_beats
from falcon_trainer.layout import MANIFEST, RunLayout
from falcon_trainer.train.checkpoint import STATE, TRAINED, TRAINER_STATE, newest_valid
from falcon_trainer.train.damage import teller
from falcon_trainer.train.writer import CheckpointWriter, Snapshot

IDENTITY = "ours"
RANDOM = "rng_state.pth"
FILES = (TRAINED, STATE, TRAINER_STATE, RANDOM)


def save(layout: RunLayout, step: int) -> Path:
    writer = CheckpointWriter(layout, layout.incarnation(1, "pod"), IDENTITY, keep=9)
    tensors = {"weight.fp32": torch.full((2, 2), float(step))}
    return writer.save(Snapshot(step, tensors, '{"adamStep": 1}', "{}", [{"cpu": torch.get_rng_state()}]))


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout("run", tmp_path)


def flip(path: Path, bit: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[bit // 8 % len(contents)] ^= 1 << bit % 8
    path.write_bytes(contents)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def renumber(path: Path) -> None:
    path.write_text(path.read_text().replace('"step": 10', '"step": 90'))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (lambda at: truncate(at / TRAINED), " bytes instead of "),
    "one bit flipped": (lambda at: flip(at / TRAINED, 800), "does not have the contents that were written"),
    "a file is missing": (lambda at: (at / RANDOM).unlink(), "rng_state.pth cannot be read (No such file"),
    "no manifest": (lambda at: (at / MANIFEST).unlink(), "it has no manifest that can be read"),
    "half a manifest": (lambda at: truncate(at / MANIFEST), "it has no manifest that can be read"),
    "a manifest of another step": (lambda at: renumber(at / MANIFEST), "it has no manifest that can be read"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_one_is_told_of_once_and_the_one_before_is_used(layout: RunLayout, name: str) -> None:
    damage, why = DAMAGES[name]
    good, damaged = save(layout, 5), save(layout, 10)
    damage(damaged)
    told: list[str] = []
    for _ in range(2):
        newest = newest_valid(layout, IDENTITY, told.append)
        assert newest
        assert newest.path == good
    assert len(told) == 1
    assert told[0].startswith("Checkpoint 1-pod/checkpoint-10 is damaged and was put aside: ")
    assert why in told[0]
    assert (damaged.parent / ".damaged-checkpoint-10").is_dir(), "it stays, to be looked into"


def test_a_half_written_one_is_no_checkpoint(layout: RunLayout) -> None:
    save(layout, 5)
    whole = save(layout, 10)
    whole.rename(whole.with_name(".checkpoint-10.pod-1.draft"))
    told: list[str] = []
    newest = newest_valid(layout, IDENTITY, told.append)
    assert newest
    assert (newest.step, told) == (5, [])  # see remove_stale_drafts, which knows whether it is still being written


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(name=st.sampled_from(FILES), bit=st.integers(0, 100_000))
def test_no_flipped_bit_goes_unnoticed(layout: RunLayout, name: str, bit: int) -> None:
    damaged = save(layout, 10)
    flip(damaged / name, bit)
    assert newest_valid(layout, IDENTITY, lambda _: None) is None


def test_a_second_damage_of_the_same_step_takes_the_place_of_the_first(layout: RunLayout) -> None:
    for _ in range(2):
        truncate(save(layout, 10) / TRAINED)
        assert newest_valid(layout, IDENTITY, lambda _: None) is None


def test_the_sentence_reaches_the_launcher_with_the_next_beat_and_all_later_ones(tmp_path: Path) -> None:
    beats = Beats("train", directory=tmp_path)
    tell = teller(beats)
    beats.update("start")
    tell("Checkpoint 1-pod/checkpoint-10 is damaged " + "x" * 600)
    for phase in ("start", "train"):
        beats.update(phase)
        notices = read_beats(tmp_path)[0].progress.notices
        assert [notice.reason for notice in notices] == ["CheckpointDamaged"]
        assert notices[0].message.startswith("Checkpoint 1-pod/checkpoint-10 is damaged")


def test_one_that_is_deleted_meanwhile_is_no_damage(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a late writer of an attempt on a node that nobody reaches."""
    path = save(layout, 10)
    (path / MANIFEST).unlink()
    monkeypatch.setattr("falcon_trainer.train.checkpoint._folders", lambda _: [path.with_name("checkpoint-5"), path])
    told: list[str] = []
    assert newest_valid(layout, IDENTITY, told.append) is None
    assert len(told) == 1
