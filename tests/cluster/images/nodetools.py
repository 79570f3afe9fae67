"""The one image that the nodes themselves need: a pod's sandbox process, and a shell for the storage provisioner."""

import hashlib
import shutil
import tempfile
from functools import cache as once
from pathlib import Path

from tests.cluster.images.buildah import buildah, building, exists
from tests.cluster.paths import PACKAGE
from tests.cluster.shell import ClusterError, step

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


def build() -> str:
    """Build it, unless buildah has it; returns its name."""
    with building():
        if not exists(image()):
            with step(f"making {image()}"), tempfile.TemporaryDirectory(prefix="falcon-node-") as context:
                shutil.copy2(_busybox(), Path(context) / "busybox")
                buildah("bud", "--quiet", "--file", _DOCKERFILE, "--tag", image(), context)
    return image()
