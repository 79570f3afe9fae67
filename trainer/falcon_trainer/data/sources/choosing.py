"""Which files of a source are trained on, and which are held out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import JsonValue

from falcon_trainer.data.sources import kinds
from falcon_trainer.data.sources.splits import (
    NoSuchSplitsError,
    Splits,
    configurations,
    default_configuration,
    splits_of,
)
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.uris import shown

DEFAULT = "train"
"""The split that is meant where none is named."""


@dataclass(frozen=True)
class Wanted:
    """What a data set wants of one source."""

    uri: str
    split: str | None
    """The split to train on; None takes DEFAULT."""
    held_out: str | None
    """The split to validate on, if any."""

    def missing(self, what: str) -> StageError:
        """The error that the source is not there, or not as it was asked for; `what` is a clause."""
        return StageError(ExitCode.NO_INPUT, "DataNotFound", f"{self.shown}: {what}.")

    @property
    def shown(self) -> str:
        """The URI as messages have it."""
        return shown(self.uri)


@dataclass(frozen=True)
class Chosen:
    """Files of a source, by their names in it."""

    training: tuple[str, ...]
    validation: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    """All splits there are."""
    left_out: tuple[str, ...] = ()
    """Files of records that belong to no split."""
    single: bool = False
    """The source is one file."""

    @property
    def files(self) -> tuple[str, ...]:
        return self.training + self.validation

    def facts(self) -> dict[str, JsonValue]:
        """For a manifest."""
        return {
            "training": list(self.training),
            "validation": list(self.validation),
            "splits": list(self.splits),
            "leftOut": list(self.left_out),
            "single": self.single,
        }

    @classmethod
    def of(cls, facts: dict[str, JsonValue]) -> "Chosen":
        """The inverse of `facts`."""

        def names(key: str) -> tuple[str, ...]:
            found = facts[key]
            return tuple(str(name) for name in found) if isinstance(found, list) else ()

        return cls(
            names("training"), names("validation"), names("splits"), names("leftOut"), single=facts["single"] is True
        )


def single(name: str, wanted: Wanted) -> Chosen:
    """A source that is one file: it is what its `split` says, and is trained on unless that is the held-out one."""
    if wanted.split is not None and wanted.split == wanted.held_out:
        return Chosen((), (name,), single=True)
    return Chosen((name,), single=True)


def choose(splits: Splits, listed: Iterable[str], wanted: Wanted) -> Chosen:
    """The files of the wanted splits. Raises StageError(NO_INPUT) where there is no such split."""
    if not any(splits.values()):
        raise wanted.missing(f"the folder holds no file of records ({kinds.KNOWN})")
    split = wanted.split or DEFAULT
    if split not in splits:
        raise wanted.missing(
            f"it has no split {split!r}; it has {', '.join(splits)}. Name one of them in split, or name a file"
        )
    validation = splits.get(wanted.held_out, ()) if wanted.held_out else ()
    # A pattern in a README may put a file into both.
    training = tuple(name for name in splits[split] if name not in validation)
    used = {name for names in splits.values() for name in names}
    left_out = tuple(sorted(name for name in listed if name not in used))
    return Chosen(training, validation, tuple(splits), left_out)


def chosen_of_folder(listed: Iterable[str], card: str, wanted: Wanted) -> Chosen:
    """The files of a folder on a claim or in a bucket, all kinds of them; `card` is the text of its README.md.

    Raises StageError(NO_INPUT).
    """
    names = records_among(listed)
    try:
        found = configurations(card)
        splits = splits_of(names, found.get(default_configuration(found) or ""))
    except NoSuchSplitsError as error:
        raise wanted.missing(str(error)) from error
    return choose(splits, names, wanted)


def records_among(names: Iterable[str]) -> list[str]:
    """Of all files of a folder, those that hold records, by name.

    Hidden ones and those below `__folders__` are not meant, as everywhere with the Hub's libraries; the state.json that
    they write beside a saved data set is none of its records.
    """
    listed = set(names)
    return sorted(
        name
        for name in listed
        if kinds.named(name) and not _is_hidden(name) and not _is_saved_state(PurePosixPath(name), listed)
    )


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") or not part for part in parts) or any(part.startswith("__") for part in parts[:-1])


def _is_saved_state(name: PurePosixPath, listed: set[str]) -> bool:
    return name.name == "state.json" and str(name.with_name("dataset_info.json")) in listed
