"""metrics.jsonl read back: every figure a curve, whatever the file has been through."""

import json
from pathlib import Path

import pytest

from falcon_trainer.report.metrics import METRICS, History, Metrics


def written(folder: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / METRICS).write_text("\n".join(texts))
    return folder


def test_steps_and_evaluations_become_curves_of_their_own(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    metrics.add({"step": 1, "loss": 3.0})
    metrics.add({"step": 2, "loss": 2.0})
    metrics.add({"step": 2, "evaluationLoss": 2.5})
    history = History(tmp_path)
    assert [column.tolist() for column in history.curve("loss")] == [[1, 2], [3, 2]]
    assert [column.tolist() for column in history.curve("evaluationLoss")] == [[2], [2.5]]
    assert (history.total("loss"), history.last("loss")) == (5, 2)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2, "lo',
        "",
        "null",
        "[1]",
        '{"loss": 7}',
        '{"step": "2", "loss": 7}',
        '{"step": 2, "loss": NaN}',
        "\x00",
    ],
    ids=["half a line", "no text", "null", "a list", "no step", "a step that is no number", "no number", "zero bytes"],
)
def test_what_is_no_line_of_ours_is_left_out(tmp_path: Path, line: str) -> None:
    history = History(written(tmp_path, {"step": 1, "loss": 3.0}, line, {"step": 3, "loss": 1.0}))
    assert history.curve("loss")[1].tolist() == [3, 1]


def test_without_a_file_there_are_no_curves(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert len(history.curve("loss")[0]) == 0
    assert (history.total("tokens"), history.last("epoch")) == (0, 0)


def test_a_resumed_run_keeps_the_evaluations_up_to_its_step(tmp_path: Path) -> None:
    lines = [
        {"step": 3, "loss": 1},
        {"step": 3, "evaluationLoss": 1},
        {"step": 4, "loss": 1},
        {"step": 4, "evaluationLoss": 1},
    ]
    Metrics(written(tmp_path, *lines), 3)
    assert [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()] == lines[:2]
