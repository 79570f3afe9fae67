"""/progress, /metrics and /healthz, from threads of the launcher: they answer whatever the ranks do."""

import http.server
import json
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import ClassVar

from falcon_trainer.launcher.state import State
from falcon_trainer.layout import PROGRESS_PORT
from falcon_trainer.listening import listening_socket
from falcon_trainer.progress import PodProgress

REQUEST_SECONDS = 10.0
GAUGES = {
    "step": "Optimizer steps done",
    "total_steps": "Optimizer steps of the whole run",
    "loss": "Loss of the last logged step",
    "tokens_per_second": "Tokens of the whole gang per second",
    "seconds_left": "Estimated seconds until the last step",
    "last_checkpoint_step": "Step of the newest checkpoint",
    "evaluation_loss": "Loss on the validation records at the newest evaluation",
    "best_step": "Step of the lowest evaluation loss so far",
    "since_beat_seconds": "Seconds since this rank last said where it is",
}


class Server(http.server.ThreadingHTTPServer):
    """Listens on all addresses, IPv6 and IPv4 where the pod has both."""

    daemon_threads = True

    def __init__(self, state: State, port: int = PROGRESS_PORT) -> None:
        self.state = state
        # Bound here: HTTPServer's own bind asks DNS for the pod's full name, which may take seconds.
        super().__init__(("", port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening_socket(port)

    def start(self) -> None:
        """Serves from a thread that ends with the process."""
        threading.Thread(target=self.serve_forever, name="progress", daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS
    types: ClassVar[dict[str, str]] = {
        "/progress": "application/json",
        "/metrics": "text/plain; version=0.0.4; charset=utf-8",
        "/healthz": "text/plain; charset=utf-8",
    }

    def do_GET(self) -> None:
        """Answers one of `types`."""
        path = self.path.partition("?")[0]
        if path not in self.types:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"try one of {', '.join(self.types)}")
            return
        body = self._body(path).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.types[path])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        """Nothing: the pod's log is the stage's, and probes come every few seconds."""

    def _body(self, path: str) -> str:
        if path == "/healthz":
            return "ok\n"
        progress = self.server.state.snapshot()
        if path == "/metrics":
            return "".join(f"{line}\n" for line in metrics_lines(self.server.state.run, progress))
        return json.dumps(progress.to_wire(), allow_nan=False)


def metrics_lines(run: str, progress: PodProgress) -> Iterator[str]:
    """The Prometheus text format (version 0.0.4), a gauge for each number that a rank has told."""
    labels = f'run="{_escaped(run)}",stage="{_escaped(progress.summary.stage)}"'
    for name, meaning in GAUGES.items():
        told = [(rank.rank, value) for rank in progress.ranks if (value := getattr(rank, name)) is not None]
        if told:
            yield f"# HELP falcon_{name} {meaning}."
            yield f"# TYPE falcon_{name} gauge"
        for number, value in told:
            yield f'falcon_{name}{{{labels},rank="{number}"}} {value!r}'


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
