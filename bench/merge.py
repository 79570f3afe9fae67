"""Merging an adapter into a Falcon: ours against PEFT's whole merge, and against what no merge can be faster than.

    python bench/merge.py [--sizes 1,4,8] [--repeats N] [--cache cold|warm] [--folder FOLDER] [--quick]

Models are Falcon-7B with fewer layers, random weights in bf16, rank 64. The largest one is merged as one single file
and in shards of 5 GB, the smaller ones as one file. Sides, told in `merge_sides.py`, take turns, each in a fresh
process.

- seconds: from the first read to the fsynced manifest with the digests of all files, for ours and for PEFT.
  Verification is timed apart.
- floor: the larger of `cp` + `sync` of the same bytes, from the same state of the page cache, and the low-rank products
  alone, in place in fp32, already in memory.
- anon MB: the process's peak of anonymous memory, private or shared, with what the libraries take.

PEFT merges the largest model once. The last line is one JSON object: `speed_vs_floor` and `speed_vs_peft` of the
largest model (the slower of its two layouts), `peak_anon_mb` of ours by model size. It needs room on the disk for two
of the largest.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import MEGABYTE, Measured, on_cpus, print_table, run_side
from bench.merge_models import write_model

GIGABYTE = 1_000_000_000
SHARD_BYTES = 5 * GIGABYTE
SINGLE, SHARDED = "one file", "5 GB shards"

AXOLOTL = (
    "axolotl's streaming merge is not compared: pip had not resolved its requirements after 170 s in an environment of "
    "its own (tried once)"
)


@dataclass
class Compared:
    """All runs on one model in one layout."""

    size: float
    layout: str
    bytes: int
    runs: dict[str, list[Measured]] = field(default_factory=dict)

    def seconds(self, side: str) -> float:
        return median(run.wall[0] for run in self.runs[side])

    @property
    def floor(self) -> float:
        return max(self.seconds("copy"), self.seconds("products"))

    def anonymous(self, side: str) -> int:
        """Megabytes, the highest of all runs."""
        return max(run.own_peak + int(run.facts["before"]) for run in self.runs[side]) // MEGABYTE


def compare(folder: Path, size: float, layout: str, arguments: argparse.Namespace, *, with_peft: bool) -> Compared:
    """Runs the sides on a model that is made in `folder`, and removed."""
    write_model(folder, size * GIGABYTE, SHARD_BYTES if layout == SHARDED else 1 << 50)
    compared = Compared(size, layout, sum(file.stat().st_size for file in folder.glob("base/*.safetensors")))
    for number in range(arguments.repeats):
        for side in ("ours", "copy", "products", *(["peft"] if with_peft and number == 0 else [])):
            compared.runs.setdefault(side, []).append(run(side, folder, arguments))
    shutil.rmtree(folder)
    show(compared)
    return compared


def run(side: str, folder: Path, arguments: argparse.Namespace) -> Measured:
    """One run of one side; what it wrote is removed."""
    script = str(Path(__file__).with_name("merge_sides.py"))
    told = [side, str(folder), arguments.cache, str(arguments.threads)]
    with on_cpus(arguments.threads):  # ours counts the CPUs that it may use, and no variable binds `cp` or `sync`
        measured = run_side(script, told, threads=arguments.threads, interval=0.01)
    shutil.rmtree(folder / "out", ignore_errors=True)
    shutil.rmtree(folder / "draft", ignore_errors=True)
    return measured


def show(compared: Compared) -> None:
    """The table of one model."""
    print(f"\n{compared.bytes / GIGABYTE:.2f} GB in bf16, {compared.layout}")
    rows = []
    for side, runs in compared.runs.items():
        seconds = compared.seconds(side)
        raw = " ".join(f"{run.wall[0]:.2f}" for run in runs)
        rows.append(
            (side, f"{seconds:.2f}", f"{compared.bytes / GIGABYTE / seconds:.2f}", raw, cpu(runs), anon(compared, side))
        )
    print_table(("side", "seconds", "GB/s", "each run", "CPU s", "anon MB"), rows)
    ours = [run.facts for run in compared.runs["ours"]]
    checks = " ".join(f"{facts['verify']:.2f}" for facts in ours)
    print(f"ours used {ours[0]['cpus']} CPUs, with {ours[0]['workers']} workers")
    print(f"floor {compared.floor:.2f} s; ours verified apart, each run: {checks} s", flush=True)


def cpu(runs: list[Measured]) -> str:
    return f"{median(run.cpu[0] for run in runs):.2f}"


def anon(compared: Compared, side: str) -> str:
    return str(compared.anonymous(side)) if side in ("ours", "peft") else "-"


def figures(all_compared: list[Compared]) -> dict[str, object]:
    """The last line."""
    largest = [each for each in all_compared if each.size == max(one.size for one in all_compared)]
    worst = max(largest, key=lambda each: each.seconds("ours") / each.floor)
    slowest = max(each.seconds("ours") for each in largest)
    peft = min((each.seconds("peft") for each in largest if "peft" in each.runs), default=None)
    by_size: dict[str, int] = {}
    for each in all_compared:
        by_size[f"{each.size:g}"] = max(by_size.get(f"{each.size:g}", 0), each.anonymous("ours"))
    return {
        "speed_vs_floor": round(worst.floor / worst.seconds("ours"), 3),
        "speed_vs_peft": peft and round(peft / slowest, 2),
        "peak_anon_mb": by_size,
    }


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,4,8", help="GB of the models, the largest last (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours and of the floor (%(default)s)")
    parser.add_argument("--cache", choices=("cold", "warm"), default="cold", help="of the base's files (%(default)s)")
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cpus, help="and CPUs of each side's process (%(default)s)")
    parser.add_argument("--folder", type=Path, help="a disk to work on (default: the temporary folder's)")
    parser.add_argument("--no-peft", action="store_true", help="without PEFT's merge")
    parser.add_argument("--quick", action="store_true", help="1 GB, one run of each side: shows that it runs")
    arguments = parser.parse_args()
    if not 1 <= arguments.threads <= cpus:
        parser.error(f"--threads: there are {cpus} CPUs")
    if arguments.quick:
        arguments.sizes, arguments.repeats = "1", 1
    return arguments


def main() -> None:
    """Runs the bench."""
    arguments = parse()
    sizes = [float(size) for size in arguments.sizes.split(",")]
    print(f"page cache of the base: {arguments.cache}; {arguments.threads} threads; rank 64; merge.memory 256Mi")
    print(AXOLOTL)
    cases = [(size, SINGLE) for size in sizes] + [(max(sizes), SHARDED)] * (max(sizes) * GIGABYTE > SHARD_BYTES)
    compared = []
    with TemporaryDirectory(prefix="bench-merge-", dir=arguments.folder) as name:
        for number, (size, layout) in enumerate(cases):
            with_peft = number == len(cases) - 1 and not arguments.no_peft
            compared.append(compare(Path(name) / "model", size, layout, arguments, with_peft=with_peft))
    print(json.dumps(figures(compared)))


if __name__ == "__main__":
    main()
