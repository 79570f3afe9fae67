"""Forgetting images that newer ones replaced, in buildah's storage and on the nodes."""

from collections.abc import Collection, Sequence

from tests.cluster.images.build import IMAGES
from tests.cluster.images.buildah import buildah, remove
from tests.cluster.node import Node

KEPT = 4
"""Newest images of each name that stay: a second checkout, or a pod of a moment ago, may still want its own."""


def prune(nodes: Sequence[Node], in_use: Collection[str]) -> None:
    """Remove all but the newest images of each name, and never those that are `in_use`."""
    kept = set(in_use)
    for image in IMAGES:
        built = _newest_first(f"localhost/{image.name}")
        kept.update(built[:KEPT])
        for old in set(built) - kept:
            remove(old)
    for node in nodes:
        _prune_node(node, kept)


def _prune_node(node: Node, kept: Collection[str]) -> None:
    digests = node.image_digests()
    ours = tuple(f"localhost/{image.name}:" for image in IMAGES)
    old = {name: digest for name, digest in digests.items() if name.startswith(ours) and name not in kept}
    wanted = {digest for name, digest in digests.items() if name.startswith(ours) and name in kept}
    gone = set(old.values()) - wanted
    # The kubelet's side of containerd knows each image by its configuration's digest as well.
    names = [*old, *(name for name, digest in digests.items() if digest in gone and name not in old)]
    if names:
        node.ctr("images", "remove", *names)


def _newest_first(name: str) -> list[str]:
    listing = buildah("images", "--filter", f"reference={name}", "--format", "{{.Name}}:{{.Tag}}")
    return [line for line in listing.split() if not line.endswith(":<none>")]
