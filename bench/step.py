"""One training step, whole: the stock recipe against this project's, on the same Falcon and the same records.

    python bench/step.py [--quick] [--model small|tiny|falcon-7b-shape] [--rows N] [--epochs N] [--seeds N]

What the two sides are is told in `step_sides.py`. Each run trains in a process of its own; stock and ours take turns,
both with the launcher's setting for tensors on the host.

- useful tokens: those of records. Ours pads a row to a multiple of 8, which is not counted; stock has no padding.
- tokens/s: useful tokens of all steps but the first, by the time from the end of the first step to that of the last.
- peak: resident memory during training above what the process held with the model loaded (on a GPU: allocated memory).
- held-out loss: mean over the answers' tokens of records that neither side was trained on, each document alone,
  computed for both by stock Falcon and PEFT with the adapter that the run made.

The last line is one JSON object; ratios are ours over stock, of medians over the runs; losses are means over the seeds.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import MEGABYTE, Measured, measure, print_table, report, run_side
from bench.records import alpaca, described, dolly
from falcon_trainer.data.packing import pack
from falcon_trainer.data.store import DocumentWriter, write_plan
from falcon_trainer.data.tokenization import Tokens
from falcon_trainer.launcher.command import HUGE_PAGES

CAPACITY = 2048
STOCK, OURS = "stock", "ours"
HELD_OUT = "held-out.json"
HELD_OUT_RECORDS = 40


@dataclass(frozen=True)
class Settings:
    """Of all runs."""

    model: str
    rows: int
    epochs: int
    threads: int
    checkpointing: str


def write_records(folder: Path, rows: int) -> str:
    """Writes the records as each side reads them, and those held out. Returns a sentence about them."""
    from bench.step_sides import STOCK_ROWS

    records = [tokens.cut(CAPACITY) for tokens in dolly() + alpaca()]
    records = [records[place] for place in np.random.default_rng(0).permutation(len(records))]
    held_out, records = records[:HELD_OUT_RECORDS], records[HELD_OUT_RECORDS:]
    lengths = np.array([len(tokens.ids) for tokens in records])
    records = records[: int(np.searchsorted(np.cumsum(lengths), rows * CAPACITY, side="right"))]
    lengths = lengths[: len(records)]
    stream = np.concatenate([tokens.ids for tokens in records])
    np.save(folder / STOCK_ROWS, stream[: len(stream) // CAPACITY * CAPACITY].reshape(-1, CAPACITY))
    writer = DocumentWriter(folder)
    for tokens in records:
        writer.add(tokens)
    writer.close()
    plan = pack(lengths, CAPACITY)
    write_plan(folder, plan)
    (folder / HELD_OUT).write_text(json.dumps([asdict(tokens) for tokens in held_out]))
    trained = sum(tokens.trained_count for tokens in records) / len(stream)
    return (
        f"{len(records)} records of {described()}, {len(stream):,} tokens, {trained:.0%} of them in answers: "
        f"{len(stream) // CAPACITY} rows of {CAPACITY} concatenated, {plan.rows} packed; {len(held_out)} held out"
    )


def describe(settings: Settings) -> str:
    """The model, and what of it makes a difference to the ratios."""
    from bench.step_sides import SHAPES

    shape, large = SHAPES[settings.model], SHAPES["falcon-7b-shape"]
    return (
        f"Falcon of {shape.layers} layers, hidden size {shape.hidden}, {shape.heads} heads on {shape.kv_heads} key, "
        f"vocabulary {shape.VOCABULARY:,}; epochs: {settings.epochs}, threads: {settings.threads}, ours with "
        f"{settings.checkpointing} checkpointing.\nOf the stock forward pass's multiplications {shape.shares} (of "
        f"Falcon-7B's {large.shares}): what is saved there weighs more here than in a large model."
    )


def run(side: str, folder: Path, seed: int, settings: Settings) -> None:
    """In a run's own process: trains, then measures the adapter on what was held out."""
    import torch

    from bench import step_sides

    torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = step_sides.SHAPES[settings.model]
    common: dict[str, Any] = {"seed": seed, "epochs": settings.epochs, "device": device}
    if side == STOCK:
        trainer, tokens = step_sides.stock(shape, folder, **common)
    else:
        trainer, tokens = step_sides.ours(shape, folder, **common, checkpointing=settings.checkpointing)
    clock = step_sides.Clock()
    trainer.add_callback(clock)
    allocated = _cuda_memory()
    measured, _ = measure(trainer.train)
    if device == "cuda":
        measured.peak = torch.cuda.max_memory_allocated() - allocated
    documents = [Tokens(**held_out) for held_out in json.loads((folder / HELD_OUT).read_text())]
    report(
        measured,
        tokens=sum(tokens[1:]),
        wall=np.diff(clock.wall).tolist(),
        cpu=np.diff(clock.cpu).tolist(),
        held_out_loss=step_sides.held_out_loss(shape, trainer.model, documents, device),
        device=torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
    )


def _cuda_memory() -> int:
    """Bytes that are allocated now; the peak begins anew. Not run on a GPU."""
    import torch

    if not torch.cuda.is_available():
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def speed(made: Measured, clock: str = "wall") -> float:
    """Useful tokens per second of a run."""
    return float(made.facts["tokens"] / sum(made.facts[clock]))


def show(runs: dict[str, list[Measured]]) -> None:
    """Every run's raw figures."""
    print_table(
        (
            "run",
            "device",
            "steps",
            "tokens",
            "wall s",
            "CPU s",
            "tokens/s",
            "tokens/CPU s",
            "s/step",
            "peak MB",
            "loss",
        ),
        [
            (
                f"{side}, seed {seed}",
                made.facts["device"],
                str(len(made.facts["wall"])),
                f"{made.facts['tokens']:,}",
                f"{sum(made.facts['wall']):.1f}",
                f"{sum(made.facts['cpu']):.1f}",
                f"{speed(made):.1f}",
                f"{speed(made, 'cpu'):.1f}",
                f"{median(made.facts['wall']):.2f}",
                f"{made.peak / MEGABYTE:.0f}",
                f"{made.facts['held_out_loss']:.4f}",
            )
            for side, all_made in runs.items()
            for seed, made in enumerate(all_made)
        ],
    )
    for side, all_made in runs.items():
        for seed, made in enumerate(all_made):
            print(
                f"seconds of the steps, {side}, seed {seed}: {' '.join(f'{wall:.2f}' for wall in made.facts['wall'])}"
            )
    print(flush=True)


def figures(runs: dict[str, list[Measured]]) -> dict[str, float]:
    """The last line."""

    def ratio(of: Callable[[Measured], float]) -> float:
        return round(median(map(of, runs[OURS])) / median(map(of, runs[STOCK])), 4)

    def loss(side: str) -> float:
        return round(mean(float(made.facts["held_out_loss"]) for made in runs[side]), 4)

    return {
        "useful_tokens_ratio": ratio(speed),
        "step_time_ratio": ratio(lambda made: float(median(made.facts["wall"]))),
        "peak_memory_ratio": ratio(lambda made: made.peak),
        "heldout_loss_stock": loss(STOCK),
        "heldout_loss_ours": loss(OURS),
        "useful_tokens_ratio_cpu_time": ratio(lambda made: speed(made, "cpu")),
    }


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", help="small, tiny, or falcon-7b-shape (bf16, needs a GPU)")
    parser.add_argument("--rows", type=int, default=10, help="rows of tokens that the records fill")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--checkpointing", default="selective", help="of ours: selective, full or none")
    parser.add_argument("--quick", action="store_true", help="tiny model, 4 rows, one seed: shows that it runs")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.rows, arguments.seeds = "tiny", 4, 1
    return arguments


def main() -> None:
    """Runs all sides in turns, or one of them."""
    arguments = parse()
    settings = Settings(arguments.model, arguments.rows, arguments.epochs, arguments.threads, arguments.checkpointing)
    if arguments.side:
        run(arguments.side, arguments.folder, arguments.seed, settings)
        return
    runs: dict[str, list[Measured]] = {STOCK: [], OURS: []}
    options = [f"--{name}={value}" for name, value in asdict(settings).items()]
    with TemporaryDirectory(prefix="bench-step-") as folder:
        print(f"{write_records(Path(folder), settings.rows)}\n{describe(settings)}\n", flush=True)
        for seed in range(arguments.seeds):
            for side, made in runs.items():
                own = [f"--side={side}", f"--seed={seed}", f"--folder={folder}"]
                made.append(run_side(__file__, [*options, *own], threads=settings.threads, interval=1, **HUGE_PAGES))
                print(f"{side}, seed {seed}: done in {made[-1].wall[0]:.0f} s", flush=True)
    print()
    show(runs)
    print(json.dumps(figures(runs)))


if __name__ == "__main__":
    main()
