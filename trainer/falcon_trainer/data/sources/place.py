"""One source of a data set: where its files are, or come to be."""

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from pydantic import JsonValue

from falcon_trainer.artifacts import Manifest, publish, read_manifest
from falcon_trainer.artifacts import problem as damage
from falcon_trainer.data.sources.choosing import Chosen, Wanted
from falcon_trainer.outcome import ExitCode, StageError

KIND = "source"
FILES, NOTES = "files", "notes"
"""Folders of a download: what was fetched, and how far each file of it is."""


class Place(ABC):
    """A source. `fetch` comes first; whatever follows reads local files only."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted

    @abstractmethod
    def fetch(self) -> None:
        """Makes the files lie where `path` says. Raises StageError."""

    @abstractmethod
    def chosen(self) -> Chosen:
        """The files that are used. Raises StageError(NO_INPUT) where there are none."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """Where one of the files lies."""

    @abstractmethod
    def key(self, name: str) -> str:
        """What a file is called in a fingerprint; the same for every run."""

    @abstractmethod
    def digest(self, name: str) -> str:
        """Hex SHA-256 of a file. Raises OSError."""

    def address(self, name: str) -> str:
        """A file as its URI would be."""
        return self.wanted.shown if self.chosen().single else f"{self.wanted.shown.rstrip('/')}/{name}"


class Remote(Place):
    """A source that is fetched once into a folder of the run, described by a manifest, and never asked for again."""

    def __init__(self, wanted: Wanted, downloads: Path) -> None:
        super().__init__(wanted)
        asked = "\n".join((wanted.uri, wanted.split or "", wanted.held_out or ""))
        label = "".join(c if c.isalnum() or c in "-._" else "-" for c in wanted.shown.partition("://")[2])[-60:]
        self._manifest: Manifest | None = None
        self._folder = downloads / f"{label.strip('-.')}-{hashlib.sha256(asked.encode()).hexdigest()[:10]}"

    @abstractmethod
    def download(self, folder: Path) -> tuple[Chosen, dict[str, JsonValue]]:
        """Fetches the files to `folder`/FILES, going on where an earlier call stopped; returns them, and facts of
        their origin. Raises StageError.
        """

    def fetch(self) -> None:
        """As Place.fetch. Raises StageError."""
        if manifest := read_manifest(self._folder):
            wrong = damage(self._folder, manifest, contents=True)
            if not wrong:
                self._manifest = manifest
                return
            print(f"{self.wanted.shown} was fetched before, but {wrong}; it is fetched anew.", flush=True)
            shutil.rmtree(self._folder)
        # The same folder after a restart of the pod, so that a download of hours goes on where it stopped.
        partial = self._folder.with_name(f".{self._folder.name}.partial")
        (partial / FILES).mkdir(parents=True, exist_ok=True)
        chosen, facts = self.download(partial)
        shutil.rmtree(partial / NOTES, ignore_errors=True)
        _, self._manifest = publish(partial, self._folder, kind=KIND, facts=chosen.facts() | facts)
        print(f"Fetched {self.wanted.shown}: {self._manifest.total_bytes / 1e6:,.1f} MB.", flush=True)

    def chosen(self) -> Chosen:
        """As Place.chosen."""
        return Chosen.of(self._standing.facts)

    def path(self, name: str) -> Path:
        """As Place.path."""
        return self._folder / FILES / name

    def key(self, name: str) -> str:
        """As Place.key."""
        return self.address(name)

    def digest(self, name: str) -> str:
        """As Place.digest, from the manifest: `fetch` has compared the files with it."""
        return self._standing.files[f"{FILES}/{name}"].sha256

    @property
    def _standing(self) -> Manifest:
        manifest = self._manifest or read_manifest(self._folder)
        if manifest is None:
            raise self.wanted.missing(f"it was not fetched to {self._folder}")
        self._manifest = manifest
        return manifest


def require_space(folder: Path, sizes: Iterable[int], wanted: Wanted) -> None:
    """Raises StageError(CANNOT_WRITE) where the volume of `folder` has no room for what is still to fetch."""
    needed, free = sum(sizes), shutil.disk_usage(folder).free
    if needed > free:
        raise StageError(
            ExitCode.CANNOT_WRITE,
            "WorkspaceTooSmall",
            f"{wanted.shown} needs {needed / 1e9:.1f} GB more and the workspace claim has {free / 1e9:.1f} GB free. "
            "Enlarge the claim or free space on it.",
        )
