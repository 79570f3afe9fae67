"""The programs of the cluster, built from Go modules once and kept in the cache.

Each folder under `tools/` is a Go module whose go.mod and go.sum pin one program (or one family) with all its parts.
A build is written beside its final name and renamed into place, so that a half-built tool never counts as built.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.locks import exclusively
from tests.cluster.paths import PACKAGE, cache
from tests.cluster.shell import ClusterError, Word, run, step

KUBERNETES_VERSION = "v1.37.2"


@dataclass(frozen=True)
class Tool:
    """One Go module of ours and the programs that are built from it."""

    name: str
    version: str
    programs: Mapping[str, str]
    """program → import path of its main package"""
    variables: tuple[str, ...] = ()
    """values for `-ldflags -X`"""

    @property
    def source(self) -> Path:
        return PACKAGE / "tools" / self.name

    def built(self, program: str) -> Path:
        return cache() / "bin" / f"{self.name}-{self.version}" / program


KUBERNETES = Tool(
    name="kubernetes",
    version=KUBERNETES_VERSION,
    programs={
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubectl",
            "kubelet",
            "kube-proxy",
        )
    },
    variables=(
        f"k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
        f"k8s.io/component-base/version.gitMajor={KUBERNETES_VERSION.removeprefix('v').split('.')[0]}",
        f"k8s.io/component-base/version.gitMinor={KUBERNETES_VERSION.split('.')[1]}",
    ),
)
ETCD = Tool("etcd", "v3.7.3", {"etcd": "go.etcd.io/etcd/server/v3"})
COREDNS = Tool("coredns", "v1.15.0", {"coredns": "github.com/coredns/coredns"})
LOCAL_PATH_PROVISIONER = Tool(
    "local-path-provisioner", "v0.0.30", {"local-path-provisioner": "github.com/rancher/local-path-provisioner"}
)
HELM = Tool("helm", "v4.3.1", {"helm": "helm.sh/helm/v4/cmd/helm"})
KWOK = Tool("kwok", "v0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"})

KIND = Tool("kind", "v0.33.0", {"kind": "sigs.k8s.io/kind"})
S3 = Tool("gofakes3", "v1.2.0", {"gofakes3": "github.com/johannesboyne/gofakes3/cmd/gofakes3"})
"""An S3 store for the unit tests; it takes any credentials."""

LOCAL_CLUSTER = (ETCD, KUBERNETES, KWOK, COREDNS, LOCAL_PATH_PROVISIONER, HELM)
_BY_PROGRAM = {program: tool for tool in (*LOCAL_CLUSTER, KIND, S3) for program in tool.programs}


def path_of(program: str) -> Path:
    """Path of a program of ours, built first when the cache has none; ClusterError when it cannot be built."""
    tool = _BY_PROGRAM[program]
    target = tool.built(program)
    if not target.exists():
        _build(tool, program)
    return target


def find(program: str) -> Path:
    """A program that any cluster needs: ours when it is built, else an installed one, else ours built now."""
    if not _BY_PROGRAM[program].built(program).exists() and (installed := shutil.which(program)):
        return Path(installed)
    return path_of(program)


def build_all() -> None:
    """Build what the cache lacks of the local cluster's programs (twelve minutes on two cores from nothing)."""
    for tool in LOCAL_CLUSTER:
        for program in tool.programs:
            path_of(program)


def _build(tool: Tool, program: str) -> None:
    go = shutil.which("go")
    if go is None:
        raise ClusterError(
            f"{program} is not installed, and cannot be built without Go; install Go (at least the version in the `go` "
            f"line of {tool.source / 'go.mod'}) or {program} {tool.version} itself"
        )
    target = tool.built(program)
    target.parent.mkdir(parents=True, exist_ok=True)
    with exclusively(target.parent / ".lock", f"builds into {target.parent}"):
        if target.exists():  # another process built it while this one waited
            return
        scratch = Path(tempfile.mkdtemp(prefix=f".{program}-", dir=target.parent))
        try:
            with step(f"building {program} {tool.version} (once; kept in {target.parent})"):
                flags = " ".join(["-s", "-w", *(f"-X {variable}" for variable in tool.variables)])
                build: list[Word] = [go, "build", "-mod=readonly", "-trimpath", "-ldflags", flags]
                build += ["-o", scratch / program, tool.programs[program]]
                run(build, cwd=tool.source, env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"})
            (scratch / program).rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
