"""The length sets of the packing bench, and stores of documents that have these lengths."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from bench.records import alpaca, dolly
from falcon_trainer.data.packing import Ints
from falcon_trainer.data.store import IGNORED, DocumentWriter
from falcon_trainer.data.tokenization import Tokens

CAPACITY = 2048
TOKENS = "tokens.arrow"
"""The same documents as a trainer in transformers' manner holds them: `input_ids` and `labels`, both int32."""
BATCH = 10_000
VOCABULARY = 65_024


def real_lengths() -> dict[str, Ints]:
    """Lengths of the real records, cut at a row."""
    alone = [min(len(tokens.ids), CAPACITY) for tokens in dolly()]
    others = [min(len(tokens.ids), CAPACITY) for tokens in alpaca()]
    return {"dolly": np.array(alone, np.int64), "dolly + alpaca": np.array(alone + others, np.int64)}


def length_sets(count: int) -> dict[str, Ints]:
    """Sets of `count` lengths: log-normal as in the literature, and real ones drawn with replacement."""
    real = real_lengths()
    log_normal = np.exp(np.random.default_rng(0).normal(5.2, 1.0, count)).astype(np.int64)
    return {
        "log-normal": np.clip(log_normal, 1, CAPACITY),
        "dolly + alpaca": np.random.default_rng(0).choice(real["dolly + alpaca"], count),
        "dolly": np.random.default_rng(0).choice(real["dolly"], count),
    }


def write_store(folder: Path, lengths: Ints) -> None:
    """The documents as prepare writes them."""
    writer = DocumentWriter(folder)
    for ids, sizes in _batches(lengths):
        for document, size in zip(np.split(ids, np.cumsum(sizes)[:-1]), sizes.tolist(), strict=True):
            # An array instead of a list: what is written is the same, and a million documents take half of the time.
            writer.add(Tokens(cast(list[int], document), _trained(size)))
    writer.close()


def write_tokens(folder: Path, lengths: Ints) -> None:
    """The same documents with one label a token, as an Arrow stream that `datasets` maps into memory."""
    kind: Any = pa.list_(pa.int32())
    schema = pa.schema([("input_ids", kind), ("labels", kind)])
    with pa.OSFile(str(folder / TOKENS), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for ids, sizes in _batches(lengths):
            offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
            within = np.arange(len(ids)) - np.repeat(offsets[:-1], sizes)
            labels = np.where(within < np.repeat(np.maximum(sizes // 3, 1), sizes), IGNORED, ids)
            columns = [pa.ListArray.from_arrays(offsets, values) for values in (ids, labels.astype(np.int32))]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _batches(lengths: Ints) -> Iterator[tuple[Any, Ints]]:
    """Flat token numbers and sizes of some thousand documents at a time. Which tokens they are changes nothing."""
    first = 0
    for start in range(0, len(lengths), BATCH):
        sizes = lengths[start : start + BATCH]
        total = int(sizes.sum())
        yield (np.arange(first, first + total) * 7 % VOCABULARY).astype(np.int32), sizes
        first += total


def _trained(size: int) -> list[int]:
    """The last two thirds of a document are its answer."""
    return [max(size // 3, 1), size] if size > 1 else []
