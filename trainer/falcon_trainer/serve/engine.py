"""The engine as a child process: started, asked, watched, ended."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from falcon_trainer.serve.arguments import EngineArguments
from falcon_trainer.serve.authorization import VARIABLE
from falcon_trainer.serve.question import Kind, Question

PATHS: dict[Kind, str] = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
SILENT_SECONDS = 900.0
"""The longest that the engine may take to its next token: the first one comes after the whole prompt was read."""
HEALTH_SECONDS = 5.0
END_SECONDS = 5.0


class EngineError(Exception):
    """The engine answered with an error, or not at all."""


@dataclass(frozen=True)
class Piece:
    """Some text; the last piece says why the text ends and how many tokens it has."""

    text: str = ""
    finish: str | None = None
    completion_tokens: int | None = None


class Engine:
    """One `transformers serve` on the loopback. It generates one answer at a time, whoever asks."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        # Never through a proxy. One connection for the answer and some for questions after its health.
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            timeout=httpx.Timeout(HEALTH_SECONDS, read=SILENT_SECONDS),
            trust_env=False,
        )

    @classmethod
    async def start(cls, folder: Path, device: str, arguments: EngineArguments) -> "Engine":
        """Starts the child; it answers when the model is loaded."""
        port = _free_port()
        # A session of its own: a stop of the pod must reach the answers' end before it reaches the engine. Its stdout
        # is uvicorn's access log, which would say each request a second time.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *engine_command(folder, port, device, arguments),
            env=engine_environment(os.environ, arguments),
            start_new_session=True,
            stdout=asyncio.subprocess.DEVNULL,
        )
        return cls(process, port)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """The exit code of the process when it ends; negative: a signal."""
        return await self._process.wait()

    async def responds(self) -> bool:
        """Whether the process answers at all: true as soon as the model is loaded, and while it generates."""
        try:
            response = await self._client.get("/health", timeout=HEALTH_SECONDS)
        except httpx.HTTPError:
            return False
        return response.status_code == httpx.codes.OK

    async def until_it_responds(self) -> None:
        """Waits until the model is loaded; for ever where the process has ended."""
        while not await self.responds():  # noqa: ASYNC110 (another process is asked: no event of ours tells)
            await asyncio.sleep(0.2)

    async def generate(self, question: Question) -> AsyncGenerator[Piece, None]:
        """The answer, piece by piece. Closing the iterator ends the generation. Raises EngineError."""
        try:
            async with self._client.stream("POST", PATHS[question.kind], json=question.engine_body()) as response:
                if response.status_code != httpx.codes.OK:
                    text = (await response.aread()).decode(errors="replace")
                    raise EngineError(f"status {response.status_code}: {text[:500]}")
                finished = False
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        piece = _piece(line.removeprefix("data:").strip())
                        finished = finished or piece.finish is not None
                        yield piece
                if not finished:
                    raise EngineError("its answer broke off")
        except httpx.HTTPError as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error

    async def end(self) -> None:
        """Ends the process, by force if need be."""
        await self._client.aclose()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
                    return


def engine_command(folder: Path, port: int, device: str, arguments: EngineArguments) -> list[str]:
    """What the interpreter is told."""
    attention = ["--attn-implementation", arguments.attention] if arguments.attention else []
    return [
        *("-m", "falcon_trainer.serve.engine_process", str(folder)),
        *("--port", str(port), "--device", device, "--dtype", arguments.dtype, *attention),
    ]


def engine_environment(inherited: Mapping[str, str], arguments: EngineArguments) -> dict[str, str]:
    """The engine's environment. Threads are told here, because torch reads them in each thread that computes; the token
    of the clients is none of its business.
    """
    threads = {"OMP_NUM_THREADS": str(arguments.threads)} if arguments.threads else {}
    return {name: value for name, value in inherited.items() if name != VARIABLE} | threads


def _piece(event: str) -> Piece:
    """Raises EngineError where the event is an error (whose JSON the engine does not always write right)."""
    try:
        body = json.loads(event)
        if "error" in body:
            raise EngineError(str(body["error"])[:500])
        choice, usage = body["choices"][0], body.get("usage") or {}
    except (ValueError, LookupError, TypeError) as error:
        raise EngineError(event[:500]) from error
    text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    return Piece(text, choice.get("finish_reason"), usage.get("completion_tokens"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
