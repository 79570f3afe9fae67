"""The one image that the nodes themselves need: a pod's sandbox process, and a shell for the storage provisioner."""

import hashlib
import shutil
import tempfile
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.images.buildah import buildah
from tests.cluster.paths import PACKAGE, cache
from tests.cluster.shell import ClusterError, step

if TYPE_CHECKING:
    from tests.cluster.node import Node

_DOCKERFILE = PACKAGE / "images" / "node.Dockerfile"


@once
def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise ClusterError("busybox is not installed; `make cluster-deps` installs it")
    return Path(found)


@once
def image() -> str:
    """Its name, tagged with what it is made of."""
    content = hashlib.sha256(_DOCKERFILE.read_bytes() + _busybox().read_bytes()).hexdigest()
    return f"localhost/falcon-node:{content[:12]}"


def load(node: "Node") -> None:
    """Import it into the node's image store, unless it is there."""
    if image() not in node.image_names():
        node.ctr("images", "import", "--digests=false", _archive())


def _archive() -> Path:
    archive = cache() / "images" / f"{image().rpartition('/')[2].replace(':', '-')}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with step(f"making {image()}"), tempfile.TemporaryDirectory(prefix="falcon-node-") as context:
            shutil.copy2(_busybox(), Path(context) / "busybox")
            buildah("bud", "--quiet", "--file", _DOCKERFILE, "--tag", image(), context)
            partial = archive.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            buildah("push", "--quiet", image(), f"docker-archive:{partial}:{image()}")
            partial.rename(archive)
    return archive
