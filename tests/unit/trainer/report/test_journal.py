"""Rank 0's journal: all of it is written, and none of it may end a training."""

import json
from pathlib import Path

import pytest

from falcon_trainer.layout import RunLayout
from falcon_trainer.report import journal as module
from falcon_trainer.report.drawing import Drawing
from falcon_trainer.report.facts import Facts, Start, read_facts, starts_so_far
from falcon_trainer.report.journal import Journal, conclude, state_of
from falcon_trainer.report.metrics import METRICS
from tests.unit.trainer.report.finished_run import facts


class Counting(Drawing):
    """Counts instead of drawing."""

    finished = 0

    def finish(self) -> None:
        Counting.finished += 1


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.finished = 0
    monkeypatch.setattr(module, "Drawing", Counting)


def journal(report: Path, make: object = facts) -> Journal:
    return Journal(report, 0, make, Counting(report.parent))  # type: ignore[arg-type]


def test_a_line_goes_to_the_file_and_to_tensorboard(tmp_path: Path) -> None:
    written = journal(tmp_path)
    written.add({"step": 1, "loss": 2.0, **written.utilisation(800)})
    written.finish("finished")
    # 800 tokens/s of 360,000 FLOPs, of two ranks with 10 GFLOP/s.
    assert json.loads((tmp_path / METRICS).read_text()) == {"step": 1, "loss": 2.0, "mfu": 0.0144, "hfu": 0.0208}
    assert list((tmp_path / "tensorboard").glob("events.*"))
    known = read_facts(tmp_path)
    assert known
    assert known.state == "finished"
    assert Counting.finished == 1


def test_a_volume_that_takes_nothing_is_said_once_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "report").write_text("a file where the folder should be")
    written = journal(tmp_path / "report")
    for step in range(5):
        written.add({"step": step, "loss": 2.0})
        written.saved()
    written.finish("finished")
    assert caplog.text.count("metrics.jsonl could not be written") == 1
    assert caplog.text.count("Training goes on without") == 3


def test_a_file_that_can_no_longer_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = journal(tmp_path)
    (tmp_path / METRICS).unlink()
    (tmp_path / METRICS).mkdir()
    for step in range(5):
        written.add({"step": step, "loss": 2.0})
    assert caplog.text.count("metrics.jsonl could not be written") == 1


def test_without_facts_there_is_no_utilisation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Facts:
        raise OSError("no peak")

    written = journal(tmp_path, broken)
    assert written.utilisation(800) == {}
    assert "facts.json could not be written (no peak)" in caplog.text
    written.finish("finished")


def test_a_training_whose_end_was_not_drawn_is_concluded_once(tmp_path: Path) -> None:
    layout = RunLayout("run", tmp_path)
    facts(state="training").write(layout.report)
    conclude(layout, "stopped early")
    conclude(layout, "stopped early")
    known = read_facts(layout.report)
    assert known
    assert (known.state, Counting.finished) == ("stopped early", 1)


def test_without_a_report_there_is_nothing_to_conclude(tmp_path: Path) -> None:
    conclude(RunLayout("run", tmp_path), "finished")
    assert Counting.finished == 0


@pytest.mark.parametrize(
    ("result", "state"),
    [({"stoppedEarly": True}, "stopped early"), ({"stoppedEarly": False}, "finished"), ({}, "finished")],
)
def test_how_it_ended(result: dict[str, object], state: str) -> None:
    assert state_of(result) == state  # type: ignore[arg-type]


def test_starts_add_up_over_restarts_and_begin_anew_with_the_training(tmp_path: Path) -> None:
    first, second = (Start(attempt=number, step=5 * number, time=1.0, world_size=2) for number in (0, 1))
    facts(starts=[first]).write(tmp_path)
    assert starts_so_far(tmp_path, second) == [first, second]
    assert starts_so_far(tmp_path, first) == [first]
