"""The two parts of a step that this project replaces, each against the stock one: attention, and head with loss.

    python bench/parts.py [--threads N]

On a row of 2,048 tokens of real records, forward and backward, in fp32, hidden size 1,024, 16 heads of 64 on two keys,
vocabulary 65,024, the head frozen. Times are medians of five in CPU seconds; each side in a process of its own.

- attention, from the fused projection to what `dense` is given: stock FalconAttention with a block-diagonal mask, the
  only right way that it has on a CPU, against DocumentAttention.
- loss: full logits and cross-entropy as in transformers, against LossHead; every token trained, or the answers alone.

The last line is one JSON object: ours over stock, and the largest difference of what comes out.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import MEGABYTE, Measured, measure, print_table, report, run_side
from bench.records import alpaca, dolly
from falcon_trainer.data.packing import pack
from falcon_trainer.data.store import IGNORED, DocumentWriter, PackedRows, write_plan

CAPACITY, HIDDEN, HEADS, GROUPS, VOCABULARY = 2048, 1024, 16, 2, 65_024
REPEATS = 5
STOCK, OURS = "stock", "ours"
PARTS = ("attention", "loss, every token", "loss, answers")


def write_row(folder: Path, records: list[Any]) -> str:
    """Keeps the fullest row of the records; returns a sentence about it."""
    records = [tokens.cut(CAPACITY) for tokens in records]
    writer = DocumentWriter(folder)
    for tokens in records:
        writer.add(tokens)
    writer.close()
    write_plan(folder, pack(np.array([len(tokens.ids) for tokens in records]), CAPACITY))
    packed = PackedRows(folder)
    # Of the fullest rows, the one with the median number of documents.
    full = np.flatnonzero(packed.lengths == packed.lengths.max()).tolist()
    row = packed.row(sorted(full, key=lambda index: len(packed.plan.row(index)))[len(full) // 2])
    np.savez(folder / "row.npz", allow_pickle=False, **row)
    sizes = np.diff([*np.flatnonzero(row["position_ids"] == 0), len(row["input_ids"])])
    answers = (row["labels"] != IGNORED).mean()
    return f"{len(sizes)} documents of {', '.join(map(str, sizes))} tokens, {answers:.0%} in answers"


def attention(side: str, row: dict[str, Any]) -> Callable[[], Any]:
    """Forward and backward of attention without its two projections."""
    import torch
    from transformers import FalconConfig
    from transformers.models.falcon.modeling_falcon import FalconAttention, FalconRotaryEmbedding

    from falcon_trainer.model.attention import Borders, DocumentAttention, sdpa_kernel
    from falcon_trainer.model.checkpointing import Keeper

    config: Any = FalconConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        num_kv_heads=GROUPS,
        new_decoder_architecture=True,
        attn_implementation="sdpa",
    )
    positions = row["position_ids"][None]
    documents = (positions[0] == 0).cumsum(0)
    length = len(documents)
    mask = (documents[:, None] == documents) & torch.ones(length, length, dtype=torch.bool).tril()
    stock = side == STOCK
    layer: Any = FalconAttention(config, 0) if stock else DocumentAttention(config, 0, Borders(), sdpa_kernel, Keeper())
    layer.query_key_value = layer.dense = torch.nn.Identity()
    torch.manual_seed(0)
    width = (HEADS + 2 * GROUPS) * HIDDEN // HEADS
    fused = torch.randn(1, length, width, requires_grad=True)
    rotary = FalconRotaryEmbedding(config)(fused, positions)

    def run() -> Any:
        fused.grad = None
        mixed = layer(fused, None, mask[None, None], positions, position_embeddings=rotary)[0]
        mixed.sum().backward()
        return mixed.detach(), fused.grad

    return run


def loss(side: str, row: dict[str, Any], *, every_token: bool) -> Callable[[], Any]:
    """Forward and backward of head and loss."""
    import torch
    from torch.nn import functional

    from falcon_trainer.model.loss import LossHead

    torch.manual_seed(0)
    head = LossHead(HIDDEN, VOCABULARY, bias=False).requires_grad_(False)
    torch.nn.init.normal_(head.weight, std=0.02)
    hidden = torch.randn(1, len(row["labels"]), HIDDEN, requires_grad=True)
    labels = row["labels"][None]
    if every_token:
        labels = torch.where(row["position_ids"] == 0, IGNORED, row["input_ids"])[None]

    def stock() -> Any:
        logits = functional.linear(hidden, head.weight).float()
        following = functional.pad(labels, (0, 1), value=IGNORED)[..., 1:].reshape(-1)
        return functional.cross_entropy(logits.view(-1, VOCABULARY), following, ignore_index=IGNORED)

    def run() -> Any:
        hidden.grad = None
        value = stock() if side == STOCK else head(hidden, labels)
        value.backward()
        return value.detach(), hidden.grad

    return run


def run(part: str, side: str, folder: Path, threads: int) -> None:
    """In a side's own process."""
    import torch

    torch.set_num_threads(threads)
    row = {name: torch.from_numpy(values) for name, values in np.load(folder / "row.npz").items()}
    every_token = part == "loss, every token"
    action = attention(side, row) if part == "attention" else loss(side, row, every_token=every_token)
    measured, values = measure(action, repeats=REPEATS)
    torch.save(values, folder / f"{part} {side}.pt")
    report(measured)


def compare(name: str, records: list[Any], threads: int) -> dict[str, dict[str, float]]:
    """Both sides of all parts on one row; prints the table. Returns the figures of each part."""
    import torch

    figures: dict[str, dict[str, float]] = {}
    lines = []
    with TemporaryDirectory(prefix="bench-parts-") as folder:
        print(f"{name}: {write_row(Path(folder), records)}")
        for part in PARTS:
            sides: dict[str, Measured] = {}
            for side in (STOCK, OURS):
                own = [f"--part={part}", f"--side={side}", f"--folder={folder}", f"--threads={threads}"]
                sides[side] = run_side(__file__, own, threads=threads, interval=1)
                peak = f"{sides[side].peak / MEGABYTE:.0f}"
                lines.append((f"{part}, {side}", f"{sides[side].seconds:.3f}", f"{min(sides[side].cpu):.3f}", peak))
            made = [torch.load(Path(folder) / f"{part} {side}.pt") for side in (STOCK, OURS)]
            figures[part] = {
                "time": round(sides[OURS].seconds / sides[STOCK].seconds, 3),
                "peak": round(sides[OURS].peak / sides[STOCK].peak, 3),
                "difference": max(float((a - b).abs().max()) for a, b in zip(*made, strict=True)),
            }
    print_table(("part", "CPU s", "least", "peak MB"), lines)
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads", type=int, default=1, help="default 1: CPU seconds then hardly depend on neighbours"
    )
    for hidden in ("--part", "--side"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run(arguments.part, arguments.side, arguments.folder, arguments.threads)
        return
    rows = {"dolly": dolly(), "dolly + alpaca": dolly() + alpaca()}
    print(json.dumps({name: compare(name, records, arguments.threads) for name, records in rows.items()}))


if __name__ == "__main__":
    main()
