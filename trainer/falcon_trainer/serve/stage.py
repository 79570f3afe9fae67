"""The serve stage: the engine, the API in front of it, and an orderly end."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from falcon_trainer.beats import Beats
from falcon_trainer.config import RunConfig, Serve
from falcon_trainer.launcher.cgroup import Cgroup
from falcon_trainer.layout import SERVE_PORT, RunLayout
from falcon_trainer.listening import listening_socket
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.serve.answering import Answering
from falcon_trainer.serve.app import Endpoint
from falcon_trainer.serve.arguments import ArgumentsError, EngineArguments, engine_arguments
from falcon_trainer.serve.authorization import Guard, told_key
from falcon_trainer.serve.draining import Draining, Patience
from falcon_trainer.serve.engine import SILENT_SECONDS, Engine
from falcon_trainer.serve.errors import ApiError
from falcon_trainer.serve.health import Health
from falcon_trainer.serve.metrics import Metrics
from falcon_trainer.serve.model import ServedModel, checked_folder, load_served_model, names_of
from falcon_trainer.serve.turns import Turns

LOOK_SECONDS = 0.1
BEAT_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 75
"""Longer than clients and proxies keep idle connections, so that they close them and never write into a closing one."""

log = logging.getLogger("falcon_trainer.serve")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is served, and how."""

    name: str
    folder: Path
    settings: Serve
    arguments: EngineArguments
    guard: Guard | None

    @classmethod
    def of(cls, config: RunConfig, layout: RunLayout) -> "Told":
        """Raises StageError where it cannot be served so."""
        try:
            arguments = engine_arguments(config.serve.args, gpus=config.serve.gpus)
        except ArgumentsError as error:
            raise StageError(ExitCode.CONFIGURATION, "InvalidConfiguration", str(error)) from error
        key = told_key(os.environ)
        return cls(
            name=config.run,
            folder=checked_folder(layout.workspace, config.merged),
            settings=config.serve,
            arguments=arguments,
            guard=Guard(key) if key else None,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may call the model."""
        return names_of(self.name, self.settings.alias)

    @property
    def device(self) -> str:
        """Not run on a GPU: with several, `auto` spreads the layers over them."""
        return "auto" if self.settings.gpus else "cpu"

    def model(self) -> ServedModel:
        """Reads what our layer needs of the model. Raises StageError."""
        return load_served_model(
            self.name,
            self.folder,
            alias=self.settings.alias,
            max_length=self.settings.max_model_length,
            sampling=self.arguments.sampling,
        )


def serve(config: RunConfig, beats: Beats, layout: RunLayout, *, port: int = SERVE_PORT) -> dict[str, Any]:
    """Serves the merged model until it is stopped. Never returns: raises StageError(STOPPED) after an orderly end, or
    another one where the model cannot be served or the engine ends by itself."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would say each request to the engine
    beats.update("check")
    asyncio.run(_Server(Told.of(config, layout), beats).run(port))
    raise StageError(ExitCode.STOPPED, "Stopped", "the server was stopped on request; answers under way were finished")


class _Server:
    """One life of the server."""

    def __init__(self, told: Told, beats: Beats) -> None:
        self._told, self._beats = told, beats
        self._patience = Patience.of(os.environ)
        self._draining = Draining(self._patience)
        self._health, self._turns = Health(self._draining), Turns(told.arguments.most_waiting)
        self._metrics = Metrics(lambda: self._turns.waiting, lambda: float(self._health.unready() is None))
        self._endpoint = Endpoint(
            told.names, self._health, self._metrics, self._restart_reason, told.guard, started=time.time()
        )
        self._engine: Engine | None = None

    async def run(self, port: int) -> None:
        """Until SIGTERM or SIGINT. Raises StageError."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        api = _Api(self._endpoint)
        listening = asyncio.create_task(api.serve(sockets=[listening_socket(port)]))
        kills_before = Cgroup().oom_kills() or 0
        self._engine = engine = await Engine.start(self._told.folder, self._told.device, self._told.arguments)
        ended = asyncio.create_task(engine.wait())
        working = asyncio.create_task(self._work(engine))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({ended, working, stopping, listening}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                api.config.timeout_graceful_shutdown = await self._linger()
            elif ended.done():
                raise _engine_died(ended.result(), self._health.loaded, (Cgroup().oom_kills() or 0) - kills_before)
            else:
                await asyncio.gather(working, listening)  # one of them has failed: says why
        finally:
            api.should_exit = True
            await asyncio.gather(listening, return_exceptions=True)
            working.cancel()
            stopping.cancel()
            await engine.end()

    async def _work(self, engine: Engine) -> None:
        """Loads what our layer needs of the model, waits for the engine, then asks it for a token now and then."""
        began = time.monotonic()
        self._beats.update("load", message=f"loading {self._told.folder}")
        model = await asyncio.to_thread(self._told.model)
        await engine.until_it_responds()
        answering = self._endpoint.answering = Answering(model, engine, self._turns, self._health, self._metrics)
        await self._probe(answering)
        log.info("serving %s: the first token came after %.1f s", " and ".join(model.names), time.monotonic() - began)
        while True:
            if self._health.probe_due() and not self._turns.busy:
                await self._probe(answering)
            self._beats.update("serve", message=self._health.unready())
            await asyncio.sleep(BEAT_SECONDS)

    async def _probe(self, answering: Answering) -> None:
        try:
            await answering.probe()
        except ApiError as error:
            log.warning("the model gave no token: %s", error.message)

    async def _restart_reason(self) -> str | None:
        """Why the kubelet should restart this pod."""
        if self._engine is None or not self._engine.alive:
            return "the engine does not run"
        if self._health.loaded and not await self._engine.responds():
            return "the engine does not answer"
        return self._health.stuck(SILENT_SECONDS)

    async def _linger(self) -> int:
        """Says that this pod goes, and serves on until everybody knows; the seconds left for answers under way."""
        began = time.monotonic()
        self._draining.begin()
        self._beats.update("drain")
        while self._health.loaded and not self._draining.over():  # noqa: ASYNC110 (it ends by the clock)
            await asyncio.sleep(LOOK_SECONDS)
        return max(1, round(self._patience.whole - (time.monotonic() - began)))


class _Api(uvicorn.Server):
    """uvicorn, without its own signal handlers: when to stop is the stage's decision."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(
            uvicorn.Config(
                endpoint.app(),
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=1,  # the stage says what its grace period has left by then
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def _engine_died(code: int, loaded: bool, oom_kills: int) -> StageError:
    when = "while it served" if loaded else "while it loaded the model"
    if code == -signal.SIGKILL and oom_kills > 0:
        limit = Cgroup().memory_limit()
        size = f"of {limit / 2**30:.2f} GiB " if limit else ""
        return StageError(
            ExitCode.INTERNAL,
            "OutOfMemory",
            f"the engine was killed {when} because the pod's memory limit {size}was used up. Raise "
            "resources.limits.memory in podTemplate.serve: the whole merged model and its key-value cache must fit.",
        )
    return StageError(
        ExitCode.INTERNAL,
        "EngineEnded",
        f"the engine ended {when} with {f'signal {-code}' if code < 0 else f'exit code {code}'}; "
        "what it said last is in the pod's log",
    )
