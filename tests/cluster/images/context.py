"""The build context of an image: a snapshot of its sources, the same bytes for the same content.

Sources are copied first and hashed then, so that a file that is saved during a build cannot end up under a tag of other
content; times and modes are made equal, so that a fresh clone finds the layers of the last one in buildah's cache.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_NOT_CONTENT = {"__pycache__", "build", "dist"}
_TIME = 1_700_000_000


def snapshot(repository: Path, sources: Sequence[str], target: Path) -> str:
    """Copy files and folders of the repository below `target`; returns the digest (hex) of paths and contents."""
    digest = hashlib.sha256()
    for source in sorted(sources):
        for file in _files(repository / source):
            name = file.relative_to(repository)
            content = file.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            copy.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
    for copied in (target, *target.rglob("*")):
        os.utime(copied, (_TIME, _TIME))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """Files below a path in a fixed order, without what builds and interpreters leave there."""
    if path.is_file():
        if path.suffix != ".pyc":
            yield path
        return
    for child in sorted(path.iterdir()):
        if child.name not in _NOT_CONTENT and not child.name.endswith(".egg-info"):
            yield from _files(child)
