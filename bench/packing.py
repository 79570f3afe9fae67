"""Packing a million documents into rows of 2,048 tokens: this project's packer and its peers, side by side.

    python bench/packing.py [--quick] [--documents N]

Each side runs in a process of its own; times are CPU seconds of all its threads. `plan` sides decide which documents
share a row; `rows` sides also put every row's tokens together once:

- plan, ours: `falcon_trainer.data.packing.pack`, from lengths to the finished plan (best fit, decreasing).
- plan, FFD numba: first-fit-decreasing in groups of 100,000 with a linear search, as axolotl has it, compiled before
  the clock starts; only row numbers are made, no lists of documents.
- rows, ours: plan, written and read back, then `PackedRows.row` of every row, from documents.arrow through the map.
- rows, TRL best-fit: `trl.pack_dataset(…, "bfd")` over the whole set as one batch: the same packing as ours. It writes
  its rows to a cache file, as SFTTrainer's data sets do; reading them again is not counted.
- rows, TRL default: the same in batches of 1,000 documents, as SFTTrainer calls it when nothing is set.

The last line is one JSON object. Every goal is taken from the set where ours does worst.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.length_sets import CAPACITY, TOKENS, length_sets, real_lengths, write_store, write_tokens
from bench.measure import MEGABYTE, Measured, measure, print_table, report, run_side
from bench.records import described
from falcon_trainer.data.packing import Ints, pack

DOCUMENTS, QUICK_DOCUMENTS = 1_000_000, 30_000
LENGTHS = "lengths.npy"
SEED = 0
OURS_PLAN, FFD, OURS_ROWS, TRL_WHOLE, TRL_DEFAULT = (
    "plan, ours",
    "plan, FFD numba",
    "rows, ours",
    "rows, TRL best-fit",
    "rows, TRL default",
)


def plan_ours(folder: Path, lengths: Ints) -> None:
    measured, plan = measure(lambda: pack(lengths, CAPACITY, seed=SEED), repeats=7)
    report(measured, rows=plan.rows)


def plan_ffd(folder: Path, lengths: Ints) -> None:
    from bench.packers import first_fit_decreasing

    first_fit_decreasing(lengths[:1000], CAPACITY)  # compiles
    measured, (_, rows) = measure(lambda: first_fit_decreasing(lengths, CAPACITY), repeats=3)
    report(measured, rows=rows)


def rows_ours(folder: Path, lengths: Ints) -> None:
    from falcon_trainer.data.store import IGNORED, PackedRows, write_plan

    def gather() -> PackedRows:
        write_plan(folder, pack(lengths, CAPACITY, seed=SEED))
        packed = PackedRows(folder)
        for index in range(len(packed)):
            packed.row(index)
        return packed

    measured, packed = measure(gather, repeats=3)
    tokens = trained = documents = 0
    for index in range(len(packed)):
        row = packed.row(index)
        assert len(row["input_ids"]) <= CAPACITY
        tokens += len(row["input_ids"])
        trained += int((row["labels"] != IGNORED).sum())
        documents += int((row["position_ids"] == 0).sum())
    long = lengths[lengths > 1]
    assert (tokens, documents) == (lengths.sum(), len(lengths))
    assert trained == (long - np.maximum(long // 3, 1)).sum()
    report(measured, rows=len(packed))


def rows_trl(folder: Path, lengths: Ints, *, batch: dict[str, Any]) -> None:
    import datasets
    import pyarrow.compute as pc
    from trl.data_utils import pack_dataset

    dataset = datasets.Dataset.from_file(str(folder / TOKENS))
    measured, packed = measure(lambda: pack_dataset(dataset, CAPACITY, "bfd", dict(batch)))
    assert pc.sum(pc.list_value_length(packed.data.table["input_ids"])).as_py() == lengths.sum()
    report(measured, rows=len(packed))


def run(side: str, folder: Path) -> None:
    """In a side's own process."""
    lengths = np.load(folder / LENGTHS)
    if side == TRL_WHOLE:
        rows_trl(folder, lengths, batch={"batch_size": None})
    elif side == TRL_DEFAULT:
        rows_trl(folder, lengths, batch={})
    else:
        {OURS_PLAN: plan_ours, FFD: plan_ffd, OURS_ROWS: rows_ours}[side](folder, lengths)


def compare(name: str, lengths: Ints) -> tuple[dict[str, Measured], int]:
    """All sides on one set; prints the table. Returns the sides and the lower bound."""
    from bench.packers import lower_bound

    bound, tokens, sides = lower_bound(lengths, CAPACITY), int(lengths.sum()), {}
    with TemporaryDirectory(prefix="bench-packing-") as folder:
        np.save(Path(folder) / LENGTHS, lengths)
        write_store(Path(folder), lengths)
        write_tokens(Path(folder), lengths)
        for side in (OURS_PLAN, FFD, OURS_ROWS, TRL_WHOLE, TRL_DEFAULT):
            sides[side] = run_side(__file__, ["--side", side, "--folder", folder])
    print(
        f"{name}: {len(lengths):,} documents of {lengths.mean():.1f} tokens in the mean, {tokens:,} tokens; "
        f"lower bound {bound:,} rows ({tokens / bound / CAPACITY:.4%} full)"
    )
    print_table(
        ("side", "CPU s", "runs", "wall s", "rows", "rows / bound", "efficiency", "peak MB", "with mapped files"),
        [
            (
                side,
                f"{made.seconds:.3f}",
                str(len(made.cpu)),
                f"{np.median(made.wall):.3f}",
                f"{made.facts['rows']:,}",
                f"{made.facts['rows'] / bound:.5f}",
                f"{tokens / made.facts['rows'] / CAPACITY:.4%}",
                f"{made.own_peak / MEGABYTE:.0f}",
                f"{made.peak / MEGABYTE:.0f}",
            )
            for side, made in sides.items()
        ],
    )
    return sides, bound


def compare_as_they_are() -> float:
    """The real records without drawing: few documents, so the bound leaves no packer a full last row."""
    from bench.packers import lower_bound

    ratios = []
    for name, lengths in real_lengths().items():
        rows, bound = pack(lengths, CAPACITY, seed=SEED).rows, lower_bound(lengths, CAPACITY)
        ratios.append(rows / bound)
        full = lengths.sum() / rows / CAPACITY
        print(f"{name}, as they are: {len(lengths):,} documents, {rows} rows, lower bound {bound}, {full:.2%} full")
    print(flush=True)
    return max(ratios)


def figures(sets: list[tuple[dict[str, Measured], int]], as_they_are: float) -> dict[str, float]:
    """The last line: each figure from the set where ours does worst."""

    def least(peer: str, ours: str) -> float:
        return round(min(sides[peer].seconds / sides[ours].seconds for sides, _ in sets), 2)

    def most(peer: str) -> float:
        return round(max(sides[OURS_ROWS].own_peak / sides[peer].own_peak for sides, _ in sets), 4)

    rows = max(sides[OURS_ROWS].facts["rows"] / bound for sides, bound in sets)
    return {
        "rows_over_lower_bound": round(max(rows, as_they_are), 5),
        "plan_speedup_vs_ffd": least(FFD, OURS_PLAN),
        "end_to_end_speedup_vs_trl": least(TRL_WHOLE, OURS_ROWS),
        "peak_ratio_vs_trl": most(TRL_WHOLE),
        "end_to_end_speedup_vs_trl_default": least(TRL_DEFAULT, OURS_ROWS),
        "peak_ratio_vs_trl_default": most(TRL_DEFAULT),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--documents", type=int, default=DOCUMENTS, help="lengths per set; a million need 8 GB of disk and of memory"
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_DOCUMENTS:,} documents: shows that it runs")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run(arguments.side, arguments.folder)
        return
    print(f"Rows of {CAPACITY:,} tokens; real lengths from {described()}; one thread for numpy.\n")
    count = QUICK_DOCUMENTS if arguments.quick else arguments.documents
    sets = [compare(name, lengths) for name, lengths in length_sets(count).items()]
    print(json.dumps(figures(sets, compare_as_they_are())))


if __name__ == "__main__":
    main()
