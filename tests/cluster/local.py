"""The local cluster: one for the whole machine, shared by all checkouts, with its state in the cache.

`up` mends what is missing while etcd and the API server live, and begins anew when they do not (after a crash or a
reboot etcd's data cannot be trusted: it is not synced to disk). Images of the nodes outlive the cluster.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path

from tests.cluster import dns, network, packages, storage
from tests.cluster.cgroups import Cgroups
from tests.cluster.controlplane import ControlPlane
from tests.cluster.images import nodetools
from tests.cluster.images.build import Buildah, Engine
from tests.cluster.images.load import load
from tests.cluster.images.prune import prune
from tests.cluster.locks import exclusively
from tests.cluster.node import PLACES, Node, joining
from tests.cluster.paths import cache
from tests.cluster.shell import ClusterError, say, step

NODES = 2
GPUS_PER_NODE = 1


class LocalCluster:
    """Control plane and nodes on this machine."""

    def __init__(self) -> None:
        self.folder = cache() / "cluster"
        self.state = self.folder / "state"
        self.volumes = self.folder / "volumes"
        self.cgroups = Cgroups()

    @cached_property
    def control_plane(self) -> ControlPlane:
        return ControlPlane(
            self.state / "control-plane",
            address=network.ADDRESS,
            port=6443,
            service_range=network.SERVICES,
            pod_range=network.PODS,
            dies_with_parent=False,
            wrapper=joining(self.cgroups.recorder("control-plane")),
        )

    @cached_property
    def nodes(self) -> list[Node]:
        return [
            Node(
                index=index,
                size=NODES,
                state=self.state / f"node-{index}",
                images=self.folder / "images" / f"node-{index}",
                control_plane=self.control_plane,
                sandbox_image=nodetools.image(),
                cgroups=self.cgroups,
            )
            for index in range(NODES)
        ]

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.kubeconfig

    @property
    def running(self) -> bool:
        """Whether the part lives that holds the state."""
        return all(self.control_plane.process(name).alive for name in ("etcd", "kube-apiserver"))

    def up(self) -> None:
        """Bring the cluster up, mend it, or leave it as it is when all is well."""
        _check_machine()
        with self._lock():
            self._check_owner()
            if not self.running:
                self._take_down()
            with step("starting the control plane"):
                self._start_control_plane()
            with step(f"starting {NODES} nodes"):
                self._start_nodes()
            say(f"  up: {self.control_plane.server}, {NODES} nodes, {GPUS_PER_NODE} pretended GPU on each")

    def down(self) -> None:
        """Take everything down; built programs and the nodes' images stay in the cache."""
        with self._lock():
            self._check_owner()
            self._take_down()

    @property
    def engine(self) -> Engine:
        return Buildah()

    def load(self, references: Sequence[str]) -> None:
        if not self.running:
            raise ClusterError("the local cluster does not run; `make cluster-up` starts it")
        with self._lock():
            load(self.nodes, references)
            prune(self.nodes, references)

    def node(self, name: str) -> Node:
        """A node by its name; raises ClusterError naming those that exist."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise ClusterError(f"there is no node {name!r}; there are {', '.join(node.name for node in self.nodes)}")

    def _start_control_plane(self) -> None:
        self.cgroups.create("control-plane")
        network.create_bridge(self.folder)
        self.control_plane.start()
        dns.start(self.control_plane)

    def _start_nodes(self) -> None:
        self._make_places()
        for node in self.nodes:
            node.start_runtime()
            node.forget_containers()
            load([node], [nodetools.build()])
            node.start_agents()
        storage.start(self.control_plane, self.volumes, nodetools.image())
        for node in self.nodes:
            node.wait_ready()
            node.set_gpus(GPUS_PER_NODE)

    def _take_down(self) -> None:
        if self.state.exists():
            for node in self.nodes:
                node.stop()
        self.cgroups.kill()  # the control plane too: its state is thrown away, so there is nothing to be polite for
        network.remove()
        self.cgroups.remove()
        self._remove_places()
        shutil.rmtree(self.volumes, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)

    @property
    def _made_places(self) -> Path:
        return self.state / "places"

    def _make_places(self) -> None:
        missing = [place for place in PLACES if not Path(place).exists()]
        if missing:
            with self._made_places.open("a") as record:
                record.write("".join(f"{place}\n" for place in missing))
        for place in missing:
            Path(place).mkdir(parents=True, exist_ok=True)

    def _remove_places(self) -> None:
        if self._made_places.exists():
            for place in self._made_places.read_text().split():
                with suppress(OSError):
                    Path(place).rmdir()

    def _check_owner(self) -> None:
        owner = network.owner()
        if owner is not None and owner != str(self.folder):
            raise ClusterError(
                f"the bridge {network.BRIDGE} belongs to the cluster in {owner or 'an unknown place'}, not to "
                f"{self.folder}; call `make cluster-down` with that one's FALCON_CACHE first"
            )

    def _lock(self) -> AbstractContextManager[None]:
        """Two checkouts never start or stop the machine's one cluster at once."""
        return exclusively(self.folder / "lock", "starts, stops or loads the cluster")


def _check_machine() -> None:
    """Say at once what is missing, not half-way through."""
    if sys.platform != "linux":
        raise ClusterError("CLUSTER=local needs Linux; use CLUSTER=kind (Docker or Podman) or CLUSTER=current")
    if os.geteuid() != 0:
        raise ClusterError(
            "CLUSTER=local needs root (network namespaces, containers); use CLUSTER=kind or CLUSTER=current otherwise"
        )
    if missing := packages.missing():
        raise ClusterError(f"these packages are missing: {', '.join(missing)}; `make cluster-deps` installs them")
