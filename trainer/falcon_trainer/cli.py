"""`falcon-trainer STAGE`: runs one stage, or one rank of it, and leaves behind how it ended."""

import argparse
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
from falcon_trainer.layout import CONFIG, RunLayout
from falcon_trainer.outcome import ExitCode, Outcome, StageError
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


STAGES: dict[str, tuple[Callable[[], Stage], str]] = {
    "prepare": (_prepare, "check, format, tokenize and pack the records; fetch the base model"),
    "train": (_train, "one rank of the gang that trains the adapter (started by torchrun)"),
    "merge": (_merge, "verify the adapter and merge it into the base, streaming"),
    "serve": (_serve, "serve the merged model with an OpenAI-compatible API"),
}
"""Each stage's loader (torch is imported only by the stages that need it) and its help."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="falcon-trainer", description=__doc__)
    stages = root.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, (_, help_text) in STAGES.items():
        stage = stages.add_parser(name, help=help_text, description=help_text)
        stage.add_argument("--config", type=Path, default=CONFIG, help="run configuration, JSON or YAML (%(default)s)")
    return root


def run_stage(stage: str, config_path: Path, rank: int) -> tuple[ExitCode, Outcome]:
    """Runs one stage in this process; never raises, whatever the stage does."""
    try:
        config = read_config(config_path)
        result = STAGES[stage][0]()(config, Beats(stage, rank), RunLayout(config.run))
        return ExitCode.OK, Outcome(reason="Completed", message=f"{stage} completed", rank=rank, result=result)
    except KeyboardInterrupt:
        return ExitCode.STOPPED, Outcome(reason="Stopped", message="stopped on request", retryable=True, rank=rank)
    except BaseException as error:
        if not isinstance(error, StageError):
            traceback.print_exc()
        known = understand(error, stage)
        return known.code, known.outcome(rank)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `falcon-trainer` and of each rank that torchrun starts."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    rank = int(os.environ.get("RANK", "0"))
    code, outcome = run_stage(arguments.stage, arguments.config, rank)
    try:
        write_ending(rank, code, outcome)
    except OSError as error:
        print(f"the outcome could not be written for the launcher: {error}", file=sys.stderr)
    if code != ExitCode.OK:
        print(f"{arguments.stage} failed: {outcome.reason}: {outcome.message}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: a rank whose peers are gone can hang for minutes in the destructors of its process group.
        os._exit(code)
    sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
