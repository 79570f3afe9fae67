"""All sources of a data set: fetched, and their files by what they are used for."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from falcon_trainer import uris
from falcon_trainer.config import Dataset
from falcon_trainer.data.sources.bucket import Bucket
from falcon_trainer.data.sources.choosing import Wanted
from falcon_trainer.data.sources.hub_data import HubData
from falcon_trainer.data.sources.mounted import Mounted
from falcon_trainer.data.sources.place import Place
from falcon_trainer.data.sources.reading import read, unreadable
from falcon_trainer.data.sources.record import Record
from falcon_trainer.data.sources.web import Web
from falcon_trainer.outcome import ExitCode, StageError

PLACES: dict[str, Callable[[Wanted, Path, str], Place]] = {
    "pvc": lambda wanted, downloads, field: Mounted(wanted),
    "configmap": lambda wanted, downloads, field: Mounted(wanted),
    "https": lambda wanted, downloads, field: Web(wanted, downloads),
    "s3": lambda wanted, downloads, field: Bucket(wanted, downloads),
    "hf": HubData,
}


class Sources:
    """The files of a data set. `fetch` comes first; whatever follows reads local files only."""

    def __init__(self, dataset: Dataset, downloads: Path) -> None:
        self._held_out = dataset.validation.split if dataset.validation else None
        self._places = [
            _place(Wanted(source.uri, source.split, self._held_out), downloads, f"dataset.sources[{index}].uri")
            for index, source in enumerate(dataset.sources)
        ]

    def fetch(self) -> None:
        """Brings what is remote to `downloads`, and says what is used of each source; a second call finds it there.

        Raises StageError: NO_INPUT where something is missing, NO_PERMISSION where it is refused, UNAVAILABLE where it
        cannot be had now, CANNOT_WRITE where there is no room for it, CONFIGURATION where a URI is none.
        """
        for place in self._places:
            place.fetch()
            print(_told(place), flush=True)

    def training(self) -> list[Path]:
        """The files to train on, in the order of the spec and, within a folder, of its splits.

        Raises StageError(NO_INPUT) where there is none, StageError(CONFIGURATION) where one is held out as well.
        """
        files = [file for place in self._places for file in _paths(place, place.chosen().training)]
        if not files:
            raise StageError(
                ExitCode.NO_INPUT,
                "DataNotFound",
                f"No file is left to train on: all of dataset.sources belong to the split {self._held_out!r} of "
                "dataset.validation.split. Name another split, or further sources.",
            )
        held_out = {file.resolve() for file in self._validation()}
        for file in files:
            if file.resolve() in held_out:
                raise StageError(
                    ExitCode.CONFIGURATION,
                    "DataOverlaps",
                    f"{self.shown(file)} is to be trained on and to be held out for validation: check the splits of "
                    "dataset.sources.",
                )
        return files

    def validation(self) -> list[Path]:
        """The files of dataset.validation.split; none where it is not asked for.

        Raises StageError(NO_INPUT) where no source has that split.
        """
        files = self._validation()
        if self._held_out and not files:
            known = "; ".join(f"{place.wanted.shown} has {_splits(place)}" for place in self._places)
            raise StageError(
                ExitCode.NO_INPUT,
                "DataNotFound",
                f"No source has the split {self._held_out!r} of dataset.validation.split ({known}). Name one of them, "
                "or set dataset.validation.fraction instead.",
            )
        return files

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of every file by its name: what was prepared, told apart from what lies there now.

        Raises StageError(NO_INPUT) where a file is missing or cannot be read.
        """
        found = {}
        for place, name in self._used():
            try:
                found[place.key(name)] = place.digest(name)
            except OSError as error:
                raise unreadable(place.path(name), error) from error
        return found

    def read(self, file: Path) -> Iterator[Record]:
        """The records of one of the files, as reading.read has them, their places named by `shown`."""
        return read(file, self.shown(file))

    def shown(self, file: Path) -> str:
        """What messages call a file: its name in its source, with the source before it where another has the same."""
        return self._names.get(file, file.name)

    @cached_property
    def _names(self) -> dict[Path, str]:
        used = [(place.path(name), place, name) for place, name in self._used()]
        seen = Counter(name for _, _, name in used)
        return {path: name if seen[name] == 1 else place.address(name) for path, place, name in used}

    def _used(self) -> Iterator[tuple[Place, str]]:
        for place in self._places:
            for name in place.chosen().files:
                yield place, name

    def _validation(self) -> list[Path]:
        return [file for place in self._places for file in _paths(place, place.chosen().validation)]


def _place(wanted: Wanted, downloads: Path, field: str) -> Place:
    if sentence := uris.problem(wanted.uri, uris.DATA):
        raise StageError(
            ExitCode.CONFIGURATION, "SourceNotUsable", f"{field}: {wanted.shown!r} cannot be used: {sentence}."
        )
    return PLACES[uris.split(wanted.uri)[0]](wanted, downloads, field)


def _paths(place: Place, names: tuple[str, ...]) -> list[Path]:
    return [place.path(name) for name in names]


def _splits(place: Place) -> str:
    chosen = place.chosen()
    return "no splits, being one file" if chosen.single else ", ".join(chosen.splits)


def _told(place: Place) -> str:
    chosen = place.chosen()
    uses = (
        (chosen.training, "to train on"),
        (chosen.validation, "to validate on"),
        (chosen.left_out, "of no split, left out"),
    )
    parts = [
        f"{len(names)} {'file' if len(names) == 1 else 'files'} {use} ({_some(names)})" for names, use in uses if names
    ]
    return f"{place.wanted.shown}: {'; '.join(parts)}."


def _count(names: tuple[str, ...]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names)} files"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
