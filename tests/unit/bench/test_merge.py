"""What the merge's bench concludes from its runs, and the files that it makes."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from bench.measure import Measured
from bench.merge import SHARDED, SINGLE, Compared, figures
from bench.merge_models import write_tensors
from falcon_trainer.model.shapes import Shapes

MB = 1_000_000


def ran(seconds: float, anonymous: int = 0) -> Measured:
    return Measured([seconds], [seconds], 0, {"before": 400 * MB}, own_peak=anonymous * MB)


def compared(size: float, layout: str, ours: list[float], copy: float, **others: float) -> Compared:
    runs = {"ours": [ran(each, 80) for each in ours], "copy": [ran(copy)], "products": [ran(1)]}
    return Compared(size, layout, int(size * 1e9), runs | {side: [ran(each)] for side, each in others.items()})


def test_the_largest_model_counts_in_the_slower_of_its_layouts() -> None:
    small = compared(1, SINGLE, [9, 9, 9], copy=1)
    single, sharded = compared(8, SINGLE, [8, 10, 90], copy=9), compared(8, SHARDED, [8, 8, 8], copy=8, peft=80)
    assert figures([small, single, sharded]) == {
        "speed_vs_floor": 0.9,
        "speed_vs_peft": 8.0,
        "peak_anon_mb": {"1": 480, "8": 480},
    }


def test_the_floor_is_the_larger_of_copy_and_products() -> None:
    assert compared(1, SINGLE, [4], copy=0.5).floor == 1
    assert compared(1, SINGLE, [4], copy=2).floor == 2


def test_tensors_are_written_as_they_are_described(tmp_path: Path) -> None:
    shapes: Shapes = {"a": (3, 5), "b": (70_000, 130)}  # more elements than are drawn
    write_tensors(tmp_path / "file.safetensors", shapes, torch.bfloat16, std=0.02)
    tensors = load_file(tmp_path / "file.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    assert 0.01 < float(tensors["b"].float().std()) < 0.03
