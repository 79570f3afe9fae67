"""The sources of a data set: what they name, where that lies, and which files of it are trained on."""

from pathlib import Path

from falcon_trainer import layout
from falcon_trainer.artifacts import sha256_of
from falcon_trainer.config import Dataset
from falcon_trainer.data.sources import kinds
from falcon_trainer.data.sources.reading import unreadable
from falcon_trainer.outcome import ExitCode, StageError


class Sources:
    """The files of a data set. `fetch` comes first; whatever follows reads local files only."""

    def __init__(self, dataset: Dataset, downloads: Path) -> None:
        self._dataset, self._downloads = dataset, downloads

    def fetch(self) -> None:
        """Brings what is remote to `downloads`; a second call finds it there. Raises StageError."""

    def training(self) -> list[Path]:
        """The files to train on, in the order of the spec and by name within a folder.

        Raises StageError(NO_INPUT) where one is missing or a folder holds no records file.
        """
        return [file for s in self._dataset.sources for file in _files_at(layout.source_path(s.uri), s.uri)]

    def validation(self) -> list[Path]:
        """The files of dataset.validation.split; none where it is not asked for. Raises StageError(NO_INPUT)."""
        return []

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of every file by its name: what was prepared, told apart from what lies there now.

        Raises StageError(NO_INPUT) where a file is missing or cannot be read.
        """
        found = {}
        for file in self.training() + self.validation():
            try:
                found[str(file.relative_to(layout.SOURCES))] = sha256_of(file)
            except OSError as error:
                raise unreadable(file, error) from error
        return found


def _files_at(path: Path, uri: str) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if kinds.named(file.name) and file.is_file())
        if files:
            return files
        raise StageError(
            ExitCode.NO_INPUT, "DataNotFound", f"{uri}: the folder holds no file of records ({kinds.KNOWN})."
        )
    raise StageError(ExitCode.NO_INPUT, "DataNotFound", f"{uri}: {_what_is_missing(path)}.")


def _what_is_missing(path: Path) -> str:
    """The first part of the path that is not there, and what lies beside it."""
    parent = path
    while not parent.exists() and parent != layout.SOURCES and parent != parent.parent:
        path, parent = parent, parent.parent
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))[:10]
    beside = f"there are {', '.join(names)}" if names else "the folder is empty"
    return f"there is no {path.name!r} in {parent} ({beside})"
