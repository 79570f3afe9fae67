"""A served tiny Falcon without a cluster: the real stage in a process of its own, without a home to write into."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from falcon_trainer.artifacts import as_artifact, publish
from falcon_trainer.data.prompt import CHAT_TEMPLATE
from falcon_trainer.endings import Ending
from falcon_trainer.tiny import make_base, train_tokenizer
from tests.unit.trainer.launcher_pod import CONFIG, eventually, free_port

RUN = "tiny-run"
ALIAS = "assistant"
POSITIONS = 4096
TEXTS = ["Why is the sky blue? Because of Rayleigh scattering. " * 4, "Give three tips for staying healthy."]
DRIVER = """
import sys, functools
from falcon_trainer import cli
from falcon_trainer.serve.stage import serve
cli.STAGES["serve"] = (lambda: functools.partial(serve, port=int(sys.argv[1])), "")
cli.main(["serve", "--config", sys.argv[2]])
"""


@cache
def merged_model() -> tuple[Path, dict[str, Any]]:
    """A workspace with a merged model, and its Artifact as told to the stage."""
    workspace = _temporary("falcon-serve-")
    draft = workspace / "draft"
    tokenizer = train_tokenizer(TEXTS, vocabulary=400)
    tokenizer.chat_template = CHAT_TEMPLATE
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2}
    model = make_base(draft, tokenizer, max_position_embeddings=POSITIONS, **small)
    # The head is the embedding: with a row of zeros the end of text is never the likeliest token, so that a greedy
    # answer is as long as it may be, and drawn answers still end.
    model.get_input_embeddings().weight.data[tokenizer.eos_token_id] = 0
    model.save_pretrained(draft)
    folder, manifest = publish(draft, workspace / "runs" / RUN / "merged" / "digest", kind="merged", facts={})
    subprocess.run(["chmod", "-R", "a+rX,a-w", str(workspace)], check=True)
    return workspace, as_artifact(folder, manifest, workspace).to_wire()


def _temporary(prefix: str) -> Path:
    """A folder that is gone when the tests are over."""
    folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class Server:
    """One serve stage."""

    def __init__(self, folder: Path, *, serve: dict[str, Any] | None = None, **env: str) -> None:
        self.port = free_port()
        self.runtime = _temporary("falcon-runtime-")
        workspace, merged = merged_model()
        config = self.runtime / "run.json"
        config.write_text(json.dumps(CONFIG | {"run": RUN, "merged": merged, "serve": serve or {}}))
        inherited = {name: value for name, value in os.environ.items() if name not in {"HOME", "HF_HOME"}}
        told = {"FALCON_WORKSPACE": str(workspace), "FALCON_RUNTIME": str(self.runtime), "HF_HUB_OFFLINE": "1"}
        self.log = (folder / "serve.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.port), str(config)],
            env=inherited | told | {"OMP_NUM_THREADS": "1"} | env,
            stderr=self.log,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until_ready(self) -> "Server":
        """Waits for a 200 of /ready."""
        eventually(lambda: self._over() or self.status("/ready") == 200, "the model is ready", 300)
        assert self.process.poll() is None, self.said()
        return self

    def status(self, path: str) -> int | None:
        """Status of a GET; None while nothing listens."""
        return self.get(path)[0]

    def get(self, path: str) -> tuple[int | None, str]:
        """Status and body of a GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return None, ""

    def metric(self, sample: str) -> float:
        """The value of one sample of /metrics, 0 while it is not there."""
        lines = self.get("/metrics")[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample + " ")), 0.0)

    def engine(self) -> int:
        """Process id of the engine."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return eventually(lambda: int((children.read_text().split() or ["0"])[0]), "the engine was started", 60)

    def ending(self) -> Ending:
        """What the stage told its launcher."""
        return Ending.model_validate_json((self.runtime / "outcome-0.json").read_text())

    def said(self) -> str:
        """The log."""
        self.log.flush()
        return Path(self.log.name).read_text()

    def _over(self) -> bool:
        return self.process.poll() is not None


@contextmanager
def served(folder: Path, *, serve: dict[str, Any] | None = None, **env: str) -> Iterator[Server]:
    """A Server that is gone afterwards; `serve` are the fields of the spec, as in YAML."""
    server = Server(folder, serve=serve, **env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(30)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()


def seconds_of(action: Any) -> float:
    """How long an action takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began
