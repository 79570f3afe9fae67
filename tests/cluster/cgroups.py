"""Control groups of the local cluster, on cgroup v1 and v2.

Every program of the cluster is started inside a group below `falcon-finetune`, and so is all that it starts in turn
(containerd's shims among them). The groups are therefore the record of what is ours that survives any crash: whoever is
in them may be ended, nobody else.

    falcon-finetune/control-plane           etcd, API server, …
    falcon-finetune/NODE/system             the node's namespaces, containerd and its shims, kubelet, kube-proxy
    falcon-finetune/NODE/kubepods/…         containers, put there by the kubelet (its cgroupRoot is the folder above)
"""

import os
import signal
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.shell import ClusterError

ROOT = "falcon-finetune"
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")
_V1_RECORD = "pids"
"""The one v1 hierarchy in which programs are recorded; containers are in all of them."""


@dataclass(frozen=True)
class Cgroups:
    """The cgroup file system of this machine, mounted at `mount`."""

    mount: Path = Path("/sys/fs/cgroup")

    @property
    def unified(self) -> bool:
        """Whether the machine has cgroup v2 alone."""
        return (self.mount / "cgroup.controllers").exists()

    def hierarchies(self) -> list[Path]:
        """The mounted hierarchies that we make groups in: one on v2, one for each controller on v1."""
        if self.unified:
            return [self.mount]
        return [folder for folder in sorted(self.mount.iterdir()) if (folder / "tasks").exists()]

    def _all_hierarchies(self) -> list[Path]:
        """Those, and on a v1 machine the v2 hierarchy beside them, where container runtimes make groups too."""
        beside = [] if self.unified else [self.mount / "unified"]
        return self.hierarchies() + [folder for folder in beside if folder.exists()]

    def recorder(self, group: str) -> Path:
        """The file that a program writes 0 to in order to join `falcon-finetune/GROUP`."""
        hierarchy = self.mount if self.unified else self.mount / _V1_RECORD
        return hierarchy / ROOT / group / "cgroup.procs"

    def create(self, group: str) -> None:
        """Make `falcon-finetune/GROUP` in every hierarchy, ready to have processes and children."""
        for hierarchy in self.hierarchies():
            folder = hierarchy
            for part in (ROOT, *group.split("/")):
                if self.unified:
                    _delegate(folder)
                folder = folder / part
                folder.mkdir(exist_ok=True)
                if not self.unified:
                    _inherit_cpuset(folder)

    def prepare_for_pods(self, group: str) -> None:
        """Let the kubelet make groups with every controller below `falcon-finetune/GROUP`."""
        self.create(group)
        if self.unified:
            _delegate(self.mount / ROOT / group)

    def processes(self, group: str = "") -> set[int]:
        """Ids of all processes in `falcon-finetune/GROUP` and below it."""
        found: set[int] = set()
        for hierarchy in self._all_hierarchies():
            for procs in (hierarchy / ROOT / group).rglob("cgroup.procs"):
                with suppress(OSError):
                    found.update(int(word) for word in procs.read_text().split())
        return found

    def kill(self, group: str = "", *, spare: Set[int] = frozenset(), timeout: float = 20.0) -> None:
        """End every process in `falcon-finetune/GROUP` and below it at once, new ones too, but for those to `spare`."""
        deadline = time.monotonic() + timeout
        while processes := self.processes(group) - spare:
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise ClusterError(f"processes {sorted(processes)} of the cluster do not end even when killed")
            time.sleep(0.05)

    def remove(self, group: str = "") -> None:
        """Remove the empty groups, deepest first."""
        for hierarchy in self._all_hierarchies():
            top = hierarchy / ROOT / group
            if top.exists():
                for folder, _, _ in os.walk(top, topdown=False):
                    with suppress(OSError):
                        Path(folder).rmdir()


def _delegate(folder: Path) -> None:
    """Let children of a v2 group have every controller that the group itself has."""
    available = (folder / "cgroup.controllers").read_text().split()
    wanted = " ".join(f"+{name}" for name in _V2_CONTROLLERS if name in available)
    try:
        (folder / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        raise ClusterError(
            f"cannot hand the cgroup controllers of {folder} to the nodes ({error}); in a container, give it a cgroup "
            "namespace of its own whose root group has no processes, or use CLUSTER=kind"
        ) from error


def _inherit_cpuset(folder: Path) -> None:
    """A v1 cpuset group takes no process before it is told its processors and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (file := folder / name).exists() and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())
