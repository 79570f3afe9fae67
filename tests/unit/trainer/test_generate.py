"""`falcon-trainer generate`: the recipe's inference step, with a tiny base."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from falcon_trainer import layout as layouts
from falcon_trainer.cli import parser
from falcon_trainer.config import RunConfig
from falcon_trainer.data.prompt import CHAT_TEMPLATE, heading
from falcon_trainer.data.tokenization import TEMPLATE
from falcon_trainer.generate import command
from falcon_trainer.generate.answering import Answer, Settings, answers
from falcon_trainer.generate.prompts import of_texts
from falcon_trainer.outcome import ExitCode, StageError
from tests.unit.trainer.workshop import Workshop

POSITIONS = 256


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A run with a base and a chat template; nothing is trained."""
    made = Workshop(tmp_path_factory.mktemp("generate"))
    made.put_base(max_position_embeddings=POSITIONS)
    made.layout.data.mkdir(parents=True)
    (made.layout.data / TEMPLATE).write_text(CHAT_TEMPLATE)
    return made


@pytest.fixture(autouse=True)
def _claims(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "SOURCES", shop.sources)


def run(shop: Workshop, *arguments: str) -> int:
    """As on the command line, with the base."""
    told = parser().parse_args(["generate", "--which", "base", "--max-new-tokens", "8", *arguments])
    return command.run(shop.config(), shop.layout, told)


def greedy(shop: Workshop, text: str, count: int = 8) -> str:
    """What the base says after a raw text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shop.sources / "models" / "base"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": count, "pad_token_id": tokenizer.eos_token_id}
    tokens = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **settings)
    return str(tokenizer.decode(tokens[0, len(ids) :], skip_special_tokens=True))


def test_each_message_is_asked_in_the_runs_template_and_printed(
    shop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shop, "Why?", "What is a rank?") == 2
    expected = [f"> {asked}\n{greedy(shop, heading(asked))}\n\n" for asked in ("Why?", "What is a rank?")]
    assert capsys.readouterr().out == "".join(expected)


def test_a_raw_prompt_is_asked_as_it_stands(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    run(shop, "--raw", "Once upon")
    assert capsys.readouterr().out == f"> Once upon\n{greedy(shop, 'Once upon')}\n\n"


def test_a_streamed_answer_is_the_same(shop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    run(shop, "Why?")
    whole = capsys.readouterr().out
    run(shop, "--stream", "Why?")
    assert capsys.readouterr().out.split() == whole.split()


def test_a_file_of_prompts_becomes_a_file_of_answers(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"instruction": "Why?", "context": ""}\n{"prompt": "What is a rank?"}\n')
    output = tmp_path / "answers.jsonl"
    assert run(shop, "--file", str(tmp_path / "asked.jsonl"), "--output", str(output)) == 2
    first, second = map(json.loads, output.read_text().splitlines())
    assert (first["messages"], second["prompt"]) == ([{"role": "user", "content": "Why?"}], "What is a rank?")
    assert first["answer"] == greedy(shop, heading("Why?"))
    assert (first["finishReason"], first["completionTokens"]) == ("length", 8)
    assert second["promptTokens"] > first["promptTokens"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "asked.jsonl"]


def test_all_prompts_are_checked_before_the_first_is_answered(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("Why?\n" + "word " * POSITIONS)
    with pytest.raises(StageError, match=r"asked\.txt line 2: has \d+ tokens, and the model 256 positions"):
        run(shop, "--file", str(tmp_path / "asked.txt"), "--output", str(tmp_path / "answers.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["asked.txt"]


def test_a_missing_folder_of_the_output_is_refused_before_a_model_is_loaded(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falcon_trainer.generate.answering.answers", None)
    with pytest.raises(StageError, match="there is no folder") as refused:
        run(shop, "Why?", "--output", str(tmp_path / "missing" / "answers.jsonl"))
    assert refused.value.code == ExitCode.CONFIGURATION


def test_answers_that_break_off_never_have_the_name_of_whole_ones(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Iterator[Answer]:
        yield Answer("Because.", "stop", 3, 2)
        raise MemoryError

    monkeypatch.setattr("falcon_trainer.generate.answering.answers", broken)
    with pytest.raises(MemoryError):
        run(shop, "Why?", "How?", "--output", str(tmp_path / "answers.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl.partial"]
    assert json.loads((tmp_path / "answers.jsonl.partial").read_text())["answer"] == "Because."


def test_a_drawn_answer_is_repeatable_and_depends_on_no_other(shop: Workshop) -> None:
    def drawn(asked: list[str], seed: int) -> list[str]:
        settings = Settings(temperature=1.5, top_p=0.95, seed=seed, max_new_tokens=12)
        found = answers(shop.config(), shop.layout, of_texts(asked), which="base", settings=settings)
        return [answer.text for answer in found]

    first = drawn(["Why?", "How?"], seed=1)
    assert drawn(["How?"], seed=1) == first[1:]
    assert drawn(["Why?"], seed=2) != first[:1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a prompt, or --file with prompts"),
        (["--stream", "--output", "x", "Why?"], "leave one of them out"),
        (["--which", "merged", "Why?"], "holds no merged yet"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(shop: Workshop, arguments: list[str], said: str) -> None:
    with pytest.raises(StageError, match=said):
        run(shop, *arguments)


def test_messages_need_a_template(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"messages": [{"role": "user", "content": "Why?"}]}')
    with pytest.raises(StageError, match=r"asked\.jsonl line 1: holds messages, but --raw was asked for") as caught:
        run(shop, "--raw", "--file", str(tmp_path / "asked.jsonl"))
    assert caught.value.code == ExitCode.DATA


def test_a_run_that_was_trained_on_text_is_asked_in_no_template(
    shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config: RunConfig = shop.config().model_copy(update={"run": "text"})
    layout = Workshop(shop.root, run="text").layout
    told = parser().parse_args(["generate", "--which", "base", "--max-new-tokens", "8", "Once upon"])
    command.run(config, layout, told)
    assert capsys.readouterr().out == f"> Once upon\n{greedy(shop, 'Once upon')}\n\n"
    (tmp_path / "asked.jsonl").write_text('{"instruction": "Why?"}')
    told = parser().parse_args(["generate", "--which", "base", "--file", str(tmp_path / "asked.jsonl")])
    with pytest.raises(StageError, match="the run was trained on text and has no chat template"):
        command.run(config, layout, told)


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        "a temperature": (["--temperature", "3"], "'3' is not a number of at least 0 and at most 2"),
        "a share": (["--top-p", "0"], "'0' is not a number above 0 and at most 1"),
        "a length": (["--max-new-tokens", "0"], "'0' is not a whole number of at least 1"),
        "a seed": (["--seed", "-1"], "'-1' is not a whole number of at least 0"),
        "a model": (["--which", "tuned"], "invalid choice: 'tuned'"),
    }.values(),
)
def test_arguments_out_of_range_are_refused_by_name(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["generate", *arguments, "Why?"])
    assert said in capsys.readouterr().err
