"""How a record becomes a document: the formats, recognised or named, and the chat template that makes the text."""

from falcon_trainer.data.formats.conversion import Conversion, Sample
from falcon_trainer.data.formats.instruction import ALPACA, DOLLY
from falcon_trainer.data.formats.record import Document, InvalidRecord, Kind, Segment

__all__ = ["ALPACA", "DOLLY", "Conversion", "Document", "InvalidRecord", "Kind", "Sample", "Segment"]
