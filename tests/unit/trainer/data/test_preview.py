"""The look at the data: what is trained on is seen, rows are drawn, and nothing but the folder is needed."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_trainer import layout
from falcon_trainer.config import Dataset
from falcon_trainer.data import showing
from falcon_trainer.data.contents import TOKENIZER
from falcon_trainer.data.packing import one_each
from falcon_trainer.data.paint import BAR, WIDTH, Paint
from falcon_trainer.data.preview import SHORT, WHOLE, Extent, describe
from falcon_trainer.data.showing import show
from falcon_trainer.data.store import DocumentWriter, write_plan
from falcon_trainer.data.tokenization import Tokens
from falcon_trainer.outcome import StageError
from tests.unit.trainer.workshop import RECORDS, Workshop, tokenizer

ESCAPE = re.compile(r"\x1b\[\d+m")


def folder_of(folder: Path, *texts: tuple[str, str]) -> Path:
    """A prepared folder of prompts and trained answers."""
    writer = DocumentWriter(folder)
    for asked, answer in texts:
        prompt, rest = (tokenizer().backend_tokenizer.encode(text).ids for text in (asked, answer))
        writer.add(Tokens(prompt + rest, [len(prompt), len(prompt) + len(rest)]))
    writer.close()
    write_plan(folder, one_each(len(texts)))
    tokenizer().backend_tokenizer.save(str(folder / TOKENIZER))
    return folder


def look(folder: Path, count: int = 1, *, colour: bool = False, extent: Extent = WHOLE, seed: int = 0) -> str:
    asked = Dataset.model_validate({"sources": [{"uri": "pvc://d/x"}], "sequenceLength": 2048, "packing": "none"})
    return "\n".join(describe(folder, asked, count, seed=seed, paint=Paint(colour), extent=extent))


def words(tokens: str) -> str:
    """The texts of `number'text'  number'text'`, joined."""
    return "".join(re.findall(r"\d+'(.*?)'(?=  |\n|$)", tokens))


def test_what_is_trained_on_stands_between_marks_in_the_text_and_in_the_tokens(tmp_path: Path) -> None:
    told = look(folder_of(tmp_path, ("### Instruction\nName a rank.\n", "Rank 0.<|endoftext|>")))
    assert "### Instruction\nName a rank.\n»Rank 0.<|endoftext|>«\n" in told
    prompt, _, answer = told.partition("tokens:\n")[2].partition("»")
    assert words(prompt) == r"### Instruction\nName a rank.\n"
    assert words(answer.partition("«")[0]) == "Rank 0.<|endoftext|>"


def test_on_a_terminal_it_is_green_line_by_line(tmp_path: Path) -> None:
    told = look(folder_of(tmp_path, ("ask ", "one\ntwo")), colour=True)
    assert "ask \x1b[32mone\x1b[0m\n\x1b[32mtwo\x1b[0m" in told
    assert "»" not in told


def test_colours_change_nothing_but_colours(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ("ask ", "tell"), ("ask more ", "tell more"))
    plain, coloured = (look(folder, 2, colour=colour).splitlines() for colour in (False, True))
    stripped = [ESCAPE.sub("", line) for line in coloured]
    assert [re.sub("[»«]|--- | ---", "", line) for line in plain if "▒" not in line] == stripped


def test_text_cannot_move_the_cursor_of_the_terminal(tmp_path: Path) -> None:
    told = look(folder_of(tmp_path, ("a\x1b[2Jb\x00c\td\r\n", "e\x9b")))
    assert "a\\x1b[2Jb\\x00c\td\\r\n»e\\x9b«" in told
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", told)


def test_characters_of_several_tokens_are_whole_in_the_text(tmp_path: Path) -> None:
    assert "»Über 漢字 🦅«" in look(folder_of(tmp_path, ("? ", "Über 漢字 🦅")))


def test_a_log_shows_the_beginning_and_says_how_much_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ("word " * 300, "answer"))
    whole, short = look(folder), look(folder, extent=SHORT)
    assert "answer" in whole
    assert "word …" in short
    assert re.search(r"… and \d+ more$", short.partition("\n---")[0], re.MULTILINE)
    assert len(short) < 1500


def test_lines_of_tokens_have_a_bounded_width(tmp_path: Path) -> None:
    lines = look(folder_of(tmp_path, ("many words " * 60, "x"))).partition("tokens:\n")[2].splitlines()
    assert all(len(line) <= WIDTH + 2 for line in lines[:-2])


def test_the_seed_chooses_the_samples(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *((f"question {number} ", "x") for number in range(50)))
    assert look(folder, 3, seed=1) == look(folder, 3, seed=1) != look(folder, 3, seed=2)
    assert len(set(re.findall(r"question \d+", look(folder, 9)))) == 9


def test_more_samples_than_documents_show_each_once(tmp_path: Path) -> None:
    told = look(folder_of(tmp_path, ("a ", "x"), ("b ", "x")), 9)
    assert sorted(re.findall(r"sample \d of 2: document (\d) of 2", told)) == ["0", "1"]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=64), st.booleans())
def test_a_bar_is_filled_as_its_row_is(lengths: list[int], colour: bool) -> None:
    capacity = max(sum(lengths), 64)
    bar = ESCAPE.sub("", Paint(colour).bar(lengths, capacity))
    assert len(bar) == BAR
    assert bar.count("·") == BAR - round(BAR * sum(lengths) / capacity)


def test_a_row_is_drawn_with_its_documents_and_its_fill() -> None:
    assert Paint().bar([16, 8, 32], 64) == "█" * 16 + "▒" * 8 + "█" * 32 + "·" * 8


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Records and a tokenizer; no weights."""
    made = Workshop(tmp_path)
    monkeypatch.setattr(layout, "SOURCES", made.sources)
    made.put_records(RECORDS.read_text())
    tokenizer().save_pretrained(made.sources / "models" / "base")
    return made


def shown(shop: Workshop, count: int = 2, **heads: dict[str, Any]) -> str:
    return "\n".join(show(shop.config(**heads), shop.layout, count, seed=42, paint=Paint()))


def test_records_that_are_not_prepared_are_shown_as_prepare_would_write_them(shop: Workshop) -> None:
    told = shown(shop, 12)
    assert told.startswith("Not prepared yet: all usable records as prepare would write them (format dolly)")
    assert "### Instruction\nWhat is a rank?\n\n### Answer\n»One process of the gang" in told
    assert "rows of 96 tokens, packing best-fit" in told
    assert not shop.layout.root.exists()


def test_a_large_data_set_is_shown_by_a_random_part(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "TOKENIZED", 5)
    told = shown(shop)
    assert told.startswith("Not prepared yet: 5 of 12 usable records")
    assert "of 5, " in told


def test_what_cannot_be_used_is_told_and_the_rest_is_shown(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.put_records(RECORDS.read_text() + "{broken")
    assert "all usable records" in shown(shop)
    assert "records.jsonl line 13: is not JSON" in capsys.readouterr().out


def test_without_a_usable_record_there_is_nothing_to_show(shop: Workshop) -> None:
    shop.put_records("{broken")
    with pytest.raises(StageError, match=r"all 1 records in records\.jsonl"):
        shown(shop)


def test_without_a_tokenizer_it_is_said_that_the_model_is_missing(shop: Workshop) -> None:
    shutil.rmtree(shop.sources / "models" / "base")
    with pytest.raises(StageError, match="no such folder on the claim"):
        shown(shop)
