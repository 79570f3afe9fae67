"""The demo's own decisions: which records it teaches, what its live line says."""

import json
from pathlib import Path
from typing import Any

import pytest

from examples.demo.inputs import RECORDS, REPOSITORY, short_records
from examples.demo.install import image_values
from examples.demo.watch import training_line


def record(text: str, context: str = "") -> dict[str, str]:
    return {"instruction": text, "context": context, "response": text}


def written(folder: Path, *records: dict[str, str]) -> Path:
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in records))
    return file


def test_the_shortest_records_without_context_are_taken_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, record("xxxx"), record("x"), record("y", "read this"), record("xxx"), record("xx"))
    assert [each["instruction"] for each in short_records(file, 3)] == ["x", "xxx", "xx"]


def test_the_records_that_ship_with_the_project_are_enough() -> None:
    found = short_records(REPOSITORY / "examples" / "data" / "dolly-mini.jsonl")
    assert len(found) == RECORDS
    assert len({each["instruction"] for each in found}) == RECORDS, "one question must have one answer"


STATUS: dict[str, Any] = {
    "step": 12,
    "totalSteps": 40,
    "loss": "0.51",
    "tokensPerSecond": 240,
    "estimatedSecondsLeft": 25,
}


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        pytest.param({}, "", id="nothing is said before the first step"),
        pytest.param({"step": 1}, "", id="nothing is said while the length of the run is unknown"),
        pytest.param(
            STATUS, "step 12/40 ███████░░░░░░░░░░░░░░░░░  loss 0.51  240 tokens/s  25 s left", id="all that is known"
        ),
        pytest.param(
            {"step": 40, "totalSteps": 40, "loss": "0.001"}, f"step 40/40 {'█' * 24}  loss 0.001", id="the last step"
        ),
    ],
)
def test_the_live_line(training: dict[str, Any], expected: str) -> None:
    assert training_line({"training": training}) == expected


def test_an_image_with_a_registrys_port_is_split_at_its_tag() -> None:
    words = image_values("image", "registry.example:5000/falcon-operator:1.2")
    assert words == ["--set", "image.repository=registry.example:5000/falcon-operator", "--set-string", "image.tag=1.2"]
