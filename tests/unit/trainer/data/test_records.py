"""Records that can be used, and what is said of those that cannot."""

import json
from pathlib import Path

import pytest

from falcon_trainer import layout
from falcon_trainer.config import Dataset
from falcon_trainer.data.findings import Findings, refuse
from falcon_trainer.data.records import Records
from falcon_trainer.data.sources import Sources
from falcon_trainer.outcome import ExitCode, StageError

GOOD = '{"instruction": "Ask", "context": "", "response": "Answer"}'
ALPACA = '{"instruction": "Ask", "input": "", "output": "Answer"}'


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a mounted claim named `data`."""
    monkeypatch.setattr(layout, "SOURCES", tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def dataset(uri: str = "pvc://data/records.jsonl", **fields: object) -> Dataset:
    return Dataset.model_validate({"sources": [{"uri": uri}], **fields})


def check(uri: str = "pvc://data/records.jsonl", **fields: object) -> Findings:
    """As prepare does: all records are read, then it is decided whether they can be used."""
    asked = dataset(uri, **fields)
    records = records_of(asked)
    findings = records.check()
    refuse(findings, asked, [file.name for file in records.files])
    return findings


def records_of(asked: Dataset) -> Records:
    return Records(asked, Sources(asked, Path("/nowhere")), eos_token="<|endoftext|>", seed=42)


def refusal(uri: str = "pvc://data/records.jsonl", **fields: object) -> StageError:
    with pytest.raises(StageError) as caught:
        check(uri, **fields)
    return caught.value


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param(
            [GOOD, GOOD, '{"instruction": "Ask", "context": ""}'],
            "records.jsonl line 3: field 'response' is missing",
            id="a missing field is named with file and line",
        ),
        pytest.param(
            ['{"instruction": "Ask", "context": ""}'],
            "records.jsonl line 1: field 'response' is missing",
            id="also in the first record, whose format is then told by its context",
        ),
        pytest.param([GOOD, "", "{broken"], "records.jsonl line 3: is not JSON", id="blank lines count as lines"),
        pytest.param([GOOD, "[1, 2]"], "records.jsonl line 2: is a JSON array, not an object", id="an array in a line"),
        pytest.param(
            [GOOD, '{"instruction": 7, "response": "x"}'], "field 'instruction' is not a text but 7", id="a number"
        ),
        pytest.param(
            [GOOD, '{"instruction": "x", "response": " "}'], "field 'response' is empty", id="an empty answer"
        ),
        pytest.param(
            [GOOD, '{"instruction": "x", "response": "y", "context": ["a"]}'],
            "field 'context' is not a text but ['a']",
            id="a context that is a list",
        ),
        pytest.param(
            ['{"question": "x", "reply": "y"}'],
            "its fields ('question', 'reply') are of no known format: ",
            id="an unknown format",
        ),
    ],
)
def test_an_invalid_record_ends_the_stage_with_its_place_and_field(claim: Path, lines: list[str], said: str) -> None:
    (claim / "records.jsonl").write_text("\n".join(lines))
    error = refusal()
    assert (error.code, error.reason) == (ExitCode.DATA, "InvalidData")
    assert said in error.message


def test_invalid_records_are_skipped_and_counted_on_request(claim: Path) -> None:
    (claim / "records.jsonl").write_text("\n".join([GOOD, "{broken", GOOD]))
    findings = check(onInvalid="skip", maxInvalidFraction="0.5")
    assert (findings.records, findings.valid, findings.invalid) == (3, 2, 1)
    assert findings.first[0].startswith("records.jsonl line 2: is not JSON")


def test_many_invalid_records_are_counted_and_the_first_are_listed(claim: Path) -> None:
    (claim / "records.jsonl").write_text("\n".join([GOOD] + ['{"instruction": "x"}'] * 30))
    message = refusal(format="dolly").message
    assert message.startswith(
        "30 of 31 records cannot be used (missing field 30): records.jsonl line 2: field 'response' is missing; "
    )
    assert "and 25 more" in message


def test_a_line_that_is_not_utf8_is_named(claim: Path) -> None:
    (claim / "records.jsonl").write_bytes(GOOD.encode() + b"\n" + b'{"instruction": "\xff"}')
    assert "records.jsonl line 2: is not UTF-8" in refusal().message


def test_an_element_of_a_json_array_is_named_by_its_index(claim: Path) -> None:
    (claim / "records.json").write_text(json.dumps([json.loads(ALPACA), {"instruction": "x"}]))
    assert "records.json index 1: field 'output' is missing" in refusal("pvc://data/records.json").message


def test_a_broken_json_array_is_refused_even_when_invalid_records_are_skipped(claim: Path) -> None:
    (claim / "records.json").write_text(f"[{ALPACA}, ")
    error = refusal("pvc://data/records.json", onInvalid="skip")
    assert error.code == ExitCode.DATA
    assert "records.json is not a JSON array" in error.message


def test_a_folder_is_read_by_name_and_other_files_are_left_alone(claim: Path) -> None:
    (claim / "b.jsonl").write_text(GOOD)
    (claim / "a.json").write_text(f"[{GOOD}]")
    (claim / "README.md").write_text("not records")
    records = records_of(dataset("pvc://data/"))
    assert [file.name for file in records.files] == ["a.json", "b.jsonl"]
    assert records.check().valid == 2


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        pytest.param("pvc://data/recrods.jsonl", "no 'recrods.jsonl' in", id="a misspelt file"),
        pytest.param("pvc://other/records.jsonl", "no 'other' in", id="a claim that is not mounted"),
        pytest.param("pvc://data/empty", "the folder holds no file of records (.json", id="a folder without files"),
    ],
)
def test_missing_data_is_named_and_what_lies_beside_it(claim: Path, uri: str, said: str) -> None:
    (claim / "records.jsonl").write_text(GOOD)
    (claim / "empty").mkdir()
    error = refusal(uri)
    assert (error.code, error.reason) == (ExitCode.NO_INPUT, "DataNotFound")
    assert said in error.message
    if "recrods" in uri:
        assert "records.jsonl" in error.message


@pytest.mark.parametrize("text", ["", "\n \n", "[]"], ids=["no byte", "blank lines", "an empty array"])
def test_an_empty_data_set_is_refused(claim: Path, text: str) -> None:
    (claim / "records.jsonl").write_text(text)
    error = refusal()
    assert (error.code, error.reason) == (ExitCode.DATA, "EmptyDataset")
    assert "no record in records.jsonl" in error.message


def test_a_data_set_whose_every_record_is_skipped_is_empty(claim: Path) -> None:
    (claim / "records.jsonl").write_text("{broken")
    assert "all 1 records in records.jsonl were skipped" in refusal(onInvalid="skip").message


def test_a_named_format_is_demanded_of_every_record(claim: Path) -> None:
    (claim / "records.jsonl").write_text(GOOD)
    assert "line 1: field 'output' is missing" in refusal(format="alpaca").message


def test_records_that_change_while_they_are_read_end_the_stage(claim: Path) -> None:
    """Whatever was checked is what is written: the second pass holds every record against the first."""
    good = [json.dumps({"instruction": f"Ask {number}", "response": "Answer"}) for number in range(4)]
    file = claim / "records.jsonl"
    changes = {
        "a record is another": [good[0], good[2], good[2], good[3]],
        "one is gone": good[:3],
        "one came": [*good, good[0]],
        "one cannot be used": [*good[:3], "{broken"],
    }
    for change, lines in changes.items():
        file.write_text("\n".join(good))
        records = records_of(dataset())
        records.check()
        assert len(list(records.examples())) == 4
        file.write_text("\n".join(lines))
        with pytest.raises(StageError, match="changed while it was read") as caught:
            list(records.examples())
        assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "DataChanged"), change


def test_records_of_the_validation_split_are_marked_and_checked_too(claim: Path) -> None:
    (claim / "train.jsonl").write_text(GOOD)
    (claim / "test.jsonl").write_text(GOOD + "\n{broken")
    records = records_of(dataset("pvc://data/", validation={"split": "test"}))
    findings = records.check()
    assert (findings.valid, findings.invalid, findings.duplicates) == (2, 1, 1)
    assert [example.of_validation_file for example in records.examples()] == [False, True]
    assert findings.first[0].startswith("test.jsonl line 2: is not JSON")
