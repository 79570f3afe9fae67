"""One node of the local cluster: a network and a mount namespace with containerd, kubelet and kube-proxy in them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.cluster import network
from tests.cluster.cgroups import ROOT as CGROUP_ROOT
from tests.cluster.cgroups import Cgroups
from tests.cluster.controlplane import ControlPlane
from tests.cluster.paths import TEMPLATES
from tests.cluster.processes import Process
from tests.cluster.shell import Word, run, succeeds, wait_until
from tests.cluster.tools import path_of

PLACES = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/run/containerd", "/run/netns")
"""Folders that must exist on the host, because a node mounts its own over them; nothing of ours is ever in them."""
GPU = "nvidia.com/gpu"


def joining(cgroup: Path) -> tuple[str, ...]:
    """Words to put before a command so that it starts as a member of the cgroup."""
    return ("sh", "-c", 'echo 0 > "$0" && exec "$@"', str(cgroup))


@dataclass(frozen=True)
class Node:
    """Node `index` of `size`; its images outlive it in `images`, all else of it lies in `state`."""

    index: int
    size: int
    state: Path
    images: Path
    control_plane: ControlPlane
    sandbox_image: str
    cgroups: Cgroups

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    @property
    def address(self) -> str:
        return network.node_address(self.index)

    def process(self, name: str) -> Process:
        return Process(name, self.state / "processes")

    @property
    def alive(self) -> bool:
        """Whether every program of the node runs (not: whether the node is Ready)."""
        return all(self.process(name).alive for name in ("namespaces", "containerd", "kubelet", "kube-proxy"))

    def start_runtime(self) -> None:
        """Make the namespaces, connect them to the other nodes, start containerd; what runs already stays."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.cgroups.create(f"{self.name}/system")
        self.cgroups.prepare_for_pods(self.name)
        if not self.process("namespaces").alive:
            self.cgroups.kill(self.name)  # whatever is left lives in namespaces that nobody can reach any more
            self._make_namespaces()
        if not self.process("containerd").alive:
            self._render()
            self._start("containerd", "containerd", "--config", self.state / "containerd.toml")
        wait_until(
            lambda: succeeds(self._inside("ctr", "version")),
            timeout=30,
            what=f"containerd of {self.name}",
            hint=f"its log: {self.process('containerd').log}",
        )

    def stop_runtime(self) -> None:
        """End containerd alone; containers run on."""
        self.process("containerd").stop()

    def start_agents(self) -> None:
        """Start kubelet and kube-proxy; the runtime must be up."""
        kubeconfig = self.control_plane.component_kubeconfig(self.name, f"system:node:{self.name}", "system:nodes")
        proxy = self.control_plane.component_kubeconfig("kube-proxy", "system:kube-proxy")
        if not self.process("kubelet").alive:
            kubelet: list[Word] = [path_of("kubelet"), f"--config={self.state / 'kubelet.yaml'}"]
            kubelet += [f"--kubeconfig={kubeconfig}", f"--hostname-override={self.name}", f"--node-ip={self.address}"]
            self._start("kubelet", *kubelet)
        if not self.process("kube-proxy").alive:
            flags: list[Word] = [f"--kubeconfig={proxy}", f"--hostname-override={self.name}"]
            flags += [f"--cluster-cidr={network.PODS}", "--proxy-mode=iptables", "--conntrack-max-per-core=0"]
            self._start("kube-proxy", path_of("kube-proxy"), *flags)

    def wait_ready(self, *, timeout: float = 90.0) -> None:
        path = '-ojsonpath={.status.conditions[?(@.type=="Ready")].status}'
        kubectl = self.control_plane.kubectl

        def ready() -> bool:
            return kubectl.succeeds("get", "node", self.name) and kubectl("get", "node", self.name, path) == "True"

        log = self.process("kubelet").log
        wait_until(ready, timeout=timeout, what=f"{self.name} to be Ready", hint=f"its kubelet's log: {log}")

    def wait_heartbeat(self, *, timeout: float) -> None:
        """Wait until the node is Ready by word of a kubelet that lives now, not by what an old one left behind."""
        lease = ("-n", "kube-node-lease", "get", "lease", self.name, "-ojsonpath={.spec.renewTime}")
        before = self.control_plane.kubectl(*lease)
        wait_until(
            lambda: self.control_plane.kubectl(*lease) != before,
            timeout=timeout,
            what=f"the kubelet of {self.name}",
            hint=f"its log: {self.process('kubelet').log}",
        )
        self.wait_ready(timeout=timeout)

    def stop(self) -> None:
        """End the node in order: agents, containers, containerd (so that its image store is closed properly)."""
        for name in ("kube-proxy", "kubelet"):
            self.process(name).stop()
        self.cgroups.kill(f"{self.name}/kubepods")
        self.process("containerd").stop()
        self.cgroups.kill(self.name)

    def kill(self) -> None:
        """End everything on the node at once, as a power cut would: containers, shims, containerd, kubelet, kube-proxy.

        The namespaces stay, as the cables and the disk of a machine do.
        """
        holder = self.process("namespaces").pid
        self.cgroups.kill(self.name, spare={holder} if holder else set())

    def kill_pod(self, uid: str) -> None:
        """End every process of a pod at once, its sandbox too."""
        for quality in ("", "burstable/", "besteffort/"):
            self.cgroups.kill(f"{self.name}/kubepods/{quality}pod{uid}")

    def start(self) -> None:
        """Bring a killed node back: its pods' sandboxes are gone, and the kubelet finds that out."""
        self.start_runtime()
        self.start_agents()

    def mount_memory(self, path: str, *, megabytes: int) -> None:
        """Mount a tmpfs that nobody outside the node sees; where one is mounted already, change its size."""
        Path(path).mkdir(parents=True, exist_ok=True)
        again = "remount," if succeeds(self._inside("mountpoint", "--quiet", path)) else ""
        run(self._inside("mount", "-t", "tmpfs", "-o", f"{again}size={megabytes}m,mode=0777", "tmpfs", path))

    def unmount(self, path: str) -> None:
        """Take away what `mount_memory` mounted."""
        if succeeds(self._inside("mountpoint", "--quiet", path)):
            run(self._inside("umount", "--lazy", path))
        Path(path).rmdir()

    def ctr(self, *words: Word) -> str:
        """Run containerd's client in the namespace that the kubelet's images and containers are in."""
        return run(self.ctr_command(*words))

    def ctr_command(self, *words: Word) -> list[Word]:
        return self._inside("ctr", "--namespace", "k8s.io", *words)

    def image_names(self) -> set[str]:
        return set(self.image_digests())

    def image_digests(self) -> dict[str, str]:
        """Name → digest of its manifest, for every image in the node's store."""
        rows = (line.split() for line in self.ctr("images", "list").splitlines()[1:])
        return {row[0]: row[2] for row in rows}

    def snapshots(self) -> set[str]:
        """Keys of the unpacked layers in the node's image store, and of containers' own files."""
        return {line.split()[0] for line in self.ctr("snapshots", "list").splitlines()[1:]}

    def containers(self) -> list[str]:
        """Ids of the containers and sandboxes that containerd knows, running or not."""
        return self.ctr("containers", "list", "--quiet").split()

    def forget_containers(self) -> None:
        """Once in a cluster's life, remove what containerd remembers of an earlier one's containers; images stay."""
        forgotten = self.state / "containers-forgotten"
        if forgotten.exists() or self.process("kubelet").alive:
            return
        if containers := self.containers():
            self.ctr("containers", "delete", *containers)
            self.stop_runtime()
            self.start_runtime()
        forgotten.touch()

    def set_gpus(self, count: int) -> None:
        """Pretend that the node has `count` GPUs: schedulable, though nothing is mounted into a container for them."""
        # Without any device manager checkpoint a starting kubelet takes the node for a new one and sets GPUs to zero.
        checkpoints = self.state / "places/var/lib/kubelet/device-plugins"
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / "gpus-are-written-into-the-node-status").touch()
        patch = f'[{{"op":"add","path":"/status/capacity/{GPU.replace("/", "~1")}","value":"{count}"}}]'
        self.control_plane.kubectl(
            "patch", "node", self.name, "--subresource=status", "--type=json", f"--patch={patch}"
        )

    def _make_namespaces(self) -> None:
        ready = self.state / "namespaces-ready"
        ready.unlink(missing_ok=True)
        holder = self.process("namespaces")
        script: list[Word] = ["sh", TEMPLATES / "node-namespaces.sh", self.state]
        holder.start([*self._joining, "unshare", "--net", "--mount", "--propagation", "private", *script])
        wait_until(ready.exists, timeout=10, what=f"the namespaces of {self.name}", hint=f"see {holder.log}")
        assert holder.pid is not None
        network.connect(self.index, holder.pid, self.size)

    @property
    def _joining(self) -> tuple[str, ...]:
        return joining(self.cgroups.recorder(f"{self.name}/system"))

    def _inside(self, *command: Word) -> list[Word]:
        """The command, entered into the node's namespaces.

        (`ip netns exec` would mount a new /sys over the cgroups.)
        """
        holder = self.process("namespaces").pid
        return ["nsenter", f"--net=/proc/{holder}/ns/net", f"--mount=/proc/{holder}/ns/mnt", *command]

    def _start(self, name: str, *command: Word) -> None:
        self.process(name).start([*self._joining, *self._inside(*command)])

    def _render(self) -> None:
        values = {
            "ROOT": str(self.images),
            "STATE": str(self.state),
            "SANDBOX_IMAGE": self.sandbox_image,
            "POD_RANGE": network.pod_range(self.index),
            "CLIENT_CA": str(self.control_plane.authority.certificate),
            "CGROUP": f"{CGROUP_ROOT}/{self.name}",
            "DNS": network.ADDRESS,
        }
        cni = self.state / "cni.d"
        shutil.rmtree(cni, ignore_errors=True)
        cni.mkdir()
        self.images.mkdir(parents=True, exist_ok=True)
        (self.state / "resolv.conf").touch()
        targets = {
            "containerd.toml": self.state / "containerd.toml",
            "kubelet.yaml": self.state / "kubelet.yaml",
            "pods.conflist": cni / "10-pods.conflist",
        }
        for template, target in targets.items():
            target.write_text(Template((TEMPLATES / template).read_text()).substitute(values))
