"""Beats: one rank writes, another process reads at any moment."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from falcon_trainer.beats import Beats, read_beats
from falcon_trainer.progress import Notice


def test_a_beat_keeps_what_did_not_change(tmp_path: Path) -> None:
    beats = Beats("train", 3, tmp_path)
    beats.update("load", total_steps=10)
    beats.update("train", step=1, loss=2.5)
    progress = read_beats(tmp_path)[3].progress
    assert (progress.phase, progress.step, progress.total_steps, progress.loss) == ("train", 1, 10, 2.5)


def test_notices_stay_in_all_later_beats_and_the_newest_few_are_kept(tmp_path: Path) -> None:
    beats = Beats("train", 0, tmp_path)
    for number in range(10):
        beats.notice(Notice(reason="SlowRank", message=f"rank {number}"))
        beats.update("train", step=number)
    beats.update("save")
    told = [notice.message for notice in read_beats(tmp_path)[0].progress.notices]
    assert told == [f"rank {number}" for number in range(2, 10)]


def test_every_beat_has_a_mark_of_its_own_even_where_it_says_the_same_again(tmp_path: Path) -> None:
    marks = []
    for _ in range(20):
        Beats("train", 0, tmp_path).update("evaluate", step=7)
        marks.append(read_beats(tmp_path)[0].mark)
    assert all(before != after for before, after in itertools.pairwise(marks))


def test_a_field_that_progress_does_not_have_is_an_error_of_the_writer(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Beats("train", 0, tmp_path).update("train", speed=1)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    Beats("train", 1, tmp_path).update("train")
    (tmp_path / "beat-0.json").write_text('{"stage": "tr')
    assert list(read_beats(tmp_path)) == [1]
    assert read_beats(tmp_path / "nowhere") == {}


def test_a_reader_never_sees_half_a_beat(tmp_path: Path) -> None:
    """A real writer in another process replaces its beat as fast as it can; every read finds a whole one, in order."""
    code = (
        "import sys, pathlib; from falcon_trainer.beats import Beats\n"
        "beats = Beats('train', 0, pathlib.Path(sys.argv[1]))\n"
        "for step in range(2000): beats.update('train', step=step, message='x' * (step % 250))\n"
    )
    Beats("train", 0, tmp_path).update("train", step=0)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as writer:
        seen = [0]
        while writer.poll() is None:
            progress = read_beats(tmp_path)[0].progress
            assert progress.step is not None
            seen.append(progress.step)
    assert seen == sorted(seen)
    assert read_beats(tmp_path)[0].progress.step == 1999
    assert [path.name for path in tmp_path.iterdir()] == ["beat-0.json"]
