"""CLUSTER=current: the cluster of the user's own kubeconfig. Nothing of it is created, loaded or taken down here."""

import os
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.images.build import IMAGES, Buildah, ContainerEngine, Engine, container_engine, record
from tests.cluster.paths import RUN
from tests.cluster.shell import ClusterError, run, say
from tests.cluster.tools import find


class CurrentCluster:
    @property
    def kubeconfig(self) -> Path:
        """The current context alone, copied: what happens later cannot change the context under our feet."""
        copy = RUN / "current.kubeconfig"
        copy.parent.mkdir(exist_ok=True)
        copy.touch(mode=0o600)
        copy.write_text(run([find("kubectl"), "config", "view", "--minify", "--flatten"]))
        return copy

    @property
    def engine(self) -> Engine:
        program = container_engine()
        return ContainerEngine(program) if program else Buildah()

    def up(self) -> None:
        context = run([find("kubectl"), "config", "current-context"]).strip()
        run([find("kubectl"), "get", "--raw", "/readyz"], timeout=30)
        say(f"  using the current context {context}")

    def down(self) -> None:
        say("  CLUSTER=current: the cluster is yours and stays as it is")

    def load(self, references: Sequence[str]) -> None:
        """Nodes pull what the user pushed: the references are taken from the environment."""
        pushed = {image: os.environ.get(image.variable) for image in IMAGES}
        if missing := [image.variable for image, reference in pushed.items() if not reference]:
            raise ClusterError(
                "images cannot be loaded into a cluster that is not ours; build them (`make images`), push "
                f"{', '.join(references)} to a registry that its nodes pull from, and set {', '.join(missing)} to the "
                "names there"
            )
        record({image: reference for image, reference in pushed.items() if reference})
