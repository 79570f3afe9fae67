"""Sources that the pod has mounted: claims and ConfigMaps."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from falcon_trainer import layout
from falcon_trainer.artifacts import sha256_of
from falcon_trainer.data.sources.choosing import Chosen, Wanted, chosen_of_folder, single
from falcon_trainer.data.sources.place import Place
from falcon_trainer.data.sources.splits import CARD


class Mounted(Place):
    """A file or a folder on a claim or of a ConfigMap; read where it lies."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(wanted)
        self._root = layout.source_path(wanted.uri)

    def fetch(self) -> None:
        """Nothing is to fetch; what is missing is told. Raises StageError(NO_INPUT)."""
        self.chosen()

    def chosen(self) -> Chosen:
        """As Place.chosen."""
        return self._chosen

    @cached_property
    def _chosen(self) -> Chosen:
        if self._root.is_file():
            return single(self._root.name, self.wanted)
        if not self._root.is_dir():
            raise self.wanted.missing(what_is_missing(self._root))
        card = self._root / CARD
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        return chosen_of_folder(_walked(self._root), text, self.wanted)

    def path(self, name: str) -> Path:
        """As Place.path."""
        return self._root if self._root.is_file() else self._root / name

    def key(self, name: str) -> str:
        """As Place.key: the path below the mounts."""
        return str(self.path(name).relative_to(layout.SOURCES))

    def digest(self, name: str) -> str:
        """As Place.digest, of what lies there now."""
        return sha256_of(self.path(name))


def _walked(root: Path) -> Iterator[str]:
    """Files below `root`, by their names in it; links to files count as files (a ConfigMap's keys are such)."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (Path(folder, name).relative_to(root).as_posix() for name in files)


def what_is_missing(path: Path) -> str:
    """The first part of the path that is not there, and what lies beside it."""
    parent = path
    while not parent.exists() and parent != layout.SOURCES and parent != parent.parent:
        path, parent = parent, parent.parent
    if not parent.is_dir():
        return f"there is no folder {parent}"
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith((".", "_")))[:10]
    beside = f"there are {', '.join(names)}" if names else "the folder is empty"
    return f"there is no {path.name!r} in {parent} ({beside})"
