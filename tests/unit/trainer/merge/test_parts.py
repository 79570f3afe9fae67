"""The pure parts of the merge: how memory is shared out, and how a file is cut into blocks."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from falcon_trainer.merge.budget import BLOCK, SCRATCH, Budget
from falcon_trainer.merge.plan import ShardPlan, even_parts
from falcon_trainer.model.weights import UnusableWeights


@given(memory=st.integers(64 << 20, 1 << 36), cpus=st.integers(1, 256))
def test_what_a_merge_holds_never_exceeds_the_setting(memory: int, cpus: int) -> None:
    budget = Budget.of(memory, cpus)
    assert budget.bytes <= memory
    assert budget.buffers >= 2  # one is read into while another is written
    assert budget.workers >= 1


@pytest.mark.parametrize(("memory", "cpus", "workers"), [(64, 8, 2), (256, 2, 4), (256, 64, 8), (1024, 8, 10)])
def test_workers_are_as_many_as_cpus_and_memory_keep_busy(memory: int, cpus: int, workers: int) -> None:
    assert Budget.of(memory << 20, cpus).workers == workers
    assert workers * 2 * SCRATCH + BLOCK <= memory << 20


@given(total=st.integers(0, 10_000), most=st.integers(1, 500))
def test_even_parts_are_all_of_it_in_order(total: int, most: int) -> None:
    parts = list(even_parts(total, most))
    assert [place for first, count in parts for place in range(first, first + count)] == list(range(total))
    assert all(0 < count <= most for _, count in parts)
    assert len(parts) == -(-total // most)


def test_a_changed_matrix_is_cut_between_its_rows(tmp_path: Path) -> None:
    file = write(tmp_path, matrix=torch.zeros(100, 30), vector=torch.zeros(1000))
    blocks = list(ShardPlan.of(file, "bfloat16").blocks(1000, lambda name: name == "matrix"))
    of_matrix = [block for block in blocks if block.entry.name == "matrix"]
    assert {block.elements % 30 for block in of_matrix} == {0}
    assert max(block.source_bytes for block in blocks) <= 1000
    assert sum(block.target_bytes for block in blocks) == 2 * (100 * 30 + 1000)


def test_a_row_that_no_block_can_hold_is_refused(tmp_path: Path) -> None:
    plan = ShardPlan.of(write(tmp_path, matrix=torch.zeros(4, 300)), "auto")
    with pytest.raises(UnusableWeights, match="matrix has rows of 300 elements; at most 250"):
        list(plan.blocks(1000, lambda _: True))


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16", "float32"])
def test_the_planned_header_is_the_formats_own(tmp_path: Path, dtype: str) -> None:
    file = write(tmp_path, a=torch.zeros(3, 5), b=torch.zeros(7, dtype=torch.float16), empty=torch.zeros(0))
    plan = ShardPlan.of(file, dtype)
    merged = tmp_path / "merged.safetensors"
    merged.write_bytes(plan.header + bytes(plan.bytes - len(plan.header)))
    expected = {name: dtype if dtype != "auto" else str(t.dtype)[6:] for name, t in load_file(file).items()}
    assert {name: str(tensor.dtype)[6:] for name, tensor in load_file(merged).items()} == expected
    assert json.loads(plan.header[8:])["__metadata__"] == {"format": "pt"}


def write(folder: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, folder / "base.safetensors", metadata={"format": "pt"})
    return folder / "base.safetensors"
