"""TensorBoard events: each step once, also after a restart."""

from pathlib import Path

from tensorboardX.event_file_writer import EventFileWriter  # type: ignore[import-untyped,unused-ignore]
from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped,unused-ignore]

from falcon_trainer.report.board import FOLDER, TAGS, Board
from tests.unit.trainer.report.tensorboard import shown


def write(folder: Path, resumed: int, steps: range, loss: float, suffix: str) -> None:
    board = Board(folder, resumed)
    for step in steps:
        board.add({"step": step, "loss": loss})
    board.close()
    # Two starts of a test fall into one second, in which TensorBoard's own file names do not tell them apart.
    for file in (folder / FOLDER).glob("events.out.*"):
        file.rename(file.with_name(f"{suffix}-{file.name}"))


def test_every_figure_of_a_line_has_its_tag(tmp_path: Path) -> None:
    board = Board(tmp_path, 0)
    board.add({"step": 3, **dict.fromkeys(TAGS, 0.5), "seconds": 9})
    board.close()
    assert sorted(shown(tmp_path)) == sorted((tag, 3, 0.5) for tag in TAGS.values())


def test_a_resumed_run_shows_no_step_twice(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8), 1.0, "a")
    write(tmp_path, 4, range(5, 11), 2.0, "b")
    assert [(step, loss) for _, step, loss in shown(tmp_path)] == [
        *((step, 1.0) for step in range(1, 5)),
        *((step, 2.0) for step in range(5, 11)),
    ]


def test_a_start_from_the_beginning_takes_back_what_an_attempt_without_checkpoint_wrote(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4), 1.0, "a")
    write(tmp_path, 0, range(1, 3), 2.0, "b")
    assert [(step, loss) for _, step, loss in shown(tmp_path)] == [(1, 2.0), (2, 2.0)]


def test_a_value_that_is_missing_is_left_out(tmp_path: Path) -> None:
    board = Board(tmp_path, 0)
    board.add({"step": 1, "evaluationLoss": 900.0, "perplexity": None})
    board.close()
    assert [tag for tag, _, _ in shown(tmp_path)] == ["validation/loss"]


def test_the_reader_of_this_test_sees_a_doubled_step(tmp_path: Path) -> None:
    """The control: a writer without the restart's mark."""
    for number in (1, 2):
        writer = EventFileWriter(str(tmp_path / FOLDER), filename_suffix=f".{number}")
        event = Event(step=1)
        event.summary.value.add(tag="train/loss", simple_value=number)
        writer.add_event(event)
        writer.close()
    assert [step for _, step, _ in shown(tmp_path)] == [1, 1]
