"""Saving a checkpoint under ZeRO-3 on two ranks: the stock Trainer against this project's, on the same model.

    python bench/checkpoint.py [--quick] [--repeats N] [--rank LORA_RANK] [--folder FOLDER]

What the two sides are is told in `checkpoint_ranks.py`. They save the same engine in turns; the median counts.

- bytes: of the tensors of all collectives of one save, as rank 0 sees them (a gather or an all-gather: all that comes
  in; a broadcast: what goes out). A network moves as many, times what its algorithm needs.
- pause: seconds until training may go on, on the rank that waits longest.
- written: seconds until all files are written. Ours are then digested, fsynced and renamed as well; stock's are not.

The last line is one JSON object; ratios are ours over stock.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import MEGABYTE, print_table

RANKS = 2
MODEL = {"hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16, "num_kv_heads": 1}
QUICK = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_kv_heads": 1}
VOCABULARY = 65_024


def write_base(folder: Path, shape: dict[str, int]) -> None:
    """Writes a random Falcon for the ranks to load."""
    import torch
    from transformers import FalconConfig, FalconForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    flags = {"new_decoder_architecture": True, "parallel_attn": True, "bias": False, "alibi": False}
    torch.manual_seed(0)
    FalconForCausalLM(FalconConfig(vocab_size=VOCABULARY, **flags, **shape)).save_pretrained(folder / "base")


def train_and_save(folder: Path, repeats: int) -> dict[str, Any]:
    """Runs both ranks; raises CalledProcessError where one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "DS_ACCELERATOR": "cpu"}
    common["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, str(Path(__file__).with_name("checkpoint_ranks.py")), str(folder), str(repeats)]
    with (folder / "ranks.log").open("wb") as log:
        ranks = [
            subprocess.Popen(
                command, env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=log, stderr=log
            )
            for rank in range(RANKS)
        ]
        codes = [rank.wait() for rank in ranks]
    if any(codes):
        print((folder / "ranks.log").read_text()[-6000:], file=sys.stderr)
        raise subprocess.CalledProcessError(max(codes, key=abs), command)
    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return figures


def show(figures: dict[str, Any]) -> None:
    """The table."""
    print_table(
        ("save", "MB moved", "collectives", "pause s", "written s"),
        [
            (
                name,
                f"{sum(side['bytes'].values()) / MEGABYTE:.2f}",
                ", ".join(f"{calls} {kind}" for kind, calls in sorted(side["calls"].items())),
                f"{median(side['pauses']):.3f} ({min(side['pauses']):.3f} to {max(side['pauses']):.3f})",
                f"{median(side['durable']):.3f}",
            )
            for name, side in figures["sides"].items()
        ],
    )


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """The last line."""
    stock, ours = figures["sides"]["stock"], figures["sides"]["ours"]
    return {
        "bytes_ratio": round(sum(ours["bytes"].values()) / sum(stock["bytes"].values()), 5),
        "pause_ratio": round(median(ours["pauses"]) / median(stock["pauses"]), 4),
        "trainable_fraction": round(figures["trained"] / (figures["base"] + figures["trained"]), 5),
        "pause_stock_s": round(median(stock["pauses"]), 4),
        "pause_ours_s": round(median(ours["pauses"]), 4),
        "written_ours_s": round(median(ours["durable"]), 4),
    }


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="timed saves of each side (%(default)s)")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter; about 1 %% is trained with %(default)s")
    parser.add_argument("--folder", type=Path, help="a disk to save on (default: the temporary folder's)")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one save: shows that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = 1
    return arguments


def main() -> None:
    """Runs the bench."""
    arguments = parse()
    with TemporaryDirectory(prefix="bench-checkpoint-", dir=arguments.folder) as name:
        folder = Path(name)
        write_base(folder, QUICK if arguments.quick else MODEL)
        (folder / "bench.json").write_text(json.dumps({"rank": arguments.rank}))
        figures = train_and_save(folder, arguments.repeats)
    print(
        f"Falcon of {figures['base'] / 1e6:.1f} million parameters in fp32, {figures['trained'] / 1e6:.2f} million "
        f"trained; {RANKS} ranks of one machine, gloo; {arguments.repeats} timed saves of each side\n"
    )
    show(figures)
    print(json.dumps(ratios(figures)))


if __name__ == "__main__":
    main()
