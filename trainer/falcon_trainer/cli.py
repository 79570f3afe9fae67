"""`falcon-trainer STAGE`: runs one stage, or one rank of it, and leaves behind how it ended."""

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig
from falcon_trainer.endings import write_ending
from falcon_trainer.faults import understand
from falcon_trainer.generate import command
from falcon_trainer.layout import CONFIG, RunLayout
from falcon_trainer.numbers import whole
from falcon_trainer.outcome import ExitCode, Outcome, StageError
from falcon_trainer.stacks import offer_stacks
from falcon_trainer.told import read_config

Stage = Callable[[RunConfig, Beats, RunLayout], dict[str, Any]]


def _prepare() -> Stage:
    from falcon_trainer.data.prepare import prepare

    return prepare


def _train() -> Stage:
    from falcon_trainer.train.stage import train

    return train


def _merge() -> Stage:
    from falcon_trainer.merge.stage import merge

    return merge


def _serve() -> Stage:
    from falcon_trainer.serve.stage import serve

    return serve


def _evaluate() -> Stage:
    from falcon_trainer.evaluate.stage import evaluate

    return evaluate


def _publish() -> Stage:
    from falcon_trainer.publish.stage import publish

    return publish


STAGES: dict[str, tuple[Callable[[], Stage], str]] = {
    "prepare": (_prepare, "check, format, tokenize and pack the records; fetch the base model"),
    "train": (_train, "one rank of the gang that trains the adapter (started by torchrun)"),
    "merge": (_merge, "verify the adapter and merge it into the base, streaming"),
    "serve": (_serve, "serve the merged model with an OpenAI-compatible API"),
    "evaluate": (_evaluate, "ask the served model the stored prompts and compare its answers with the base's"),
    "publish": (_publish, "copy the adapter or the merged model to a claim, a bucket or the Hub"),
}
"""Each stage's loader (torch is imported only by the stages that need it) and its help."""


def _generate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Asks the base, the adapter or the merged model."""
    config = read_config(arguments.config)
    return {"answers": command.run(config, RunLayout(config.run), arguments)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="falcon-trainer", description=__doc__)
    stages = root.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, (_, help_text) in STAGES.items():
        stage = stages.add_parser(name, help=help_text, description=help_text)
        stage.set_defaults(run=_run_stage)
        _add_config(stage)
        if name == "prepare":
            _add_look(stage)
    ask = stages.add_parser("generate", help="answer prompts with the base, the adapter or the merged model")
    ask.set_defaults(run=_generate)
    _add_config(ask)
    command.add_arguments(ask)
    return root


def _add_look(stage: argparse.ArgumentParser) -> None:
    look = stage.add_argument_group("a look at the data, without preparing it")
    look.add_argument(
        "--show", type=whole(1), metavar="N", help="print N random samples and a few rows, prepared or not yet"
    )
    look.add_argument("--seed", type=whole(0), metavar="SEED", help="choose other samples (default: training.seed)")
    look.add_argument("--color", action="store_true", help="in colours even where stdout is no terminal")


def _add_config(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--config", type=Path, default=CONFIG, help="run configuration, JSON or YAML (%(default)s)")


def _run_stage(arguments: argparse.Namespace) -> dict[str, Any]:
    if _looks(arguments):
        return _show(read_config(arguments.config), arguments)
    # Before anything that may hang; not in a look or in `generate`, which may run beside a stage in its pod.
    offer_stacks(_rank())
    config = read_config(arguments.config)
    return STAGES[arguments.stage][0]()(config, Beats(arguments.stage, _rank()), RunLayout(config.run))


def _looks(arguments: argparse.Namespace) -> bool:
    return getattr(arguments, "show", None) is not None


def _show(config: RunConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prints a look at the data."""
    from falcon_trainer.data.paint import Paint
    from falcon_trainer.data.showing import show

    paint = Paint(colour=arguments.color or (sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    seed = config.training.seed if arguments.seed is None else arguments.seed
    for line in show(config, RunLayout(config.run), arguments.show, seed=seed, paint=paint):
        print(line)
    return {"shown": arguments.show}


def _rank() -> int:
    """Global rank, as torchrun tells it."""
    return int(os.environ.get("RANK", "0"))


def run(arguments: argparse.Namespace) -> tuple[ExitCode, Outcome]:
    """Runs one command in this process; never raises, whatever it does."""
    stage, rank = arguments.stage, _rank()
    try:
        result = arguments.run(arguments)
        return ExitCode.OK, Outcome(reason="Completed", message=f"{stage} completed", rank=rank, result=result)
    except KeyboardInterrupt:
        return ExitCode.STOPPED, Outcome(reason="Stopped", message="stopped on request", retryable=True, rank=rank)
    except BaseException as error:
        if not isinstance(error, StageError):
            traceback.print_exc()
        known = understand(error, stage)
        return known.code, known.outcome(rank)


def _tell_launcher(code: ExitCode, outcome: Outcome) -> None:
    try:
        write_ending(_rank(), code, outcome)
    except OSError as error:
        print(f"the outcome could not be written for the launcher: {error}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `falcon-trainer` and of each rank that torchrun starts."""
    arguments = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # records hold any character, terminals and logs do not
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    code, outcome = run(arguments)
    # What is run by hand inside a stage's pod is no business of the pod's launcher.
    if arguments.stage in STAGES and not _looks(arguments):
        _tell_launcher(code, outcome)
    if code != ExitCode.OK:
        print(f"{arguments.stage} failed: {outcome.reason}: {outcome.message}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: a rank whose peers are gone can hang for minutes in the destructors of its process group.
        os._exit(code)
    sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
