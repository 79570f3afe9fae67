"""Which cluster is meant: `CLUSTER=local | kind | current`, and what all three can do.

What is not asked for is not touched: the kubeconfig is a file of ours (`.run/kubeconfig`), never the user's.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.cluster import packages, tools
from tests.cluster.images.build import ContainerEngine, Engine, Image, build_images, container_engine
from tests.cluster.paths import KUBECONFIG, RUN
from tests.cluster.shell import ClusterError, say

_CHOICE = RUN / "cluster"


class Cluster(Protocol):
    def up(self) -> None:
        """Bring it up, or leave it as it is when all is well; afterwards its kubeconfig exists."""

    def down(self) -> None:
        """Take it down and leave nothing behind but caches."""

    @property
    def kubeconfig(self) -> Path: ...

    @property
    def engine(self) -> Engine:
        """What builds images for it."""

    def load(self, references: Sequence[str]) -> None:
        """Bring built images to its nodes."""


def choose(environment: Mapping[str, str] = os.environ) -> str:
    """What CLUSTER names; else the last one of this checkout; else kind where containers run, else local."""
    known = ("local", "kind", "current")
    if asked := environment.get("CLUSTER"):
        if asked not in known:
            raise ClusterError(f"CLUSTER={asked} is not known; it is one of {', '.join(known)}")
        return asked
    if _CHOICE.exists() and (last := _CHOICE.read_text().strip()) in known:
        return last
    return "kind" if container_engine() else "local"


def cluster() -> Cluster:
    """The chosen cluster. Imports late: each kind of cluster needs other programs."""
    choice = choose()
    if choice == "local":
        from tests.cluster.local import LocalCluster

        return LocalCluster()
    if choice == "kind":
        from tests.cluster.kind import KindCluster

        return KindCluster(_required_engine())
    from tests.cluster.current import CurrentCluster

    return CurrentCluster()


def up() -> None:
    """Bring the chosen cluster up and write its kubeconfig, and links to kubectl and helm, into `.run`."""
    choice, chosen = choose(), cluster()
    say(f"cluster: {choice}")
    prepare()
    chosen.up()
    RUN.mkdir(exist_ok=True)
    _CHOICE.write_text(f"{choice}\n")
    KUBECONFIG.unlink(missing_ok=True)
    KUBECONFIG.touch(mode=0o600)
    KUBECONFIG.write_text(chosen.kubeconfig.read_text())
    link_tools()


def prepare() -> None:
    """Install and build what the chosen cluster lacks."""
    if choose() == "local":
        packages.install()
        tools.build_all()


def down() -> None:
    cluster().down()
    for file in (KUBECONFIG, _CHOICE):
        file.unlink(missing_ok=True)


def images() -> dict[Image, str]:
    return build_images(cluster().engine)


def load() -> None:
    cluster().load(list(images().values()))


def link_tools() -> None:
    """`.run/bin/kubectl` and `.run/bin/helm`, whether they are built by us or were installed already."""
    folder = RUN / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for program in ("kubectl", "helm"):
        link = folder / program
        link.unlink(missing_ok=True)
        link.symlink_to(tools.find(program))


def _required_engine() -> ContainerEngine:
    program = container_engine()
    if program is None:
        raise ClusterError("CLUSTER=kind needs Docker or Podman, and neither answers; start one, or use CLUSTER=local")
    return ContainerEngine(program)
