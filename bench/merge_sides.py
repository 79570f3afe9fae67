"""The sides of `merge.py`; each runs in a process of its own: `python merge_sides.py SIDE FOLDER cold|warm THREADS`.

FOLDER holds `base` and `adapter`; a side writes to `FOLDER/out`. Ours and PEFT's end with a manifest that holds the
SHA-256 of every file, fsynced, under the folder's final name.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import anonymous, measure, report
from bench.merge_models import LORA

SETTING = 256 << 20
"""Bytes, the default of merge.memory."""
SHARD = "5GB"


def set_cache(files: list[Path], state: str) -> None:
    """Puts all of the files into the page cache, or none of them."""
    os.sync()
    for file in files:
        with file.open("rb") as opened:
            if state == "cold":
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while opened.read(1 << 24):
                    pass


def ours(folder: Path, _threads: int) -> Callable[[], Any]:
    """The stream of the merge stage; verification is timed apart."""
    from falcon_trainer.artifacts import publish
    from falcon_trainer.merge.draft import Draft
    from falcon_trainer.merge.shards import Recipe, merge_shards
    from falcon_trainer.merge.update import Update
    from falcon_trainer.merge.verify import check_tensors
    from falcon_trainer.model.lora import ADAPTER_FILE
    from falcon_trainer.model.weights import Weights

    def run() -> Callable[[], float]:
        base, update = Weights.of(folder / "base"), Update(Weights([folder / "adapter" / ADAPTER_FILE]), LORA.scale)
        draft = Draft.at(folder / "draft")
        known = merge_shards(Recipe(base, update, "auto", SETTING), draft, lambda _: None)
        shutil.copyfile(folder / "base" / "config.json", draft.model / "config.json")
        publish(draft.model, folder / "out", kind="merged", facts={}, known=known)

        def verify() -> float:
            started = time.perf_counter()
            check_tensors(base, Weights.of(folder / "out"), update)
            return time.perf_counter() - started

        return verify

    return run


def peft(folder: Path, _threads: int) -> Callable[[], Any]:
    """PEFT's whole merge: load, merge_and_unload, save_pretrained."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from falcon_trainer.artifacts import publish

    disable_progress_bar()

    def run() -> None:
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto")
        merged = PeftModel.from_pretrained(model, str(folder / "adapter")).merge_and_unload()
        merged.save_pretrained(folder / "draft", max_shard_size=SHARD)
        publish(folder / "draft", folder / "out", kind="merged", facts={})

    return run


def copy(folder: Path, _threads: int) -> Callable[[], Any]:
    """`cp` of the base's weights and `sync` of the copies."""

    def run() -> None:
        (folder / "out").mkdir()
        files = sorted((folder / "base").glob("*.safetensors"))
        subprocess.run(["cp", *map(str, files), str(folder / "out")], check=True)
        subprocess.run(["sync", *(str(folder / "out" / file.name) for file in files)], check=True)

    return run


def products(folder: Path, threads: int) -> Callable[[], Any]:
    """Nothing but W += s B A, in place, in fp32, of all matrices: rows shared out among threads of one each.

    That is faster here than torch's own threads. The weights are of one matrix, again and again.
    """
    import torch

    from falcon_trainer.merge.plan import even_parts
    from falcon_trainer.merge.update import Update
    from falcon_trainer.model.lora import ADAPTER_FILE
    from falcon_trainer.model.weights import Weights

    base = Weights.of(folder / "base")
    update = Update(Weights([folder / "adapter" / ADAPTER_FILE]), LORA.scale)
    pairs = [update.pair(name) for name in base.tensors if update.changes(name)]
    weights = torch.zeros(max(len(pair.b) * pair.a.shape[1] for pair in pairs))
    torch.set_num_threads(1)

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for pair in pairs:
                matrix = weights[: len(pair.b) * pair.a.shape[1]].view(len(pair.b), -1)
                parts = even_parts(len(matrix), 256)
                done = [
                    pool.submit(update.add, matrix[first : first + rows], pair, first, weights) for first, rows in parts
                ]
                for future in done:
                    future.result()

    run()  # the pages of the adapter and of the weights are there from now on
    return run


SIDES = {"ours": ours, "peft": peft, "copy": copy, "products": products}


def main() -> None:
    """Runs one side once."""
    name, folder, state, threads = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    for left in ("out", "draft"):
        shutil.rmtree(folder / left, ignore_errors=True)
    run = SIDES[name](folder, threads)
    if name != "products":
        set_cache([*folder.glob("base/*.safetensors"), *folder.glob("adapter/*.safetensors")], state)
    before = anonymous()
    measured, verify = measure(run)
    report(measured, before=before, **(told_of_ours(verify) if verify else {}))


def told_of_ours(verify: Callable[[], float]) -> dict[str, float]:
    """Seconds of the check, and what the merge found to work with."""
    from falcon_trainer.launcher.cgroup import Cgroup
    from falcon_trainer.merge.budget import Budget

    cpus = Cgroup().cpus()
    return {"verify": verify(), "cpus": cpus, "workers": Budget.of(SETTING, cpus).workers}


if __name__ == "__main__":
    main()
