"""When a checkpoint is due, and what is told of it: one rank's part, with what rank 0 decides for a collective."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train import saving as savings
from falcon_trainer.train.agreement import Wish
from falcon_trainer.train.background import BackgroundWriter
from falcon_trainer.train.report import Reporter
from falcon_trainer.train.saving import Saving
from falcon_trainer.train.writer import CheckpointWriter, Snapshot

T = TypeVar("T")
PATIENCE = 120.0
Story = list[Any]


class Telling:
    """A reporter that keeps what it is told."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self.at_the_next_pause: threading.Event | None = None

    def saving(self) -> None:
        self._story.append("pause")
        if self.at_the_next_pause:
            self.at_the_next_pause.set()

    def going_on(self) -> None:
        self._story.append("go on")

    def saved(self, step: int) -> None:
        self._story.append(("saved", step))


class Writing:
    """A checkpoint writer that does what it is told to with each snapshot."""

    def __init__(self, save: Callable[[Snapshot], object] = lambda _: None) -> None:
        self.save = save


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {}, "{}", "{}", [])


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def decided(decide: Callable[[], T]) -> T:
        return decide()

    monkeypatch.setattr(savings, "decided", decided)


class Clock:
    """Seconds that pass only when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def rank_0(told: Story | Telling, writing: Writing, *, durable_step: int = 0, **named: Any) -> Saving:
    background = BackgroundWriter(cast(CheckpointWriter, writing), durable_step=durable_step)
    telling = told if isinstance(told, Telling) else Telling(told)
    return Saving(cast(Reporter, telling), background, durable_step=durable_step, **named)


def test_minutes_count_from_the_begin_of_training_and_of_each_save() -> None:
    clock = Clock()
    saving = rank_0([], Writing(), every_minutes=2, clock=clock)
    clock.now += 500  # loading
    saving.started()
    due = []
    for seconds in (119.9, 0.2, 0.0):
        clock.now += seconds
        due.append(saving.wish().save)
    saving.save(lambda: snapshot(3))
    for seconds in (119.9, 0.2):
        clock.now += seconds
        due.append(saving.wish().save)
    saving.flush()
    assert due == [False, True, True, False, True]


def test_only_rank_0_looks_at_the_clock_and_without_minutes_nobody_does() -> None:
    clock = Clock()
    others = Saving(cast(Reporter, Telling([])), None, every_minutes=1, clock=clock)
    by_steps = rank_0([], Writing(), clock=clock)
    clock.now += 1e6
    assert others.wish() == Wish()
    assert by_steps.wish() == Wish()


def test_training_pauses_for_the_gathering_and_is_told_of_the_checkpoint_once_it_is_durable() -> None:
    may_end, story = threading.Event(), Story()
    saving = rank_0(story, Writing(lambda _: may_end.wait(PATIENCE)))

    def gather() -> Snapshot:
        story.append("gather")
        return snapshot(3)

    saving.save(gather)
    saving.heed(saving.wish())
    assert story == ["pause", "gather", "go on"]
    may_end.set()
    saving.flush()
    saving.heed(saving.wish())
    assert story[3:] == ["pause", "go on", ("saved", 3)], "told once, however it is learned"


def test_a_second_save_gathers_only_once_the_first_is_written() -> None:
    story, first = Story(), threading.Event()

    def write(snapshot: Snapshot) -> None:
        assert first.wait(PATIENCE)
        story.append(("written", snapshot.step))

    saving = rank_0(story, Writing(write))
    saving.save(lambda: snapshot(3))
    threading.Timer(0.05, first.set).start()  # the second save waits for it, however late it comes
    saving.save(lambda: story.append("gather") or snapshot(6))  # type: ignore[func-returns-value]
    assert story[story.index("gather") - 1] == ("written", 3)
    saving.flush()
    assert story[-1] == ("saved", 6)


def failing(_: Snapshot) -> None:
    raise OSError(28, "No space left on device")


ENDS: dict[str, Callable[[Saving], None]] = {
    "at the end of the next step": lambda saving: saving.heed(Wish(failed=True)),
    "at the next save, which gathers nothing": lambda saving: saving.save(lambda: pytest.fail("gathered")),
    "when all is to be written": lambda saving: saving.flush(),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_failed_write_ends_the_training(name: str) -> None:
    story = Story()
    saving = rank_0(story, Writing(failing), durable_step=3)
    saving.save(lambda: snapshot(6))
    with pytest.raises(StageError) as raised:
        ENDS[name](saving)
    assert (raised.value.code, raised.value.reason) == (ExitCode.CANNOT_WRITE, "DiskFull")
    assert ("saved", 6) not in story
    wish = saving.wish()
    assert (wish.failed, wish.durable_step) == (True, 3)


def test_the_other_ranks_tell_what_was_agreed_on() -> None:
    story = Story()
    saving = Saving(cast(Reporter, Telling(story)), None, durable_step=3)
    for step in (3, 3, 6, 6, 9):
        saving.heed(Wish(durable_step=step))
    assert story == [("saved", 6), ("saved", 9)]


def fall_beside_a_write(saving: Saving, telling: Telling, leaving: threading.Event) -> None:
    """A training that raises while step 3 is written; `leaving` is set when the rank is about to leave, not before: a
    rank that did not wait would have left without the checkpoint.
    """
    with saving.finished():
        saving.save(lambda: snapshot(3))
        telling.at_the_next_pause = leaving
        raise ZeroDivisionError


def test_a_write_under_way_is_finished_before_the_rank_leaves_for_another_reason() -> None:
    story = Story()
    may_end, telling = threading.Event(), Telling(story)
    saving = rank_0(telling, Writing(lambda _: may_end.wait(PATIENCE)))
    with pytest.raises(ZeroDivisionError):
        fall_beside_a_write(saving, telling, may_end)
    assert story[-2:] == ["pause", ("saved", 3)]


def test_a_write_that_takes_too_long_does_not_keep_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(savings, "FAREWELL", 0.0)
    may_end, story = threading.Event(), Story()
    telling = Telling(story)
    saving = rank_0(telling, Writing(lambda _: may_end.wait(PATIENCE)))
    with pytest.raises(ZeroDivisionError):
        fall_beside_a_write(saving, telling, threading.Event())
    assert ("saved", 3) not in story
    may_end.set()
    saving.flush()


def test_a_write_that_fails_beside_another_reason_does_not_hide_it(caplog: pytest.LogCaptureFixture) -> None:
    may_fail = threading.Event()

    def fail(snapshot: Snapshot) -> None:
        assert may_fail.wait(PATIENCE)
        failing(snapshot)

    telling = Telling([])
    with pytest.raises(ZeroDivisionError):
        fall_beside_a_write(rank_0(telling, Writing(fail)), telling, may_fail)
    assert "its last checkpoint was lost as well: no space left" in caplog.text


WISHES = st.builds(Wish, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 10**12))


@given(st.lists(WISHES, min_size=1, max_size=5))
def test_a_wish_of_any_rank_is_one_of_all(wishes: list[Wish]) -> None:
    joined = Wish.of([max(numbers) for numbers in zip(*(wish.numbers() for wish in wishes), strict=True)])
    assert joined == Wish(
        stop=any(wish.stop for wish in wishes),
        save=any(wish.save for wish in wishes),
        failed=any(wish.failed for wish in wishes),
        durable_step=max(wish.durable_step for wish in wishes),
    )
