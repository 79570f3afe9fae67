"""`serve.args` of the engine transformers: what they say, and what is refused."""

from pathlib import Path

import pytest

from falcon_trainer.serve.arguments import ArgumentsError, EngineArguments, engine_arguments
from falcon_trainer.serve.engine import engine_command, engine_environment

SAID: dict[str, tuple[list[str], EngineArguments]] = {
    "nothing": ([], EngineArguments()),
    "a name and its value": (["--dtype", "bfloat16"], EngineArguments(dtype="bfloat16")),
    "a name and its value in one": (["--attn-implementation=eager"], EngineArguments(attention="eager")),
    "threads and queue": (["--threads=2", "--max-waiting=8"], EngineArguments(threads=2, most_waiting=8)),
    "sampling": (
        ["--temperature", "0.2", "--top-p", "0.9", "--top-k", "40"],
        EngineArguments(sampling={"temperature": 0.2, "top_p": 0.9, "top_k": 40}),
    ),
    "the last one wins": (["--temperature=1", "--temperature=0"], EngineArguments(sampling={"temperature": 0})),
}


@pytest.mark.parametrize(("args", "expected"), SAID.values(), ids=SAID)
def test_arguments_say(args: list[str], expected: EngineArguments) -> None:
    assert engine_arguments(args, gpus=0) == expected


REFUSED: dict[str, tuple[list[str], str]] = {
    "an argument of vLLM": (["--enable-lora"], "unrecognized arguments: --enable-lora"),
    "a beginning of a name": (["--temp=1"], "unrecognized arguments: --temp=1"),
    "two words in one item": (["--dtype bfloat16"], "a name and its value are two items"),
    "a missing value": (["--threads"], "argument --threads: expected one argument"),
    "an unknown element type": (["--dtype=int8"], "argument --dtype: invalid choice: 'int8'"),
    "no threads": (["--threads=0"], "argument --threads: '0' is not a whole number from 1 to 1024"),
    "digits that int() cannot read": (["--threads=²"], "'²' is not a whole number"),
    "a long number": (["--threads=" + "9" * 5000], "is not a whole number"),
    "a temperature that is no number": (["--temperature=nan"], "'nan' is not a number of at least 0 and at most 2"),
    "a top-p of zero": (["--top-p=0"], "'0' is not a number above 0 and at most 1"),
    "help": (["--help"], "unrecognized arguments: --help"),
    "flash attention without a GPU": (["--attn-implementation=flash_attention_2"], "needs GPUs, and serve.gpus is 0"),
}


@pytest.mark.parametrize(("args", "said"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused_in_one_sentence(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArgumentsError) as caught:
        engine_arguments(args, gpus=0)
    assert str(caught.value).startswith("serve.args: ")
    assert said in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_flash_attention_is_taken_where_the_server_has_gpus() -> None:
    assert engine_arguments(["--attn-implementation=flash_attention_2"], gpus=1).attention == "flash_attention_2"


def test_the_engine_is_told() -> None:
    command = engine_command(Path("/m"), 5, "cpu", EngineArguments(dtype="float16", attention="eager"))
    assert command[-4:] == ["--dtype", "float16", "--attn-implementation", "eager"]
    assert "--attn-implementation" not in engine_command(Path("/m"), 5, "cpu", EngineArguments())
    inherited = {"OMP_NUM_THREADS": "8", "FALCON_API_KEY": "secret", "HOME": "/tmp"}
    assert engine_environment(inherited, EngineArguments(threads=2)) == {"OMP_NUM_THREADS": "2", "HOME": "/tmp"}
    assert engine_environment(inherited, EngineArguments())["OMP_NUM_THREADS"] == "8"
