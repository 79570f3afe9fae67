"""Where records come from: fetched or mounted files, read one record at a time."""

from pathlib import Path

from falcon_trainer.config import Dataset
from falcon_trainer.data.sources.reading import read
from falcon_trainer.data.sources.record import Record, Where
from falcon_trainer.data.sources.selection import Sources

__all__ = ["Record", "Sources", "Where", "files_of", "fingerprint", "read"]


def files_of(dataset: Dataset) -> list[Path]:
    """As Sources.training, of sources that are mounted."""
    return Sources(dataset, Path()).training()


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """As Sources.fingerprint, of sources that are mounted."""
    return Sources(dataset, Path()).fingerprint()
