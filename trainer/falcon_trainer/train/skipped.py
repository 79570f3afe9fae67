"""The global batches that a run leaves out since their loss was no number: `runs/NAME/skipped.json`.

Whoever trains reads the file once, at its start, so an attempt's order of rows never changes under it. It is read
whatever `training.onNonFinite` says by now: the checkpoints were trained in that order.
"""

from collections.abc import Iterable, Sequence
from typing import Self

from pydantic import Field, ValidationError

from falcon_trainer.artifacts import write_file
from falcon_trainer.layout import RunLayout
from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.progress import Notice
from falcon_trainer.train.finite import Figures
from falcon_trainer.wire import Wire

SHOWN_ROWS = 20


class SkippedBatch(Wire):
    """One global batch that is never trained again."""

    batch: int = Field(ge=0, description="Its number in the order of all rows, see train/order.py.")
    step: int = Field(ge=1, description="The optimizer step that it was.")
    rows: list[int]
    loss: str = Field(description="As text: JSON has no word for infinity.")
    gradient_norm: str
    learning_rate: str

    @classmethod
    def of(cls, figures: Figures, batch: int, rows: Sequence[int]) -> Self:
        """The record of a step that went wrong."""
        loss, norm, rate = (f"{each:g}" for each in (figures.loss, figures.gradient_norm, figures.learning_rate))
        return cls(batch=batch, step=figures.step, rows=list(rows), loss=loss, gradient_norm=norm, learning_rate=rate)


class _File(Wire):
    identity: str
    batches: list[SkippedBatch]


def read_skipped(layout: RunLayout, identity: str) -> tuple[SkippedBatch, ...]:
    """The batches that this run leaves out; those of a run with other settings count for nothing.

    Raises StageError(DATA) where the file cannot be understood: without it, checkpoints would be gone on from with
    other rows than they were made for.
    """
    try:
        found = _File.model_validate_json(layout.skipped.read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise StageError(
            ExitCode.DATA,
            "SkippedBatchesUnreadable",
            f"{layout.skipped} cannot be read, so nobody knows which rows the checkpoints were trained on. Restore it, "
            f"or delete it together with {layout.attempts} to train from the beginning.",
        ) from error
    return tuple(found.batches) if found.identity == identity else ()


def add_skipped(layout: RunLayout, identity: str, batch: SkippedBatch) -> None:
    """Leaves one more batch out from the next attempt on. Raises OSError where it cannot be written."""
    batches = [*read_skipped(layout, identity), batch]
    write_file(layout.skipped, _File(identity=identity, batches=batches).model_dump_json(by_alias=True, indent=1))


def notices(batches: Iterable[SkippedBatch], trained: int, file: str) -> list[Notice]:
    """What a person hears of the batches that are left out after batch `trained`, the last one that the checkpoint has
    seen (-1: none). Those before it were told of when they were left out.
    """
    return [Notice(reason="BatchSkipped", message=_text(each, file)) for each in batches if each.batch > trained]


def _text(batch: SkippedBatch, file: str) -> str:
    rows, more = ", ".join(map(str, batch.rows[:SHOWN_ROWS])), max(0, len(batch.rows) - SHOWN_ROWS)
    return (
        f"step {batch.step} is trained without the global batch that made its loss {batch.loss} (gradient norm "
        f"{batch.gradient_norm}): rows {rows}"
        + (f" and {more} more" if more else "")
        + f". All that are left out: {file}"
    )
