"""Whether the merged model is what it should be, asked three ways before it counts.

1. Every tensor that has no adapter is byte for byte the base's (converted, where another element type was asked for).
2. Rows of every changed matrix, drawn at random, equal W + scale x B x A computed anew in float64.
3. Where the model fits in memory: stock transformers and stock PEFT give the same logits for base + adapter as for the
   merged model, on prompts of the data set.
"""

from pathlib import Path
from typing import Any

import torch

from falcon_trainer.launcher.cgroup import Cgroup
from falcon_trainer.merge.update import Pair, Update
from falcon_trainer.model.load import anonymous_memory
from falcon_trainer.model.weights import Weights
from falcon_trainer.outcome import ExitCode, StageError

ROWS = 8
"""Rows drawn of each changed matrix."""
ELEMENTS = 4 << 20
"""Compared at one time."""
COLUMNS = 4096
"""Of the adapter's A that are in float64 at one time."""
FP32_UNIT = 2.0**-24
"""A sum of n products in fp32 is off by at most n + 1 of it, as a share of the sum of the magnitudes of its terms."""
LOGIT_LIMITS = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2}
"""Allowed difference as a share of the largest logit: beyond fp32 it is the rounding of the merged weights."""

LONGEST_PROMPT = 256
"""Tokens of a prompt that are compared: a conversation of thousands would show no more and take minutes on a CPU."""


def check_tensors(base: Weights, merged: Weights, update: Update) -> list[str]:
    """Checks all tensors against the base; returns the names of the changed ones. Raises StageError(DATA)."""
    if base.shapes != merged.shapes:
        raise _wrong("its tensors are not those of the base")
    changed = [name for name in base.tensors if update.changes(name)]
    for name in base.tensors.keys() - set(changed):
        _check_untouched(base, merged, name)
    generator = torch.Generator().manual_seed(0)
    for name in changed:
        rows = torch.randint(base.tensors[name].shape[0], (ROWS,), generator=generator).tolist()
        _check_rows(base, merged, update, name, rows)
    return changed


def _check_untouched(base: Weights, merged: Weights, name: str) -> None:
    for start in range(0, base.tensors[name].elements, ELEMENTS):
        ours, theirs = merged.flat(name, start, start + ELEMENTS), base.flat(name, start, start + ELEMENTS)
        if not torch.equal(ours.view(torch.uint8), theirs.to(ours.dtype).view(torch.uint8)):
            raise _wrong(f"{name}, which the adapter leaves alone, differs from the base")


def _check_rows(base: Weights, merged: Weights, update: Update, name: str, rows: list[int]) -> None:
    pair = update.pair(name)
    weights = torch.cat([base.rows(name, row, row + 1) for row in rows])
    found = torch.cat([merged.rows(name, row, row + 1) for row in rows])
    for start in range(0, weights.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        piece = Pair(pair.a[:, part], pair.b[rows])
        excess = excess_error(found[:, part], weights[:, part], piece, update.scale)
        worst, at = excess.amax(dim=1).max(dim=0)
        if not worst <= 0:  # also where it is no number
            raise _wrong(
                f"row {rows[int(at)]} of {name} differs from W + {update.scale:g} x B x A by more than rounding"
            )


def excess_error(found: torch.Tensor, weights: torch.Tensor, pair: Pair, scale: float) -> torch.Tensor:
    """How far merged elements [rows, columns] are from the exact ones, in float64, beyond what rounding explains.

    It explains half a unit in the last place of the merged element, and the error of the sum in fp32.
    """
    weights, a, b = weights.double(), pair.a.double(), pair.b.double()
    exact = weights + scale * (b @ a)
    magnitude = weights.abs() + abs(scale) * (b.abs() @ a.abs())
    kind = torch.finfo(found.dtype)
    half_unit = kind.eps / 2 * exact.abs().clamp(min=kind.smallest_normal)
    return (found.double() - exact).abs() - half_unit - FP32_UNIT * (len(a) + 2) * magnitude


def logit_difference(base: Path, adapter: Path, merged: Path, prompts: list[str]) -> float:
    """Largest difference of logits between base + adapter and merged, as a share of the largest logit, in fp32.

    The parts used are transformers' and PEFT's own, so that a fault of ours in reading or scaling would show.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(merged), local_files_only=True)
    ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"][:LONGEST_PROMPT] for prompt in prompts]
    rows = [torch.tensor([row]) for row in ids]
    model = PeftModel.from_pretrained(_model(base), str(adapter))
    expected = _logits(model, rows)
    del model
    found = _logits(_model(merged), rows)
    largest = max(float(logits.abs().max()) for logits in expected)
    return max(float((ours - theirs).abs().max()) for ours, theirs in zip(found, expected, strict=True)) / largest


def check_logits(difference: float, dtype: str) -> None:
    """Raises StageError(DATA) where base + adapter and merged disagree by more than rounding."""
    limit = LOGIT_LIMITS[dtype]
    if not difference <= limit:
        raise _wrong(
            f"its logits differ from those of base + adapter by {difference:.3g} of the largest (allowed: {limit:g})"
        )


def fits_in_memory(parameters: int) -> bool:
    """Whether one copy of the model in fp32, and half as much again for working, fits into memory that is free."""
    return parameters * 4 * 1.5 <= available_memory()


def available_memory() -> int:
    """Bytes this process may still use: the node's free memory, or what is left of its cgroup's limit."""
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) * 1024
    limit = Cgroup().memory_limit()
    # Not the cgroup's own usage: it counts the page cache of the shards just written, which makes way by itself.
    return free if limit is None else min(free, limit - anonymous_memory())


def _model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
    return model.eval()


def _logits(model: Any, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [model(input_ids=row).logits[0] for row in rows]


def _wrong(what: str) -> StageError:
    return StageError(ExitCode.DATA, "MergeNotVerified", f"The merged model does not pass its check: {what}.")
