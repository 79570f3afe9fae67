"""The figures of a prepared data set: what the status shows, and what the report draws.

`statistics.json`:
```
figures          as the status has them
sequenceLength   tokens of a row
packing          best-fit | concatenate | none
invalidKinds     {kind: records}
leftOut          training records that say the same as one of the validation split
lengths          of the training records, before anything was cut:
  edges          n + 1 tokens, rising from 0; the last but one is sequenceLength where there are longer records
  counts         n records: counts[i] have edges[i] < tokens <= edges[i + 1]
  quantiles      {"0.01" … "0.99": tokens}
fill             {edges, counts} in the same way: training rows by their share of real tokens, in tenths
```
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from falcon_trainer.config import Dataset, Training
from falcon_trainer.data.findings import Findings
from falcon_trainer.data.rowset import RowSet
from falcon_trainer.data.writing import Writing
from falcon_trainer.train.batching import total_steps
from falcon_trainer.wire import decimal_text

BINS = 32
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Figures = dict[str, JsonValue]


def figures(dataset: Dataset, training: Training, form: str, findings: Findings, written: Writing) -> Figures:
    """What the status shows of the data set: no floats, a custom resource has none.

    records = skipped + validation.records + those that are trained on.
    """
    rows, sets = written.training, written.sets
    skipped = findings.invalid + written.left_out + sum(each.fitting.skipped for each in sets)
    told: Figures = {
        "format": form,
        "records": findings.records,
        "skipped": skipped,
        "invalid": findings.invalid,
        "emptyAnswers": findings.empty_answers,
        "duplicates": findings.duplicates,
        "truncated": sum(each.fitting.truncated for each in sets),
        "split": sum(each.fitting.split for each in sets),
        "documents": len(rows.stored),
        "longestDocument": int(rows.whole.max()),
        "medianDocument": int(np.median(rows.whole)),
        **_rows(rows),
        "packingEfficiency": decimal_text(round(rows.tokens / (rows.rows * dataset.sequence_length), 4)),
        "totalSteps": total_steps(training, rows.rows),
    }
    if written.validation:
        told["validation"] = {"records": written.validation.records, **_rows(written.validation)}
    return told


def _rows(rows: RowSet) -> Figures:
    return {"sequences": rows.rows, "tokens": rows.tokens, "trainedTokens": rows.trained}


def statistics(
    dataset: Dataset, told: Figures, findings: Findings, written: Writing, fill: NDArray[np.int64]
) -> Figures:
    """What the report draws. `fill` has the tokens of each training row."""
    return {
        "figures": told,
        "sequenceLength": dataset.sequence_length,
        "packing": dataset.packing,
        "invalidKinds": {**findings.kinds},
        "leftOut": written.left_out,
        "lengths": lengths(written.training.whole, dataset.sequence_length),
        "fill": _histogram(fill / dataset.sequence_length, np.linspace(0, 1, 11)),
    }


def lengths(tokens: NDArray[np.int64], capacity: int) -> Figures:
    """Histogram and quantiles of record lengths: equal bins up to the row's length, one more for what is longer."""
    longest = int(tokens.max())
    within = min(longest, capacity)
    edges = np.linspace(0, within, min(BINS, within) + 1).round().astype(np.int64)
    if longest > capacity:
        edges = np.append(edges, longest)
    quantiles = np.quantile(tokens, QUANTILES, method="inverted_cdf")
    named: Figures = {f"{q:g}": int(value) for q, value in zip(QUANTILES, quantiles, strict=True)}
    return _histogram(tokens, edges) | {"quantiles": named}


def _histogram(values: NDArray[Any], edges: NDArray[Any]) -> Figures:
    bins = np.searchsorted(edges, values, side="left") - 1
    return {"edges": edges.round(4).tolist(), "counts": np.bincount(bins, minlength=len(edges) - 1).tolist()}
