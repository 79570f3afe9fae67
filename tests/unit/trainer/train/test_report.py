"""metrics.jsonl and speed: right over a resume, and counted in real tokens."""

import json
from pathlib import Path

import pytest

from falcon_trainer.data.packing import one_each
from falcon_trainer.data.store import DocumentWriter, PackedRows, write_plan
from falcon_trainer.data.tokenization import Tokens
from falcon_trainer.report import metrics as report
from falcon_trainer.report.metrics import Metrics
from falcon_trainer.train.order import RowOrder
from falcon_trainer.train.report import Speed


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / report.METRICS).read_text().splitlines()]


def test_a_resumed_run_cuts_the_steps_that_it_repeats(tmp_path: Path) -> None:
    first = Metrics(tmp_path, 0)
    for step in range(1, 6):
        first.add({"step": step})
    resumed = Metrics(tmp_path, 3)
    resumed.add({"step": 4})
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_half_a_line_of_a_dead_pod_is_cut(tmp_path: Path) -> None:
    Metrics(tmp_path, 0).add({"step": 1})
    with (tmp_path / report.METRICS).open("a") as file:
        file.write('{"step": 2, "lo')
    Metrics(tmp_path, 9).add({"step": 2})
    assert steps(tmp_path) == [1, 2]


def test_speed_counts_real_tokens_over_the_last_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = DocumentWriter(tmp_path)
    for _ in range(4):
        writer.add(Tokens([1] * 10, [1, 10]))
    writer.close()
    write_plan(tmp_path, one_each(4))
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("falcon_trainer.train.report.time.monotonic", lambda: next(clock))
    speed = Speed(PackedRows(tmp_path), RowOrder(4, 0), global_batch=3, total_steps=100)
    speed.start()
    figures = [speed.step(step) for step in range(1, 31)]
    assert figures[0] == {"tokens_per_second": 15.0, "seconds_left": 198.0}
    assert figures[-1] == {"tokens_per_second": 15.0, "seconds_left": 140.0}
