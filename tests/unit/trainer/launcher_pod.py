"""A stage pod without a cluster: the real launcher as a process, with a module of the test as the workload."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from falcon_trainer.outcome import Outcome

T = TypeVar("T")

DRIVER = """
import os, signal, sys
from pathlib import Path
from falcon_trainer.launcher import WATCHED
signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
from falcon_trainer.launcher.run import Place, launch
folder = Path(sys.argv[2])
sys.exit(launch(sys.argv[1], Place(
    config=folder / "run.json", runtime=folder / "runtime", termination_log=Path(os.environ["TERMINATION_LOG"]),
    workspace=folder / "workspace", progress_port=int(sys.argv[3]), rendezvous_port=int(sys.argv[4]),
    module="workload", agent=sys.argv[5])))
"""

CONFIG = {
    "run": "tiny",
    "namespace": "default",
    "model": {"source": "pvc://models/tiny"},
    "dataset": {"sources": [{"uri": "pvc://data/dolly.jsonl"}]},
    "gang": {"gpusPerNode": 0},
}

SUCCEED = """
from falcon_trainer.endings import write_ending
from falcon_trainer.outcome import Outcome
write_ending(RANK, 0, Outcome(reason="Completed", message="done", result={"step": 7}), RUNTIME)
"""


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(ask: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
    """The first answer that is neither None nor False."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Pod:
    """One launcher and what it leaves behind."""

    def __init__(
        self,
        folder: Path,
        workload: str,
        *,
        config: Any = None,
        rendezvous_port: int = 0,
        agent: str = "falcon_trainer.launcher.agent",
    ) -> None:
        self.folder = folder
        self.runtime = folder / "runtime"
        self.termination_log = folder / "termination-log"
        self.port = free_port()
        self.agent = agent
        self.rendezvous_port = rendezvous_port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(config if isinstance(config, str) else json.dumps(CONFIG | (config or {})))
        prelude = (
            "import os, signal, sys, time, subprocess\nfrom pathlib import Path\n"
            f"RUNTIME = Path({str(self.runtime)!r})\nRANK = int(os.environ.get('RANK', '0'))\n"
        )
        (folder / "workload.py").write_text(prelude + workload)
        self.process: subprocess.Popen[str] | None = None

    def start(self, stage: str = "merge", env: Mapping[str, str] | None = None, *, cgroup: Path | None = None) -> "Pod":
        """Starts the launcher of `stage`, in a cgroup where one is given."""
        enter = ["sh", "-c", f'echo $$ > "{cgroup}/cgroup.procs" && exec "$0" "$@"'] if cgroup else []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FALCON_")}
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        place = (str(self.folder), str(self.port), str(self.rendezvous_port), self.agent)
        self.process = subprocess.Popen(
            [*enter, sys.executable, "-c", DRIVER, stage, *place],
            env=inherited | {"PYTHONPATH": path, "TERMINATION_LOG": str(self.termination_log)} | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("w"),
            text=True,
        )
        return self

    @property
    def running(self) -> subprocess.Popen[str]:
        assert self.process is not None
        return self.process

    def wait(self, seconds: float = 60.0) -> int:
        """Exit code of the pod."""
        return self.running.wait(seconds)

    def terminate(self) -> None:
        """What the kubelet does first."""
        self.running.send_signal(signal.SIGTERM)

    def outcome(self) -> Outcome:
        """The termination message."""
        outcome = Outcome.decode(self.termination_log.read_text())
        assert outcome is not None
        return outcome

    def log(self) -> str:
        """What `kubectl logs` would show of stderr."""
        return (self.folder / "log").read_text()

    def get(self, path: str) -> str | None:
        """Body of an answer with status 200, None while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return str(response.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return None

    def told(self, name: str) -> str:
        """Waits for a file that the workload writes into its runtime folder, and reads it."""
        path = self.runtime / name
        return eventually(lambda: path.read_text() if path.exists() else "", f"the workload writes {name}")


@contextlib.contextmanager
def pod(folder: Path, workload: str, **settings: Any) -> Iterator[Pod]:
    """A Pod that is gone afterwards, whatever the test did."""
    made = Pod(folder, workload, **settings)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
