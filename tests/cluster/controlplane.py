"""A real Kubernetes control plane as a handful of processes: etcd, API server, controller-manager, scheduler.

The local cluster runs it on its bridge address. Tests run one of their own, light and without root, whose nodes are
played by kwok:

    with ControlPlane(tmp_path / "control-plane", fake_nodes=2) as control_plane:
        load_config(control_plane.kubeconfig)        # admin credentials, a file
        control_plane.kubectl("get", "nodes")        # → what kubectl printed
        control_plane.restart_api_server()           # watches break, clients must reconnect

It listens on loopback, on ports that were free, and is gone afterwards (also when the test process is killed). It is up
in about ten seconds. Pods of the fake nodes become Running and Ready at once and run until a test ends them; `kwok.py`
tells how.
"""

import json
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

from tests.cluster import kwok
from tests.cluster.kubectl import Kubectl
from tests.cluster.pki import Authority, Certificate, service_account_keys
from tests.cluster.processes import Process
from tests.cluster.shell import ClusterError, Word, wait_until
from tests.cluster.tools import path_of

_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_READY_SECONDS = 90.0
"""Measured 5 to 10 s on two idle cores; the rest is for a machine that compiles at the same time."""


@dataclass
class ControlPlane:
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler with all their state in `folder`.

    Starting it again continues with the same state; a folder that is gone is a fresh cluster.
    """

    folder: Path
    fake_nodes: int = 0
    """nodes played by kwok, each with `fake_gpus` of `nvidia.com/gpu`"""
    fake_gpus: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    """port of the API server; 0 takes a free one"""
    service_range: str = "10.215.0.0/16"
    pod_range: str | None = None
    """with a range, the controller-manager gives every node a part of it"""
    dies_with_parent: bool = True
    wrapper: Sequence[str] = ()
    """words put before every command (the local cluster starts its programs inside a cgroup)"""
    extra_api_server_flags: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> "ControlPlane":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.ports['api']}"

    @property
    def kubeconfig(self) -> Path:
        """Credentials of a cluster administrator."""
        return self.folder / "admin.kubeconfig"

    @cached_property
    def authority(self) -> Authority:
        return Authority.create(self.folder / "pki")

    @cached_property
    def ports(self) -> dict[str, int]:
        """The ports of this control plane, chosen once and kept, so that a restart finds its clients again."""
        kept = self.folder / "ports.json"
        if not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            names = ("etcd", "peer", "api", "controller-manager", "scheduler")
            chosen = dict(zip(names, _free_ports(len(names)), strict=True))
            kept.write_text(json.dumps(chosen | ({"api": self.port} if self.port else {})))
        ports: dict[str, int] = json.loads(kept.read_text())
        return ports

    def process(self, name: str) -> Process:
        return Process(name, self.folder / "processes")

    @property
    def alive(self) -> bool:
        """Whether every program runs (not: whether it answers)."""
        return all(self.process(name).alive for name in _PROGRAMS)

    def start(self) -> None:
        """Start what does not run and wait until the API server is ready. Raises ClusterError with the end of a log."""
        self._ensure("etcd", self._etcd())
        self._ensure("kube-apiserver", self._api_server())
        client = self.authority.issue("admin", "falcon-admin", "system:masters")
        self.authority.kubeconfig(self.kubeconfig, self.server, client, "falcon-finetune")
        self._wait_ready()
        self._ensure("kube-controller-manager", self._controller_manager())
        self._ensure("kube-scheduler", self._scheduler())
        self._wait_for_controllers()
        if self.fake_nodes:
            kwok.create_nodes(self.kubectl, self.fake_nodes, self.fake_gpus)
            self._ensure("kwok", kwok.command(self.kubeconfig))
            kwok.wait_for_nodes(self.kubectl, self.fake_nodes)

    def stop(self) -> None:
        """End every program, the ones that write before the one that stores."""
        self.process("kwok").stop()
        for name in reversed(_PROGRAMS):
            self.process(name).stop()

    def restart_api_server(self) -> None:
        """Kill the API server, start it again and wait until it is ready: watches break, clients must reconnect."""
        self.process("kube-apiserver").kill()
        self._ensure("kube-apiserver", self._api_server())
        self._wait_ready()

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as administrator: `kubectl("get", "nodes")` is what it printed."""
        return Kubectl(self.kubeconfig)

    def component_kubeconfig(self, name: str, user: str, group: str = "") -> Path:
        """A kubeconfig for one program, with a certificate of its own."""
        client = self.authority.issue(name, user, group)
        return self.authority.kubeconfig(self.folder / f"{name}.kubeconfig", self.server, client, name)

    def _ensure(self, name: str, command: Sequence[Word]) -> None:
        process = self.process(name)
        if not process.alive:
            process.start([*self.wrapper, *command], dies_with_parent=self.dies_with_parent)

    def _wait_ready(self) -> None:
        def answers() -> bool:
            for name in ("etcd", "kube-apiserver"):
                if not self.process(name).alive:
                    raise ClusterError(f"{name} ended while starting:\n{self.process(name).last_words()}")
            return self.kubectl.succeeds("get", "--raw", "/readyz")

        log = self.process("kube-apiserver").log
        wait_until(answers, timeout=_READY_SECONDS, what=f"the API server at {self.server}", hint=f"its log: {log}")

    def _wait_for_controllers(self) -> None:
        """The first thing the controllers make is the service account that every pod of a namespace needs."""
        log = self.process("kube-controller-manager").log

        def account_exists() -> bool:
            return self.kubectl.succeeds("-n", "default", "get", "serviceaccount", "default")

        wait_until(account_exists, timeout=_READY_SECONDS, what="the controllers", hint=f"their log: {log}")

    def _etcd(self) -> list[Word]:
        client, peer = (f"http://127.0.0.1:{self.ports[name]}" for name in ("etcd", "peer"))
        flags: dict[str, Word] = {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",  # test data: a power cut may lose it, an fsync per write costs half the start
            "log-level": "warn",
        }
        return [path_of("etcd"), *_as_words(flags)]

    def _api_server(self) -> list[Word]:
        first_service = self.service_range.rpartition(".")[0] + ".1"
        local = "kubernetes.default.svc.cluster.local"
        served = self.authority.issue(
            "apiserver",
            "kube-apiserver",
            names=["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", local],
            addresses=sorted({"127.0.0.1", self.address, first_service}),
        )
        to_kubelet = self.authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
        tokens = self._token_keys
        flags: dict[str, Word] = {
            "etcd-servers": f"http://127.0.0.1:{self.ports['etcd']}",
            "bind-address": self.address,
            "advertise-address": self.address,
            "secure-port": str(self.ports["api"]),
            "service-cluster-ip-range": self.service_range,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "client-ca-file": self.authority.certificate,
            "tls-cert-file": served.certificate,
            "tls-private-key-file": served.key,
            "kubelet-client-certificate": to_kubelet.certificate,
            "kubelet-client-key": to_kubelet.key,
            # Node names are in no DNS; without this `kubectl logs` looks them up and fails.
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-key-file": tokens.certificate,
            "service-account-signing-key-file": tokens.key,
            "service-account-issuer": f"https://{local}",
            "profiling": "false",
        }
        if self.address.startswith("127."):
            flags["endpoint-reconciler-type"] = "none"  # an endpoint on loopback is refused, again and again
        return [path_of("kube-apiserver"), *_as_words({**flags, **self.extra_api_server_flags})]

    def _controller_manager(self) -> list[Word]:
        kubeconfig = self.component_kubeconfig("controller-manager", "system:kube-controller-manager")
        flags: dict[str, Word] = {
            **self._client_flags(kubeconfig, "controller-manager"),
            "client-ca-file": self.authority.certificate,
            "root-ca-file": self.authority.certificate,
            "cluster-signing-cert-file": self.authority.certificate,
            "cluster-signing-key-file": self.authority.key,
            "service-account-private-key-file": self._token_keys.key,
            "use-service-account-credentials": "true",
        }
        if self.pod_range:
            flags |= {"allocate-node-cidrs": "true", "cluster-cidr": self.pod_range}
        return [path_of("kube-controller-manager"), *_as_words(flags)]

    def _scheduler(self) -> list[Word]:
        kubeconfig = self.component_kubeconfig("scheduler", "system:kube-scheduler")
        return [path_of("kube-scheduler"), *_as_words(self._client_flags(kubeconfig, "scheduler"))]

    def _client_flags(self, kubeconfig: Path, port: str) -> dict[str, Word]:
        return {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "secure-port": str(self.ports[port]),
            "cert-dir": self.folder / "serving" / port,
            "leader-elect": "false",
        }

    @cached_property
    def _token_keys(self) -> Certificate:
        return service_account_keys(self.authority.folder)


def _as_words(flags: Mapping[str, Word]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held open together, so that they differ.

    They lie below the kernel's ephemeral range: while the API server restarts, a client that reconnects could otherwise
    be given that very port as its own, and the server would find it taken.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.sample(range(min(20_000, first_ephemeral // 2), first_ephemeral), k=200)
    with ExitStack() as held:
        free: list[int] = []
        while len(free) < count:
            port = candidates.pop()
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                free.append(port)
        return free
