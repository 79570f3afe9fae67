"""What is copied: a finished artefact, file by file, its manifest last."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from falcon_trainer.artifacts import FileEntry, Manifest, sha256_of
from falcon_trainer.layout import MANIFEST
from falcon_trainer.outcome import ExitCode, StageError


@dataclass(frozen=True)
class Parcel:
    """An artefact of the workspace. `manifest` is the one that stands in `folder`."""

    folder: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """As the status shows it."""
        return f"sha256:{self.manifest.digest}"

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """All files with sizes and digests. The manifest comes last: who finds it finds the others."""
        encoded = self.manifest.encode()
        own = FileEntry(bytes=len(encoded), sha256=self.manifest.digest)
        return {**self.manifest.files, MANIFEST: own}

    def checked(self, name: str) -> Path:
        """The path of a file whose contents are what was written once. Raises StageError(DATA)."""
        path = self.folder / name
        if sha256_of(path) != self.files[name].sha256:
            raise StageError(ExitCode.DATA, "ResultDamaged", f"{path} does not have the contents that were written.")
        return path


def left_over(earlier: Manifest, parcel: Parcel) -> list[str]:
    """Files of an earlier result that the new one does not have. They must go: beside an adapter_config.json,
    transformers would put the old adapter on top of merged weights.
    Names that lead out of the folder are not followed.
    """
    names = sorted(earlier.files.keys() - parcel.files.keys())
    return [name for name in names if not {"", ".", ".."}.intersection(name.split("/"))]


class Progress(Protocol):
    """Is told how many bytes of a parcel are at their place."""

    def __call__(self, done: int, /) -> None: ...


class Target(Protocol):
    """A place outside the workspace."""

    def receive(self, parcel: Parcel, progress: Progress) -> str | None:
        """Makes the place hold the parcel, going on from what is there, and checks each file's digest there. Returns
        the commit where the place has such. Raises StageError.
        """


def counted(parcel: Parcel, progress: Progress) -> Iterator[tuple[str, FileEntry]]:
    """The files in their order; each counts as done when the next one is asked for."""
    done = 0
    for name, entry in parcel.files.items():
        yield name, entry
        done += entry.bytes
        progress(done)
