"""The launcher's course: told, ready, run, judged."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from falcon_trainer.beats import read_beats
from falcon_trainer.config import RunConfig
from falcon_trainer.endings import read_endings
from falcon_trainer.launcher import command, processes
from falcon_trainer.launcher.cgroup import Cgroup
from falcon_trainer.launcher.deaths import NAME as DEATHS
from falcon_trainer.launcher.deaths import read_deaths
from falcon_trainer.launcher.guard import Guard
from falcon_trainer.launcher.hang import Patience
from falcon_trainer.launcher.inquiry import Inquiry
from falcon_trainer.launcher.ranks import Ranks
from falcon_trainer.launcher.rendezvous import await_rendezvous
from falcon_trainer.launcher.server import Server
from falcon_trainer.launcher.settings import Settings, read_settings
from falcon_trainer.launcher.state import State
from falcon_trainer.launcher.tail import Tail
from falcon_trainer.launcher.verdict import Evidence, judge
from falcon_trainer.layout import (
    CONFIG,
    PROGRESS_PORT,
    RENDEZVOUS_PORT,
    RUNTIME,
    TERMINATION_LOG,
    WORKSPACE,
    RunLayout,
)
from falcon_trainer.outcome import ExitCode, Outcome, StageError
from falcon_trainer.told import read_config
from falcon_trainer.wire import seconds

STAGES = ("prepare", "train", "merge", "serve", "evaluate", "publish")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the launcher finds and leaves things: the pod's own paths and ports."""

    config: Path = CONFIG
    runtime: Path = RUNTIME
    workspace: Path = WORKSPACE
    termination_log: Path = TERMINATION_LOG
    progress_port: int = PROGRESS_PORT
    rendezvous_port: int = RENDEZVOUS_PORT
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    module: str = command.RANK_MODULE
    """What each process of the stage runs."""
    agent: str = command.AGENT_MODULE
    """What starts the ranks of a gang."""


def command_line(argv: Sequence[str]) -> int:
    """Entry point, with the signals blocked already; the exit code of the pod."""
    parser = argparse.ArgumentParser(prog="falcon-launcher", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    return launch(parser.parse_args(argv).stage)


def launch(stage: str, place: Place | None = None) -> int:
    """Runs `stage` and writes its outcome as the pod's termination message; the exit code of the pod."""
    place = place or Place()
    try:
        code, outcome = _launch(stage, place)
    except StageError as error:
        code, outcome = error.code, error.outcome()
    except Exception as error:
        traceback.print_exc()
        code, outcome = ExitCode.INTERNAL, _internal(f"the launcher of {stage} failed: {type(error).__name__}: {error}")
    _leave(outcome, place.termination_log)
    return code


def _launch(stage: str, place: Place) -> tuple[ExitCode, Outcome]:
    config, settings = read_config(place.config), read_settings(place.env)
    _clear(place.runtime)
    state = State(stage, config.run, command.local_ranks(stage, config, settings), place.runtime)
    Server(state, place.progress_port).start()
    if stage == "train" and config.gang.nodes > 1:
        began = time.monotonic()
        if not _meet(config, settings, state, place):
            return ExitCode.STOPPED, _stopped("stopped on request while the gang was assembling")
        print(f"rank 0's pod was found after {time.monotonic() - began:.1f} s", file=sys.stderr)
    state.say("start", f"starting {stage}")
    return _run(stage, config, settings, state, place)


def _meet(config: RunConfig, settings: Settings, state: State, place: Place) -> bool:
    return await_rendezvous(
        command.rendezvous_address(config, settings),
        node_rank=settings.node_rank,
        patience=settings.rendezvous_seconds,
        say=_once(lambda missing: state.say("rendezvous", missing)),
        sleep=processes.wait_for_stop,
        port=place.progress_port,
    )


def _run(stage: str, config: RunConfig, settings: Settings, state: State, place: Place) -> tuple[ExitCode, Outcome]:
    cgroup = Cgroup()
    kills_before = cgroup.oom_kills() or 0
    processes.adopt_orphans()
    tail = Tail()
    told = {"FALCON_CONFIG": str(place.config), "FALCON_RUNTIME": str(place.runtime)}
    inherited = command.without_empty(place.env) | told
    guard = _guard(config, settings, state, place)
    ended = processes.supervise(
        command.stage_command(
            stage, config, settings, module=place.module, agent=place.agent, port=place.rendezvous_port
        ),
        command.stage_environment(stage, config, settings, inherited, cgroup.cpus()),
        stderr=tail.write_end,
        grace_seconds=settings.grace_seconds,
        guard=guard.look if stage == "train" else state.watch,
    )
    tail.close()
    return judge(
        Evidence(
            stage=stage,
            local_ranks=command.local_ranks(stage, config, settings),
            ended=ended,
            endings=read_endings(place.runtime),
            deaths=read_deaths(place.runtime),
            oom_kills=(cgroup.oom_kills() or 0) - kills_before,
            memory_limit=cgroup.memory_limit(),
            tail=tail.lines(),
            beats={rank: beat.progress for rank, beat in read_beats(place.runtime).items()},
            hang=guard.hang,
            killed=frozenset(guard.killed),
        )
    )


def _guard(config: RunConfig, settings: Settings, state: State, place: Place) -> Guard:
    timeout = config.gang.hang_timeout
    layout = RunLayout(config.run, place.workspace)
    inquiry = Inquiry(
        ranks=Ranks(command.local_ranks("train", config, settings)),
        runtime=place.runtime,
        report=layout.report,
        shown_report=layout.relative(layout.report),
        attempt=settings.attempt,
        configured=timeout is not None,
    )
    patience = Patience(hang_timeout=seconds(timeout) if timeout else None, limits=settings.patience)
    return Guard(state, inquiry, patience, alone=config.gang.nodes == 1)


def _clear(runtime: Path) -> None:
    """A container that starts anew in the same pod must not read what the last one left."""
    runtime.mkdir(parents=True, exist_ok=True)
    for pattern in ("beat-*", "outcome-*", "stacks-*", DEATHS):
        for path in runtime.glob(pattern):
            path.unlink(missing_ok=True)


def _leave(outcome: Outcome, termination_log: Path) -> None:
    print(f"outcome: {outcome.reason}: {outcome.message}", file=sys.stderr)
    try:
        termination_log.write_text(outcome.encode())
    except OSError as error:
        print(f"the termination message could not be written ({error}): not in a pod?", file=sys.stderr)


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, and a line in the log whenever what is said changes."""
    last = ""

    def told(message: str) -> None:
        nonlocal last
        if message != last:
            print(f"waiting for the gang: {message}", file=sys.stderr)
        last = message
        say(message)

    return told


def _internal(message: str) -> Outcome:
    return Outcome(reason="InternalError", message=message, retryable=True)


def _stopped(message: str) -> Outcome:
    return Outcome(reason="Stopped", message=message, retryable=True)
