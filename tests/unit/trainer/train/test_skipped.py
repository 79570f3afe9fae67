"""skipped.json: what a run leaves out, and what a person hears of it."""

import json
from pathlib import Path

import pytest

from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.train.finite import Figures
from falcon_trainer.train.skipped import SkippedBatch, add_skipped, notices, read_skipped


def skipped(batch: int, rows: range = range(4)) -> SkippedBatch:
    figures = Figures(step=batch + 1, loss=float("nan"), gradient_norm=float("inf"), learning_rate=0.01)
    return SkippedBatch.of(figures, batch, rows)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout("tiny", tmp_path)


def test_a_run_without_the_file_leaves_nothing_out(layout: RunLayout) -> None:
    assert read_skipped(layout, "ours") == ()


def test_batches_are_added_one_by_one(layout: RunLayout) -> None:
    add_skipped(layout, "ours", skipped(5))
    add_skipped(layout, "ours", skipped(2))
    assert read_skipped(layout, "ours") == (skipped(5), skipped(2))


def test_a_person_can_read_it_with_any_tool(layout: RunLayout) -> None:
    add_skipped(layout, "ours", skipped(5))
    assert json.loads(layout.skipped.read_text())["batches"] == [
        {"batch": 5, "step": 6, "rows": [0, 1, 2, 3], "loss": "nan", "gradientNorm": "inf", "learningRate": "0.01"}
    ]


def test_what_a_run_with_other_settings_left_out_counts_for_nothing(layout: RunLayout) -> None:
    add_skipped(layout, "an earlier run's", skipped(5))
    assert read_skipped(layout, "ours") == ()
    add_skipped(layout, "ours", skipped(2))
    assert read_skipped(layout, "ours") == (skipped(2),)


@pytest.mark.parametrize("text", ["", "{", '{"identity": "ours"}', '{"identity": "ours", "batches": [{"batch": -1}]}'])
def test_a_file_that_cannot_be_understood_is_not_taken_for_an_empty_one(layout: RunLayout, text: str) -> None:
    layout.root.mkdir(parents=True)
    layout.skipped.write_text(text)
    with pytest.raises(StageError, match="nobody knows which rows the checkpoints were trained on") as caught:
        read_skipped(layout, "ours")
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "SkippedBatchesUnreadable")


@pytest.mark.parametrize(
    ("trained", "told"),
    [
        pytest.param(-1, [2, 5], id="from the beginning"),
        pytest.param(3, [5], id="from a checkpoint behind the first one"),
        pytest.param(6, [], id="from a checkpoint behind both"),
    ],
)
def test_an_attempt_tells_of_the_batches_that_it_passes(trained: int, told: list[int]) -> None:
    found = notices([skipped(2), skipped(5)], trained, "runs/tiny/skipped.json")
    assert [each.reason for each in found] == ["BatchSkipped"] * len(told)
    for notice, batch in zip(found, told, strict=True):
        assert notice.message.startswith(f"step {batch + 1} is trained without the global batch that made its loss nan")
        assert notice.message.endswith("rows 0, 1, 2, 3. All that are left out: runs/tiny/skipped.json")


def test_a_notice_stays_short_however_large_the_batch(layout: RunLayout) -> None:
    (notice,) = notices([skipped(5, range(10**12, 10**12 + 65536))], -1, f"runs/{'n' * 40}/skipped.json")
    assert "and 65516 more" in notice.message
