"""buildah with a storage of our own in the cache: image layers outlive the checkout, other storages stay untouched."""

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from tests.cluster.locks import exclusively
from tests.cluster.paths import cache
from tests.cluster.shell import Word, run, say, succeeds

_ROOM_NEEDED = 15 * 2**30
"""Bytes; a build of the trainer's dependencies writes 6 GB of layers, the nodes take 11 GB."""


def storage() -> Path:
    return cache() / "images" / "storage"


def storage_options(graph: str = "--root", runroot: str = "--runroot") -> list[Word]:
    """Options that select our storage (the programs of that family call them differently)."""
    options: list[Word] = [graph, storage(), runroot, cache() / "images" / "run", "--storage-driver", "overlay"]
    # Without this they leave a mount of the storage on itself behind.
    return [*options, "--storage-opt", "overlay.skip_mount_home=true"]


def buildah(*words: Word, timeout: float | None = None) -> str:
    """Run buildah as root on our storage. chroot isolation needs no privileges that a sandbox may lack."""
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    return run(["buildah", *storage_options(), *words], env=environment, timeout=timeout)


def building() -> AbstractContextManager[None]:
    """One build at a time: a second one would do the same work, or clean up under the first one's feet."""
    return exclusively(cache() / "images" / "lock", "builds images")


def exists(image: str) -> bool:
    return succeeds(["buildah", *storage_options(), "inspect", "--type", "image", image])


def remove(image: str) -> None:
    """Forget a name; layers that other images or the build cache need stay."""
    if exists(image):
        buildah("rmi", image)


def forget_unfinished() -> None:
    """Remove what builds left that were broken off: working containers, and their mounts."""
    if buildah("containers", "--quiet").strip():
        buildah("rm", "--all")


def make_room() -> None:
    """When the disk runs low, drop layers that no named image needs (the cache of earlier builds)."""
    storage().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(storage()).free
    if free < _ROOM_NEEDED:
        say(f"  only {free / 2**30:.0f} GiB are free: dropping cached layers of earlier builds in {storage()}")
        buildah("rmi", "--prune")
