"""Folders that are whole or absent: written beside their final name, fsynced, described by a manifest, renamed.

A reader that finds `manifest.json` under a final name may trust the folder: `check` compares sizes (cheap, at every
start) or contents (prepare and merge). The digest of an artefact is the SHA-256 of its manifest, which holds the
digests of all files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue, ValidationError

from falcon_trainer.config import Artifact
from falcon_trainer.layout import MANIFEST
from falcon_trainer.wire import Wire

BLOCK = 1 << 22


class FileEntry(Wire):
    """One file of an artefact."""

    bytes: int
    sha256: str


class Manifest(Wire):
    """What an artefact is and holds."""

    kind: str
    files: dict[str, FileEntry]
    facts: dict[str, JsonValue]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files, without the manifest itself."""
        return sum(entry.bytes for entry in self.files.values())

    def encode(self) -> bytes:
        """The text of manifest.json: equal manifests have equal bytes."""
        return json.dumps(self.to_wire(), indent=1, sort_keys=True).encode()

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the encoded manifest."""
        return hashlib.sha256(self.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an artefact, or None where there is none that can be read."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def problem(folder: Path, manifest: Manifest, *, contents: bool) -> str | None:
    """What is wrong with an artefact, as a phrase that names the file; None where it is as its manifest says."""
    for name, entry in manifest.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != entry.bytes:
                return f"{path} has {size} bytes instead of {entry.bytes}"
            if contents and sha256_of(path) != entry.sha256:
                return f"{path} does not have the contents that were written (its SHA-256 differs)"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
    return None


def draft_beside(final: Path) -> Path:
    """A new, empty folder beside `final`, on the same file system, whose name no reader takes for an artefact."""
    draft = final.with_name(f".{final.name}.{os.uname().nodename}-{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def remove_drafts(beside: Path, *, keep: Path | None = None) -> None:
    """Removes what dead pods left half-written beside `beside`, but for `keep`. For stages that run in one pod at a
    time.
    """
    for draft in beside.parent.glob(f".{beside.name}.*.draft"):
        if draft != keep:
            shutil.rmtree(draft, ignore_errors=True)


def remove(folder: Path, beside: Path) -> None:
    """Removes an artefact. It loses its name and its manifest first, so that half of it never counts: what a death of
    the pod leaves is a draft of `beside` (see `remove_drafts`).
    """
    aside = beside.with_name(f".{beside.name}.{folder.name}.draft")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    (aside / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(aside, ignore_errors=True)


def publish(
    draft: Path,
    final: Path | Callable[[str], Path],
    *,
    kind: str,
    facts: dict[str, JsonValue],
    known: dict[str, FileEntry] | None = None,
) -> tuple[Path, Manifest]:
    """Writes the draft's manifest and renames the draft to `final` (a path, or a function of the manifest's digest).

    `known` holds entries that were computed while writing. Where `final` stands whole already (another incarnation was
    first), its manifest counts and the draft goes; where it is damaged, the draft replaces it.
    """
    # A draft that outlived a pod which died here may hold a manifest, which must not list itself.
    names = [name for name in file_names(draft) if name != MANIFEST]
    files = {name: entry_of(draft / name, (known or {}).get(name)) for name in names}
    manifest = Manifest(kind=kind, files=files, facts=facts)
    (draft / MANIFEST).write_bytes(manifest.encode())
    for name in (*files, MANIFEST):
        (draft / name).chmod(0o644)
        sync(draft / name)
    target = final if isinstance(final, Path) else final(manifest.digest)
    standing = read_manifest(target)
    if standing and problem(target, standing, contents=False) is None:
        shutil.rmtree(draft)
        return target, standing
    target.parent.mkdir(parents=True, exist_ok=True)
    sync(draft)
    if target.exists():
        remove(target, draft.with_name(draft.stem.lstrip(".")))
    draft.rename(target)
    sync(target.parent)
    return target, manifest


def file_names(folder: Path) -> list[str]:
    """Names of all files below `folder`, relative to it, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def entry_of(path: Path, known: FileEntry | None) -> FileEntry:
    return known or FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))


def sync(path: Path) -> None:
    """fsync of a file or a folder: a rename must not reach the disk before what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


HALF_WRITTEN = ".*.tmp"
"""Matches what a pod that dies in `write_file` leaves."""


def write_file(path: Path, text: str) -> None:
    """Replaces one file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")
    beside.write_text(text, encoding="utf-8")
    sync(beside)
    beside.replace(path)
    sync(path.parent)


def as_artifact(path: Path, manifest: Manifest, workspace: Path) -> Artifact:
    """The artefact as the status shows it."""
    return Artifact(
        path=str(path.relative_to(workspace)), digest=f"sha256:{manifest.digest}", bytes=manifest.total_bytes
    )
