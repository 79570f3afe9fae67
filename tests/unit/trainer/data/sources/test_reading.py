"""Every kind of file gives the same records back, each with its place; a damaged one is named, never a traceback."""

import json
import string
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from falcon_trainer.data.sources import Record, read
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.data.sources.files import COMPRESSORS, WRITERS, rows_of, write

KINDS = pytest.mark.parametrize("kind", WRITERS)
IN_A_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
FIRST = {"JSON Lines": "line 1", "CSV": "line 2", "TSV": "line 2", "a JSON array": "index 0"}
"""kind → place of the first record; of tables it is row 0"""


def fields(file: Path) -> list[dict[str, Any]]:
    records = list(read(file))
    assert not [record.problem for record in records if record.problem]
    return [record.fields for record in records]


def places(file: Path) -> list[str]:
    return [str(record.where) for record in read(file)]


def refusal(file: Path) -> StageError:
    with pytest.raises(StageError) as caught:
        list(read(file))
    return caught.value


@KINDS
@pytest.mark.parametrize("compression", COMPRESSORS)
def test_every_kind_reads_back_compressed_or_not(tmp_path: Path, kind: str, compression: str) -> None:
    rows = rows_of(9)
    assert fields(write(rows, tmp_path, kind, compression)) == rows


@KINDS
def test_a_record_is_named_by_its_place(tmp_path: Path, kind: str) -> None:
    file = write(rows_of(9), tmp_path, kind)
    assert places(file)[0] == f"{file.name} {FIRST.get(kind, 'row 0')}"
    assert len(set(places(file))) == 9


NAMES = st.text(string.ascii_letters + "é_ü", min_size=1, max_size=6)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.data())
@IN_A_FOLDER
def test_all_kinds_agree_on_any_text(tmp_path: Path, data: st.DataObject) -> None:
    columns = data.draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, TEXTS)), min_size=1, max_size=8))
    for kind in WRITERS:
        assert fields(write(rows, tmp_path, kind)) == rows, kind


@given(st.lists(st.one_of(TEXTS, st.text('ab\n\r", ', max_size=8)), min_size=1, max_size=6))
@IN_A_FOLDER
def test_the_line_of_a_csv_record_is_the_one_that_it_begins_on(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"number": f"record {at}", "text": text} for at, text in enumerate(texts)]
    file = write(rows, tmp_path, "CSV")
    with file.open(encoding="utf-8", newline="") as opened:
        lines = list(opened)
    for record in read(file):
        assert lines[record.where.number - 1].startswith(record.fields["number"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(JSON, max_size=8), indent=st.sampled_from([None, 1]), block=st.integers(1, 9))
@IN_A_FOLDER
def test_an_array_is_the_same_however_its_blocks_are_cut(
    tmp_path: Path, values: list[Any], indent: int | None, block: int
) -> None:
    file = tmp_path / "records.json"
    file.write_text(json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("falcon_trainer.data.sources.json_text.BLOCK", block)
        records = list(read(file))
    assert [record.where.number for record in records] == list(range(len(values)))
    for record, value in zip(records, values, strict=True):
        assert record.fields == (value if isinstance(value, dict) else {})
        assert (record.problem is None) == isinstance(value, dict)


@given(st.binary(max_size=300), st.sampled_from([".json", ".jsonl", ".csv", ".parquet", ".arrow", ".jsonl.zst", ""]))
@IN_A_FOLDER
def test_any_bytes_end_in_records_or_in_a_sentence_that_names_the_file(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    file = tmp_path / f"noise{suffix}"
    file.write_bytes(content)
    assert all(told.startswith(file.name) or file.name in told for told in outcome(file))


def outcome(file: Path) -> list[str]:
    """The places of the records, or the sentence that ended the reading."""
    try:
        return places(file)
    except StageError as error:
        return [error.message if error.code == ExitCode.DATA else f"exit code {error.code}"]


@KINDS
@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_that_was_cut_is_named(tmp_path: Path, kind: str, compression: str) -> None:
    file = write(rows_of(50), tmp_path, kind, compression)
    file.write_bytes(file.read_bytes()[:-20])
    error = refusal(file)
    assert (error.code, error.reason) == (ExitCode.DATA, "DamagedFile")
    assert error.message.startswith(f"{file.name} is damaged, was cut")


@pytest.mark.parametrize("kind", ["Parquet", "an Arrow file", "an Arrow stream", "a JSON array"])
def test_a_table_or_array_that_was_cut_is_named(tmp_path: Path, kind: str) -> None:
    file = write(rows_of(50), tmp_path, kind)
    file.write_bytes(file.read_bytes()[:-100])
    error = refusal(file)
    assert error.code == ExitCode.DATA
    assert error.message.startswith(file.name)


def test_a_damaged_page_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "records.parquet"
    table = pa.table({"text": [str(at) * 50 for at in range(2000)]})
    parquet.write_table(table, file, compression="none", use_dictionary=False, write_page_checksum=True)
    file.write_bytes(file.read_bytes().replace(b"777", b"778", 1))
    error = refusal(file)
    assert error.reason == "DamagedFile"
    assert "CRC" in error.message


@pytest.mark.parametrize("member", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_of_several_parts_is_read_to_its_end(tmp_path: Path, member: str) -> None:
    compress = COMPRESSORS[member]
    file = tmp_path / f"records.jsonl{member}"
    file.write_bytes(compress(b'{"a": 1}\n') + compress(b'{"a": 2}\n'))
    assert fields(file) == [{"a": 1}, {"a": 2}]


@KINDS
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_a_file_without_a_telling_name_is_known_by_its_beginning(tmp_path: Path, kind: str, compression: str) -> None:
    file = write(rows_of(3), tmp_path, kind, compression).rename(tmp_path / "download")
    if kind in ("CSV", "TSV"):
        error = refusal(file)
        assert (error.code, error.reason) == (ExitCode.DATA, "UnknownKindOfFile")
        assert "Known are .json, .jsonl, .ndjson, .csv" in error.message
    else:
        assert fields(file) == rows_of(3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[", "Expecting value at its beginning"),
        (b'[{"a": 1}', "Expecting ',' after index 0"),
        (b'[{"a": 1}, {"a": ]', "Expecting value after index 0"),
        (b'[{"a": 1}] {"a": 2}', "Extra data after index 0"),
        (b'[{"a": 1}, {"a": "\xff"}]', "bytes that are no UTF-8 text at its beginning"),
        (b"[" + b'{"a":' * 99999, "a value that is nested too deeply at its beginning"),
    ],
)
def test_a_broken_array_is_told_with_the_last_good_record(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "r.json").write_bytes(content)
    error = refusal(tmp_path / "r.json")
    assert error.message == f"r.json is not a JSON array: {said}."


def problem(file: Path, content: bytes) -> list[tuple[str, str | None]]:
    file.write_bytes(content)
    return [(str(record.where), record.problem) for record in read(file)]


@pytest.mark.parametrize(
    ("name", "content", "where", "said"),
    [
        pytest.param("r.jsonl", b'{"a": "\xff"}', "r.jsonl line 1", "is not UTF-8 text (byte 7)", id="bad bytes"),
        pytest.param(
            "r.jsonl", rb'{"a": "\ud83d"}', "r.jsonl line 1", "field 'a' holds half a character", id="half an emoji"
        ),
        pytest.param(
            "r.json", rb'[{"a": "\ude00"}]', "r.json index 0", "field 'a' holds half a character", id="in an array"
        ),
        pytest.param("r.jsonl", b'{"a":' * 99999, "r.jsonl line 1", "is nested too deeply", id="a deep nesting"),
        pytest.param("r.jsonl", b'\n\n{"a": }', "r.jsonl line 3", "is not JSON: Expecting value", id="no value"),
        pytest.param("r.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "r.jsonl line 1", "is not JSON", id="a huge number"),
        pytest.param("r.csv", b"a,b\n1,2\n3\n", "r.csv line 3", "has 1 columns where the header has 2", id="short row"),
        pytest.param("r.csv", b"a,b\n1,2,3\n", "r.csv line 2", "has 3 columns", id="long row"),
        pytest.param("r.csv", b'a,b\n1,"2\n3\n', "r.csv line 2", "is not CSV: unexpected end", id="open quote"),
        pytest.param("r.csv", b"a,b\n1,\xff\n", "r.csv line 2", "field 'b' is not UTF-8 text", id="bad CSV bytes"),
    ],
)
def test_a_record_that_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, name: str, content: bytes, where: str, said: str
) -> None:
    (found,) = [(place, words) for place, words in problem(tmp_path / name, content) if words]
    assert found[0] == where
    assert str(found[1]).startswith(said)


def test_good_records_beside_a_bad_one_are_read(tmp_path: Path) -> None:
    found = problem(tmp_path / "r.csv", b'a,b\n1,2\n3,"4" x\n5,6\n')
    assert [words is None for _, words in found] == [True, False, True]
    assert [place for place, _ in found] == ["r.csv line 2", "r.csv line 3", "r.csv line 4"]


@pytest.mark.parametrize("header", ["a,a", '"a', "a,\xff"], ids=["a name twice", "an open quote", "not UTF-8"])
def test_a_header_that_cannot_be_used_ends_the_file(tmp_path: Path, header: str) -> None:
    (tmp_path / "r.csv").write_bytes(header.encode("latin-1") + b"\n1,2\n")
    error = refusal(tmp_path / "r.csv")
    assert (error.code, error.reason) == (ExitCode.DATA, "InvalidData")
    assert error.message.startswith("r.csv has")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    for name, content in (("r.csv", b"a\n1\n"), ("r.jsonl", b'{"a": "1"}'), ("r.json", b' [{"a": "1"}]')):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
        assert fields(tmp_path / name) == [{"a": "1"}]


def test_a_row_of_a_table_that_is_no_text_is_told_beside_good_ones(tmp_path: Path) -> None:
    column = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.utf8())
    parquet.write_table(pa.table({"text": column}), tmp_path / "r.parquet")
    records: list[Record] = list(read(tmp_path / "r.parquet"))
    assert [record.problem for record in records] == [None, "field 'text' is not UTF-8 text", None]
    assert str(records[1].where) == "r.parquet row 1"


def test_messages_come_out_of_a_table_as_they_do_of_json(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}]
    for kind in ("Parquet", "an Arrow stream", "JSON Lines"):
        assert fields(write(rows, tmp_path, kind)) == rows  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "TSV"])
def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path, kind: str) -> None:
    file = write([{"text": f"{at:08d}" * 500} for at in range(3000)], tmp_path, kind)  # 12 MB
    if kind == "Parquet":
        rewritten = parquet.read_table(file)
        parquet.write_table(rewritten, file, compression="none", use_dictionary=False)
        del rewritten
    tracemalloc.start()
    count = largest = 0
    for record in read(file):
        count += len(record.fields["text"])
        largest = max(largest, pa.total_allocated_bytes())
    peak = tracemalloc.get_traced_memory()[1] + largest
    tracemalloc.stop()
    assert count == 12_000_000
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.jsonl", b'{"a": "%s"}\n{"a": "x"}\n', ["is longer than", None]),
        ("r.csv", b'a\n"%s"\n', "line 2 is longer than"),
        ("r.json", b'[{"a": "%s"}]', "is not a JSON array"),
    ],
    ids=["JSON Lines", "CSV", "a JSON array"],
)
def test_a_record_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, name: str, content: bytes, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("json_text", "csv_text"):
        monkeypatch.setattr(f"falcon_trainer.data.sources.{module}.LONGEST", 1000)
    monkeypatch.setattr("falcon_trainer.data.sources.json_text.BLOCK", 100)
    (tmp_path / name).write_bytes(content.replace(b"%s", b"x" * 3000))
    if isinstance(told, str):
        assert told in refusal(tmp_path / name).message
    else:
        assert [record.problem and record.problem[:14] for record in read(tmp_path / name)] == told
