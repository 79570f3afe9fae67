"""Bringing built images into the image stores of the local cluster's nodes."""

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster.images.archive import StoredImage
from tests.cluster.node import Node
from tests.cluster.shell import ClusterError, run, step

_CLONE_FROM = 2**30
"""Bytes that make it worth while to stop two runtimes and link their stores instead of importing twice."""
_CONTENT = "io.containerd.content.v1.content"
_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs"
_METADATA = "io.containerd.metadata.v1.bolt"


def load(nodes: Sequence[Node], references: Sequence[str]) -> None:
    """Import every image into every node that lacks it."""
    for reference in references:
        for node in nodes:
            if reference in node.image_names():
                continue
            image = StoredImage(reference)
            missing = sum(layer["size"] for layer in image.layers if layer["digest"] not in node.content())
            donor = next((other for other in nodes if reference in other.image_names()), None)
            if donor and missing > _CLONE_FROM and not (donor.containers() or node.containers()):
                with step(f"linking the images of {donor.name} into {node.name}"):
                    clone(donor, node)
            else:
                with step(f"loading {reference} into {node.name} ({missing / 2**20:.0f} MiB new)"):
                    _import(node, image)


def _import(node: Node, image: StoredImage) -> None:
    present = node.content()
    command = node.ctr_command("images", "import", "--digests=false", "-")
    with subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as importing:
        assert importing.stdin is not None
        assert importing.stdout is not None
        with suppress(BrokenPipeError), importing.stdin as stream:  # the importer gave up; its own words follow
            image.write(stream, present)
        words = importing.stdout.read().decode(errors="replace").strip()
    if importing.returncode != 0 or image.reference not in node.image_names():
        raise ClusterError(f"{node.name} cannot import {image.reference}: {words}")


def clone(donor: Node, node: Node) -> None:
    """Give `node` the image store of `donor`: layers as hard links (nobody ever writes to them), databases as copies.

    Neither may have containers: their writable layers would be shared too.
    """
    donor.stop_runtime()
    node.stop_runtime()
    try:
        for part in (_CONTENT, _SNAPSHOTS, _METADATA):
            shutil.rmtree(node.images / part, ignore_errors=True)
            run(["cp", "--archive", "--link", donor.images / part, node.images / part])
            for database in (node.images / part).glob("*.db"):
                _unlink_from_donor(database)
    finally:
        donor.start_runtime()
        node.start_runtime()


def _unlink_from_donor(database: Path) -> None:
    """A database is written in place, so each node has its own file."""
    own = database.with_suffix(".own")
    shutil.copy2(database, own)
    own.replace(database)
