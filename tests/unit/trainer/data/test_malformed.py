"""Ten thousand good, odd and malformed records through prepare: never a traceback, always file, place and field."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from falcon_trainer import layout
from falcon_trainer.data import findings
from falcon_trainer.data.prepare import prepare
from falcon_trainer.outcome import LIMIT, ExitCode, StageError
from tests.unit.trainer.workshop import Workshop

Fields = dict[str, Any]
Expected = str | None
"""What is said of a record, as a pattern; None of a good one."""

WORDS = (
    "rank",
    "gang",
    "shard",
    "naïve",
    "漢字",
    "🦅",
    "\u202e",
    "\x00",
    "<|endoftext|>",
    "{{ eos_token }}",
    "\t",
    '"',
    "’",
)


def said(rng: random.Random) -> str:
    return "It is " + " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))


FORMATS: dict[str, Callable[[random.Random], Fields]] = {
    "dolly": lambda rng: {"instruction": said(rng), "context": rng.choice(["", said(rng)]), "response": said(rng)},
    "alpaca": lambda rng: {"instruction": said(rng), "input": rng.choice(["", said(rng)]), "output": said(rng)},
    "prompt-completion": lambda rng: {"prompt": said(rng), "completion": said(rng)},
    "text": lambda rng: {"text": said(rng)},
    "chat": lambda rng: {
        "messages": [
            {"role": role, "content": said(rng)} for _ in range(rng.randint(1, 2)) for role in ("user", "assistant")
        ]
    },
    "sharegpt": lambda rng: {
        "conversations": [
            {"from": who, "value": said(rng)} for _ in range(rng.randint(1, 2)) for who in ("human", "gpt")
        ]
    },
}
NEEDED = {
    "dolly": ("instruction", "response"),
    "alpaca": ("instruction", "output"),
    "prompt-completion": ("prompt", "completion"),
    "text": ("text",),
    "chat": ("messages",),
    "sharegpt": ("conversations",),
}
CONTENT = {"chat": ("messages", "role", "content"), "sharegpt": ("conversations", "from", "value")}
NOT_TEXTS: tuple[Any, ...] = (7, 0.5, True, None, [], ["a"], {}, {"a": 1}, 10**400, float("nan"))


def lacking(rng: random.Random, name: str, fields: Fields) -> tuple[Fields, Expected]:
    lost = rng.choice(NEEDED[name])
    return {key: value for key, value in fields.items() if key != lost}, f"field '{lost}' is missing"


def of_another_type(rng: random.Random, name: str, fields: Fields) -> tuple[Fields, Expected]:
    """A field that is no text; of a chat, the content of a message."""
    value = rng.choice(NOT_TEXTS)
    if name in CONTENT:
        listing, _, content = CONTENT[name]
        at = rng.randrange(len(fields[listing]))
        fields[listing][at][content] = {"a": 1} if value == [] else value
        return fields, rf"field '{listing}\[{at}\](\.{content}.*)?' "
    wrong = rng.choice(NEEDED[name])
    return fields | {wrong: value}, f"field '{wrong}' is "


def without_answer(_: random.Random, name: str, fields: Fields) -> tuple[Fields, Expected]:
    if name in CONTENT:
        listing, _role, content = CONTENT[name]
        fields[listing][-1][content] = " \n"
        return fields, rf"field '{listing}\[{len(fields[listing]) - 1}\]\.{content}' is empty"
    answer = NEEDED[name][-1]
    return fields | {answer: "  "}, f"field '{answer}' is empty"


def of_an_unknown_role(_: random.Random, name: str, fields: Fields) -> tuple[Fields, Expected]:
    if name not in CONTENT:
        return fields, None
    listing, role, _content = CONTENT[name]
    fields[listing][0][role] = "ghost"
    return fields, rf"field '{listing}\[0\]\.{role}' is 'ghost'; known are "


def with_half_a_character(rng: random.Random, name: str, fields: Fields) -> tuple[Fields, Expected]:
    if name in CONTENT:
        listing, _role, content = CONTENT[name]
        fields[listing][0][content] += "\ud83d"
        return fields, rf"field '{listing}\[0\]\.{content}' holds half a character"
    broken = rng.choice(NEEDED[name])
    return fields | {broken: "a\udc00b"}, f"field '{broken}' holds half a character"


def odd_but_good(rng: random.Random, name: str, fields: Fields) -> tuple[Fields, Expected]:
    """Unknown fields of any kind, deep and long ones, and a text of many rows."""
    oddity = rng.choice([json.loads("[" * 400 + "]" * 400), {"": None}, -1e308, "x" * 5000, []])
    if rng.random() < 0.05 and name not in CONTENT:
        fields |= {NEEDED[name][-1]: "long " * 20_000}
    return fields | {"id": oddity, "ключ": 1}, None


DAMAGES = (
    lacking,
    of_another_type,
    without_answer,
    of_an_unknown_role,
    with_half_a_character,
    odd_but_good,
)


def record(rng: random.Random, name: str) -> tuple[Fields, Expected]:
    fields = FORMATS[name](rng)
    return rng.choice(DAMAGES)(rng, name, fields) if rng.random() < 0.4 else (fields, None)


def in_a_line(rng: random.Random, name: str) -> tuple[bytes, Expected]:
    """A line of JSON Lines, now and then damaged as bytes."""
    damage = rng.randrange(120)
    fields, expected = (FORMATS[name](rng), None) if damage < len(LINES) else record(rng, name)
    line = json.dumps(fields, ensure_ascii=expected is not None or rng.random() < 0.5).encode()
    return (LINES[damage](line), DAMAGED_LINES[damage]) if damage < len(LINES) else (line, expected)


LINES: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line[: len(line) // 2],
    lambda line: line + b"}",
    lambda line: line.replace(b": ", b": \xff", 1),
    lambda line: b"\xed\xa0\x80" + line,
    lambda line: line[:1] + b"\x00" + line[1:],
    lambda _: b"[" * 100_000,
    lambda _: b'{"a": ' * 100_000,
    lambda _: b'{"n": ' + b"9" * 5000 + b"}",
    lambda _: b"null",
    lambda _: b'["instruction", "response"]',
    lambda _: b'"text"',
    lambda _: b"{}",
    lambda line: line.replace(b'"', b"'"),
)
NOT_JSON, NOT_UTF8 = r"is not (JSON: |UTF-8 text \(byte)", r"is not UTF-8 text \(byte \d+\)"
DEEP = "is nested too deeply"
DAMAGED_LINES = (
    *(NOT_JSON, NOT_JSON, NOT_UTF8, NOT_UTF8, NOT_JSON, DEEP, DEEP, NOT_JSON),
    *("is a JSON null, not an object", "is a JSON array, not an object", "is a JSON string, not an object"),
    *("field '.*' is missing", NOT_JSON),
)


def json_lines(rng: random.Random, name: str, count: int, path: Path) -> dict[int, Expected]:
    """Writes a file; returns what is said of each line, blank ones apart."""
    told: dict[int, Expected] = {}
    with path.open("wb") as file:
        file.write(rng.choice([b"", b"\xef\xbb\xbf"]))
        number = 0
        while len(told) < count:
            number += 1
            if rng.random() < 0.02:
                file.write(rng.choice([b"\n", b"  \r\n"]))
                continue
            good = json.dumps(FORMATS[name](rng)).encode()  # the first record settles the format
            line, told[number] = in_a_line(rng, name) if told else (good, None)
            file.write(line + rng.choice([b"\n", b"\r\n"]))
    return told


def json_array(rng: random.Random, name: str, count: int, path: Path) -> dict[int, Expected]:
    odd: list[tuple[Any, Expected]] = [(None, "is a JSON null"), ([{}], "is a JSON array"), (1e5, "is a JSON number")]
    made: list[tuple[Any, Expected]] = [(FORMATS[name](rng), None)]
    made += [rng.choice(odd) if rng.random() < 0.03 else record(rng, name) for _ in range(count - 1)]
    path.write_text(json.dumps([fields for fields, _ in made], indent=rng.choice([None, 1])))
    return dict(enumerate(expected for _, expected in made))


def csv(rng: random.Random, name: str, count: int, path: Path) -> dict[int, Expected]:
    """Every field is a text in CSV; a record begins on a line and may go on over several."""
    columns = list(FORMATS[name](rng))
    told: dict[int, Expected] = {}
    text = ",".join(columns).encode() + b"\r\n"
    for index in range(count):
        cells = [said(rng).replace("\t", "\n") for _ in columns]
        rows, line = [b'"' + cell.replace('"', '""').encode() + b'"' for cell in cells], text.count(b"\n") + 1
        damage = rng.random() if index else 1.0
        told[line] = None
        if damage < 0.05:
            rows, told[line] = rows[:-1] or [b'"a"', b'"b"'], "has [0-9] columns where the header has [0-9]"
        elif damage < 0.1:
            rows[0], told[line] = b'"\xe9t\xe9"', f"field '{columns[0]}' is not UTF-8 text"
        elif damage < 0.15:
            rows[-1], told[line] = b'" "', f"field '{columns[-1]}' is empty"
        text += b",".join(rows) + b"\r\n"
    path.write_bytes(text)
    return told


FILES: dict[str, tuple[Callable[[random.Random, str, int, Path], dict[int, Expected]], str, str, int]] = {
    **{f"JSON Lines of {name}": (json_lines, name, "jsonl", 1000) for name in FORMATS},
    **{f"a JSON array of {name}": (json_array, name, "json", 400) for name in FORMATS},
    **{f"CSV of {name}": (csv, name, "csv", 500) for name in FORMATS if name not in CONTENT},
}
assert sum(count for *_, count in FILES.values()) > 10_000
PLACES = {"jsonl": "line", "csv": "line", "json": "index"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Workshop(tmp_path_factory.mktemp("base")).put_base()


@pytest.mark.parametrize(("write", "name", "suffix", "count"), FILES.values(), ids=FILES)
def test_every_record_is_used_or_told_with_its_place_and_field(
    write: Callable[[random.Random, str, int, Path], dict[int, Expected]],
    name: str,
    suffix: str,
    count: int,
    tmp_path: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shop = Workshop(tmp_path)
    monkeypatch.setattr(layout, "SOURCES", shop.sources)
    shutil.copytree(base, shop.sources / "models" / "base")
    file = shop.put_records("", f"records.{suffix}")
    told = write(random.Random(f"{name} {suffix}"), name, count, file)
    invalid = {number: expected for number, expected in told.items() if expected}
    assert len(told) == count
    assert len(invalid) > count / 20

    heads = {"sources": [{"uri": f"pvc://data/{file.name}"}]}
    monkeypatch.setattr(findings, "SHOWN", 10 * count)
    with pytest.raises(StageError) as caught:
        prepare(shop.config(dataset=heads), shop.beats("prepare"), shop.layout)
    assert (caught.value.code, caught.value.reason) == (ExitCode.DATA, "InvalidData")
    assert caught.value.message.startswith(f"{len(invalid)} of {count} records cannot be used (")
    assert len(caught.value.outcome().encode().encode()) <= LIMIT
    listed = dict(re.findall(rf"^{re.escape(file.name)} {PLACES[suffix]} (\d+): (.*)$", capsys.readouterr().out, re.M))
    assert {int(number) for number in listed} == set(invalid)
    for number, reason in listed.items():
        assert re.match(str(invalid[int(number)]), reason), f"{number}: {reason}"

    skipping = heads | {"onInvalid": "skip", "maxInvalidFraction": "0.99"}
    other = Workshop(tmp_path, run="skipping")
    figures = prepare(other.config(dataset=skipping), other.beats("prepare"), other.layout)["dataset"]
    assert isinstance(figures, dict)
    assert (figures["format"], figures["records"], figures["invalid"]) == (name, count, len(invalid))
