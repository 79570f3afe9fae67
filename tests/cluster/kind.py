"""CLUSTER=kind: a kind cluster with two workers, for machines with Docker or Podman.

Not run so far: no container engine ran where this was written. kind v0.33 reads the configuration without complaint.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template

from tests.cluster import storage
from tests.cluster.images.build import ContainerEngine, Engine
from tests.cluster.kubectl import Kubectl
from tests.cluster.paths import RUN, TEMPLATES, cache
from tests.cluster.shell import Word, run, step
from tests.cluster.tools import find

NAME = "falcon-finetune"
_SHARED_ON_NODES = "/var/falcon-volumes"


class KindCluster:
    def __init__(self, engine: ContainerEngine) -> None:
        self._engine = engine
        self._volumes = cache() / "kind" / "volumes"

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def kubeconfig(self) -> Path:
        return RUN / "kind.kubeconfig"

    def up(self) -> None:
        """Create the cluster unless it is there; its kubeconfig goes to a file of ours, never into the user's."""
        RUN.mkdir(exist_ok=True)
        if NAME in self._kind("get", "clusters").split():
            self._kind("export", "kubeconfig", "--name", NAME, "--kubeconfig", self.kubeconfig)
        else:
            self._volumes.mkdir(parents=True, exist_ok=True)
            config = Template((TEMPLATES / "kind.yaml").read_text())
            rendered = config.substitute(VOLUMES=str(self._volumes), SHARED=_SHARED_ON_NODES)
            with step("creating the kind cluster"):
                options: list[Word] = [
                    "--name",
                    NAME,
                    "--kubeconfig",
                    self.kubeconfig,
                    "--wait",
                    "180s",
                    "--config",
                    "-",
                ]
                self._kind("create", "cluster", *options, stdin=rendered)
        self._share_storage()
        self._set_gpus()

    def down(self) -> None:
        self._kind("delete", "cluster", "--name", NAME, "--kubeconfig", self.kubeconfig)
        self.kubeconfig.unlink(missing_ok=True)

    def load(self, references: Sequence[str]) -> None:
        """`kind load image-archive`, skipped for images that every node has."""
        nodes = self._kind("get", "nodes", "--name", NAME).split()
        for reference in references:
            if all(reference in self._images(node) for node in nodes):
                continue
            with step(f"loading {reference} into kind"), tempfile.TemporaryDirectory(dir=cache()) as scratch:
                archive = Path(scratch) / "image.tar"
                run([self._engine.program, "save", "--output", archive, reference])
                self._kind("load", "image-archive", archive, "--name", NAME)

    def _share_storage(self) -> None:
        """Turn kind's own provisioner from one folder per node to the folder that all nodes mount: ReadWriteMany."""
        kubectl = Kubectl(self.kubeconfig)
        config = json.dumps({"sharedFileSystemPath": _SHARED_ON_NODES})
        namespace = ("--namespace", storage.NAMESPACE)
        patch = json.dumps({"data": {"config.json": config}})
        kubectl(*namespace, "patch", "configmap", "local-path-config", "--type=merge", f"--patch={patch}")
        kubectl(*namespace, "rollout", "restart", "deployment/local-path-provisioner")
        kubectl(*namespace, "rollout", "status", "deployment/local-path-provisioner", "--timeout=120s", timeout=130)

    def _set_gpus(self) -> None:
        kubectl = Kubectl(self.kubeconfig)
        patch = '[{"op":"add","path":"/status/capacity/nvidia.com~1gpu","value":"1"}]'
        workers = kubectl("get", "nodes", "--selector=!node-role.kubernetes.io/control-plane", "-oname").split()
        for worker in workers:
            kubectl("patch", worker, "--subresource=status", "--type=json", f"--patch={patch}")

    def _images(self, node: str) -> str:
        return run([self._engine.program, "exec", node, "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"])

    def _kind(self, *words: Word, stdin: str | None = None) -> str:
        environment = dict(os.environ)
        if self._engine.program == "podman":
            environment["KIND_EXPERIMENTAL_PROVIDER"] = "podman"
        return run([find("kind"), *words], stdin=stdin, env=environment)
