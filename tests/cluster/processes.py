"""Long-running programs: started with a log and a record, ended only when the record still names the same process."""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.shell import ClusterError, Word

_BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> str | None:
    """Which boot and tick the process began in; None when there is no such (living) process.

    A process id is used again once its owner is gone; the pair of id and start time is not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    state, started = fields[0], fields[19]
    # A zombie is dead, unless other threads of it are still on their way out: those keep its files and ports open.
    return None if state in {"Z", "X"} and threads == 1 else f"{_BOOT}/{started}"


@dataclass(frozen=True)
class Process:
    """One program under a name; its log and its record lie in `folder`, so that a later call can find it again."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def start(
        self, command: Sequence[Word], *, env: Mapping[str, str] | None = None, dies_with_parent: bool = False
    ) -> None:
        """Start it in a session of its own. With `dies_with_parent` the kernel ends it when this process ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        if dies_with_parent:
            # The parent may have died before the kernel was told; then there is another parent by now.
            still_there = 'test "$PPID" = "$0" && exec "$@"'
            words = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", still_there, str(os.getpid()), *words]
        pid = os.posix_spawnp(
            words[0],
            words,
            dict(os.environ if env is None else env),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        self.record.write_text(json.dumps({"pid": pid, "started": start_time(pid), "command": words}))

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        try:
            recorded = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return None
        pid = int(recorded["pid"])
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # a child of this very process stays a zombie until asked for
        return pid if recorded["started"] and start_time(pid) == recorded["started"] else None

    @property
    def alive(self) -> bool:
        return self.pid is not None

    def stop(self, *, timeout: float = 10.0) -> None:
        """Ask it to end, insist after `timeout` seconds, forget it."""
        self.signal(signal.SIGTERM)
        if not self._gone_within(timeout):
            self.kill()
        self.record.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        if not self._gone_within(10.0):
            raise ClusterError(f"process {self.pid} ({self.name}) does not end even when killed; look at {self.log}")

    def signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def last_words(self, lines: int = 12) -> str:
        """The end of its log, for an error message."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"
