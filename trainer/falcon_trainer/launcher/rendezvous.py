"""Waits until rank 0's pod can be found and answers: names appear later than pods, and pods later than the gang."""

import http.client
import socket
import time
from collections.abc import Callable

from falcon_trainer.layout import PROGRESS_PORT
from falcon_trainer.outcome import ExitCode, StageError

PAUSE = 1.0
ANSWER_SECONDS = 5.0


def await_rendezvous(
    host: str,
    *,
    node_rank: int,
    patience: float,
    say: Callable[[str], None],
    sleep: Callable[[float], bool],
    port: int = PROGRESS_PORT,
) -> bool:
    """Waits for `host` to resolve and, except on rank 0's own pod, for the launcher there to answer on `port`: to look
    for torchrun's own port would disturb its store.

    `sleep` waits the given seconds and returns True when a stop was requested; then False is returned. Raises
    StageError after `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while (missing := _missing(host, port, node_rank)) is not None:
        if time.monotonic() >= deadline:
            raise StageError(
                ExitCode.TRY_AGAIN,
                "RendezvousTimeout",
                f"rank 0's pod could not be reached for {patience:.0f} s: {missing}. Look whether all pods of the "
                "gang were scheduled, whether the cluster's DNS answers, and whether a NetworkPolicy forbids the way",
            )
        say(missing)
        if sleep(PAUSE):
            return False
    return True


def _missing(host: str, port: int, node_rank: int) -> str | None:
    """What is still missing, as a sentence; None when the gang may start."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"{host} does not resolve ({error.strerror or error})"
    if node_rank == 0:
        return None
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{host}:{port} does not answer ({error})"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{host}:{port} answers with status {status}"
