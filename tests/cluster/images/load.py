"""Bringing built images into the image stores of the local cluster's nodes: by hard links, not by copying.

buildah and containerd keep an unpacked layer in the same form, a folder that overlayfs stacks and nobody ever writes
to. A layer becomes a snapshot of the node by linking its files; then containerd imports the image's two small documents
and finds every layer unpacked already. For the trainer that is seconds and no disk space, where exporting 5.5 GB,
importing and unpacking it took three minutes and twice its size for each node.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.images.buildah import storage
from tests.cluster.images.stored import Layer, StoredImage
from tests.cluster.node import Node
from tests.cluster.shell import ClusterError, Word, run, step

_PINNED = "containerd.io/gc.root"


def load(nodes: Sequence[Node], references: Sequence[str]) -> None:
    """Bring every image to every node that lacks it."""
    for reference in references:
        image = StoredImage(reference)
        for node in nodes:
            if reference not in node.image_names():
                with step(f"loading {reference} into {node.name}"):
                    _load(node, image)


def _load(node: Node, image: StoredImage) -> None:
    present = node.snapshots()
    parent: Layer | None = None
    for layer in image.layers:
        if layer.chain not in present:
            _link_layer(node, image, layer, parent)
        parent = layer
    _import_documents(node, image)
    for layer in image.layers:
        # From now on the image holds the layers, so that they can be collected with it.
        node.ctr("snapshots", "label", layer.chain, f"{_PINNED}=")


def _link_layer(node: Node, image: StoredImage, layer: Layer, parent: Layer | None) -> None:
    """Make a snapshot of the layer. `ctr snapshots prepare` pins it until the image is there."""
    key = f"loading-{layer.chain}"
    if key in node.snapshots():  # of a load that was broken off
        node.ctr("snapshots", "remove", key)
    mounts = json.loads(node.ctr("snapshots", "prepare", "--mounts", key, *([parent.chain] if parent else [])))
    files = _writable_folder(mounts[0])
    _link_files(image.folder(layer), files)
    files.chmod(0o755)
    node.ctr("snapshots", "commit", layer.chain, key)


def _link_files(source: Path, target: Path) -> None:
    """`cp --archive --link`, seen without a mount over the storage.

    The kernel refuses links across mounts, even of one file system, and container tools mount their storage on itself.
    """
    script = 'umount --lazy "$1" 2> /dev/null; exec cp --archive --link --no-target-directory "$2" "$3"'
    private: list[Word] = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    run([*private, storage() / "overlay", source, target])


def _writable_folder(mount: dict[str, object]) -> Path:
    """Where the files of a snapshot that is being prepared belong: overlayfs' upper folder, or the one bound alone."""
    options = mount.get("Options") or mount.get("options") or []
    assert isinstance(options, list)
    for option in options:
        if str(option).startswith("upperdir="):
            return Path(str(option).removeprefix("upperdir="))
    return Path(str(mount.get("Source") or mount.get("source")))


def _import_documents(node: Node, image: StoredImage) -> None:
    command = [str(word) for word in node.ctr_command("images", "import", "--digests=false", "-")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as importing:
        assert importing.stdin is not None
        assert importing.stdout is not None
        with importing.stdin as stream:
            image.write_documents(stream)
        words = importing.stdout.read().decode(errors="replace").strip()
    if importing.returncode != 0 or image.reference not in node.image_names():
        raise ClusterError(f"{node.name} cannot import {image.reference}: {words}")
