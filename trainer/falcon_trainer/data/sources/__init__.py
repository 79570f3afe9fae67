"""Where records come from: fetched or mounted files, read one record at a time."""

from falcon_trainer.data.sources.reading import read
from falcon_trainer.data.sources.record import Record, Where
from falcon_trainer.data.sources.selection import Sources

__all__ = ["Record", "Sources", "Where", "read"]
