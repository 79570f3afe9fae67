"""buildah with a storage of our own in the cache: image layers outlive the checkout, other storages stay untouched."""

import json
import os
from pathlib import Path
from typing import Any

from tests.cluster.paths import cache
from tests.cluster.shell import Word, run, succeeds


def storage() -> Path:
    return cache() / "images" / "storage"


def _options() -> list[Word]:
    return ["--root", storage(), "--runroot", cache() / "images" / "run", "--storage-driver", "overlay"]


def buildah(*words: Word, timeout: float | None = None) -> str:
    """Run buildah as root on our storage. chroot isolation needs no privileges that a sandbox may lack."""
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    return run(["buildah", *_options(), *words], env=environment, timeout=timeout)


def exists(image: str) -> bool:
    return succeeds(["buildah", *_options(), "inspect", "--type", "image", image])


def images() -> list[dict[str, Any]]:
    """Every image in the storage, as buildah lists it."""
    listed: list[dict[str, Any]] = json.loads(buildah("images", "--json") or "[]") or []
    return listed
