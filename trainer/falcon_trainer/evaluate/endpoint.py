"""The endpoint, asked with patience: right after a rollout names resolve late and proxies still point elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

import httpx

from falcon_trainer.evaluate.questions import Question
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.report.samples import CUT

PATIENCE_SECONDS = 300.0
"""How long one question waits for an endpoint that does not answer."""
PAUSE_SECONDS, LONGEST_PAUSE = 1.0, 15.0
ANSWER_SECONDS = 600.0
"""The longest that one answer may take: a large model on few cores reads a prompt for minutes."""
CLOSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
PASSING = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Statuses of 4xx that may be other ones soon: while pods are exchanged, an old one may not know the model's name."""
LONGEST_REASON = 300
"""Characters of what an endpoint says of its error."""


@dataclass(frozen=True)
class Reply:
    """A text, which ends in CUT where it would have gone on, or why there is none."""

    text: str | None = None
    problem: str | None = None


class _NotYetError(Exception):
    """The endpoint gave no answer, and may give one later."""


class Endpoint:
    """One model behind an OpenAI-compatible API."""

    def __init__(
        self,
        base_url: str,
        model: str,
        key: str | None,
        *,
        patience: float = PATIENCE_SECONDS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`base_url` ends in /v1; `key` is the bearer token; `say` hears what is waited for."""
        self._url, self._model, self._patience, self._say = base_url.rstrip("/"), model, patience, say
        # Never through a proxy: the endpoint is a Service of the cluster. A connection for each question, so that an
        # answer never comes from a pod that is on its way out.
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(10.0, read=ANSWER_SECONDS),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, question: Question) -> Reply:
        """The answer; a question that the endpoint refuses has a problem instead.

        Raises StageError(UNAVAILABLE) where no answer comes in time, and StageError(NO_PERMISSION) where the token is
        refused.
        """
        deadline, pause = time.monotonic() + self._patience, PAUSE_SECONDS
        while True:
            try:
                return self._once(question)
            except _NotYetError as error:
                if time.monotonic() + pause > deadline:
                    raise self._unavailable(str(error)) from error
                self._say(f"waiting for {self._url}: {error}")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _once(self, question: Question) -> Reply:
        try:
            response = self._client.post(f"{self._url}/{question.path}", json=question.body(self._model))
        except httpx.HTTPError as error:
            raise _NotYetError(f"{type(error).__name__}: {error}") from error
        if response.status_code in CLOSED:
            raise StageError(
                ExitCode.NO_PERMISSION,
                "ApiKeyRefused",
                f"{self._url} refuses the token of serve.apiKeySecretRef ({_said(response)}). Was the Secret changed? "
                "The server reads it when its pod starts.",
            )
        if response.is_server_error or response.status_code in PASSING:
            raise _NotYetError(_said(response))
        return _reply(response)

    def _unavailable(self, last: str) -> StageError:
        return StageError(
            ExitCode.UNAVAILABLE,
            "EndpointUnavailable",
            f"{self._url} gave no answer within {self._patience:.0f} s; the last try: {last}",
        )


def _reply(response: httpx.Response) -> Reply:
    if not response.is_success:
        return Reply(problem=_said(response))
    try:
        choice = response.json()["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (ValueError, LookupError, TypeError):
        return Reply(problem=f"its answer has not the form of OpenAI's API: {response.text[:LONGEST_REASON]}")
    return Reply(f"{text or ''}{CUT if choice.get('finish_reason') == 'length' else ''}")


def _said(response: httpx.Response) -> str:
    """The status and the endpoint's own words."""
    try:
        text = str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        text = response.text
    return f"status {response.status_code}: {text[:LONGEST_REASON]}"
