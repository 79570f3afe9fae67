"""`falcon-trainer generate`: its arguments, and where its answers go."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from falcon_trainer.config import RunConfig
from falcon_trainer.layout import RunLayout
from falcon_trainer.numbers import real, whole
from falcon_trainer.outcome import ExitCode, StageError

if TYPE_CHECKING:  # imported when prompts are answered: the command line of every rank has this module
    from falcon_trainer.generate.answering import Answer
    from falcon_trainer.generate.prompts import Prompt

DESCRIPTION = """\
Answers prompts with the base, the adapter or the merged model of a run, without a server. The prompt is built with the
run's chat template, as the endpoint builds it; runs that were trained on text have none, and their prompts are taken as
they stand.
"""
EXAMPLES = """\
examples:
  falcon-trainer generate --config run.yaml "Why is the sky blue?"
  falcon-trainer generate --config run.yaml --file questions.txt --which base
  falcon-trainer generate --config run.yaml --file test.jsonl --output answers.jsonl --temperature 0.7 --seed 1

A FILE whose name ends in .jsonl, .json, .csv, .tsv, .parquet or .arrow (also compressed) holds records with one of:
  prompt or text                         a text, asked like one on the command line; prompt may be a list of messages
  instruction, and context or input      as Dolly and Alpaca have them
  messages, or conversations             OpenAI's and ShareGPT's chats; an answer at their end is left out
Any other FILE is a text with one prompt a line; blank lines are passed over.

Each line of --output is a JSON object: prompt or messages, answer, finishReason (stop or length), promptTokens,
completionTokens. FILE.partial holds the answers so far and is renamed when all are there.
"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Of the subcommand, beside --config."""
    command.description, command.epilog = DESCRIPTION, EXAMPLES
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("prompt", nargs="*", help="a user's message; each is asked by itself")
    command.add_argument("--file", type=Path, metavar="FILE", help="a file of prompts, asked after those given here")
    command.add_argument(
        "--which", choices=("base", "adapter", "merged"), default="merged", help="who answers (default: %(default)s)"
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="write JSON Lines instead of printing the answers")
    command.add_argument("--raw", action="store_true", help="prompts as they stand, without the run's chat template")
    command.add_argument("--stream", action="store_true", help="print each answer while it is drawn")
    drawing = command.add_argument_group("how answers are drawn")
    drawing.add_argument(
        "--max-new-tokens", type=whole(1), default=128, metavar="N", help="longest answer (default: %(default)s)"
    )
    drawing.add_argument(
        "--temperature", type=real(0, 2), default=0.0, metavar="T", help="0, the default: always the likeliest token"
    )
    drawing.add_argument(
        "--top-p",
        type=real(0, 1, above=True),
        default=1.0,
        metavar="P",
        help="likeliest tokens drawn from (default: 1)",
    )
    drawing.add_argument("--seed", type=whole(0), metavar="SEED", help="makes drawn answers repeatable")


def run(config: RunConfig, layout: RunLayout, arguments: argparse.Namespace) -> int:
    """Answers all prompts, and returns how many. Raises StageError."""
    from falcon_trainer.generate.answering import Settings, answers
    from falcon_trainer.generate.prompts import of_texts, read_prompts

    if arguments.output and arguments.stream:
        raise _wrong("--stream prints answers and --output writes them to a file: leave one of them out")
    if arguments.output and not arguments.output.absolute().parent.is_dir():
        raise _wrong(f"--output: there is no folder {arguments.output.parent}")
    prompts = of_texts(arguments.prompt) + (read_prompts(arguments.file) if arguments.file else [])
    if not prompts:
        raise _wrong("give a prompt, or --file with prompts")
    settings = Settings(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        raw=arguments.raw,
        stream=arguments.stream,
    )
    answered = answers(config, layout, prompts, which=arguments.which, settings=settings)
    if arguments.output:
        _write(arguments.output, prompts, answered)
    else:
        _print(prompts, answered, streamed=settings.stream)
    return len(prompts)


def _print(prompts: "Sequence[Prompt]", answered: "Iterator[Answer]", *, streamed: bool) -> None:
    """Each prompt and its answer; a streamed one prints itself while it is drawn."""
    for prompt in prompts:
        print(f"> {prompt.shown}", flush=True)
        answer = next(answered)
        print("" if streamed else f"{answer.text}\n", flush=True)


def _write(path: Path, prompts: "Sequence[Prompt]", answered: "Iterator[Answer]") -> None:
    """JSON Lines in a file that has its name once it is whole."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for number, (prompt, answer) in enumerate(zip(prompts, answered, strict=True), start=1):
            file.write(json.dumps(_told(prompt, answer), ensure_ascii=False) + "\n")
            file.flush()
            print(f"answered {number} of {len(prompts)}", file=sys.stderr)
    partial.replace(path)


def _told(prompt: "Prompt", answer: "Answer") -> dict[str, object]:
    return {
        **({"messages": prompt.messages} if prompt.messages else {"prompt": prompt.text}),
        "answer": answer.text,
        "finishReason": answer.finish,
        "promptTokens": answer.prompt_tokens,
        "completionTokens": answer.tokens,
    }


def _wrong(what: str) -> StageError:
    return StageError(ExitCode.CONFIGURATION, "InvalidArguments", f"{what}.")
