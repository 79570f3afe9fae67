"""The pod's cgroup, version 1 or 2: memory limit, out-of-memory kills, CPUs."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
UNLIMITED = 1 << 60
"""cgroup v1 writes "no limit" as the largest page-aligned integer."""


class Cgroup:
    """Reads the cgroup of this process. What cannot be read is None: a launcher must start on any kernel."""

    def __init__(self, root: Path = ROOT, membership: Path = MEMBERSHIP) -> None:
        self._root = root
        self._paths = memberships(membership)

    def oom_kills(self) -> int | None:
        """Processes of this cgroup that the kernel has killed for want of memory so far."""
        text = self._read("", "memory.events") or self._read("memory", "memory.oom_control") or ""
        match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        return int(match.group(1)) if match else None

    def memory_limit(self) -> int | None:
        """Bytes, or None without a limit."""
        text = (self._read("", "memory.max") or self._read("memory", "memory.limit_in_bytes") or "").strip()
        return int(text) if text.isdigit() and int(text) < UNLIMITED else None

    def cpus(self) -> int:
        """CPUs that this process may keep busy: the smaller of affinity and quota, at least 1."""
        available = len(os.sched_getaffinity(0))
        quota = self._cpu_quota()
        return max(1, min(available, math.floor(quota)) if quota else available)

    def _cpu_quota(self) -> float | None:
        one = self._read("", "cpu.max")
        numbers = (
            one.split() if one else [self._read("cpu", f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        )
        try:
            quota, period = (int(number) for number in numbers)
        except ValueError:  # "max", or not there
            return None
        return quota / period if quota > 0 and period > 0 else None

    def _read(self, controller: str, name: str) -> str | None:
        """A file of version 1 (`controller` named) or 2 (empty): of our own cgroup, else of what is mounted as root,
        which in a container is our own."""
        for folder in self._folders(controller):
            try:
                return (folder / name).read_text()
            except OSError:
                continue
        return None

    def _folders(self, controller: str) -> Iterator[Path]:
        mounted = self._root / controller
        if controller in self._paths:
            yield mounted / self._paths[controller].lstrip("/")
        yield mounted


def memberships(membership: Path) -> dict[str, str]:
    """Controller → path, from lines such as `4:memory:/kubepods/…`; version 2 has the controller ""."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return {}
    parts = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    return {controller: path for _, controllers, path in parts for controller in controllers.split(",")}
