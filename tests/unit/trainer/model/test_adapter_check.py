"""What an adapter must be before it counts: each fault that has reached a served model somewhere is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from falcon_trainer.model.lora import check_adapter
from falcon_trainer.model.shapes import Shapes
from falcon_trainer.outcome import ExitCode, StageError

A, B = "base_model.model.layer.lora_A.weight", "base_model.model.layer.lora_B.weight"
EXPECTED: Shapes = {A: (2, 4), B: (6, 2)}
Tensors = dict[str, torch.Tensor]


def check(folder: Path, change: Callable[[Tensors], object], *, trained: bool = True) -> None:
    tensors = {name: torch.ones(shape) for name, shape in EXPECTED.items()}
    change(tensors)
    save_file(tensors, folder / "adapter.safetensors")
    check_adapter(folder / "adapter.safetensors", EXPECTED, trained=trained)


def empty(tensors: Tensors) -> None:
    tensors[A] = torch.empty(0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(empty, "has the shape [0] instead of [2, 4]", id="a partition in place of a matrix"),
        pytest.param(dict.clear, "missing tensors: ['base_model.model.layer.lora_A.weight'", id="no tensors at all"),
        pytest.param(lambda t: t.pop(B), "missing tensors: ['base_model.model.layer.lora_B.weight']", id="one missing"),
        pytest.param(lambda t: t.update(x=torch.ones(1)), "unknown tensors: ['x']", id="one too many"),
        pytest.param(lambda t: t[B].fill_(float("nan")), "not finite", id="numbers that are none"),
        pytest.param(lambda t: t[A].fill_(float("inf")), "not finite", id="numbers without end"),
        pytest.param(
            lambda t: t.update({B: torch.ones(8, 2)}), "has the shape [8, 2] instead of [6, 2]", id="of a larger base"
        ),
        pytest.param(
            lambda t: t.update({B.replace("layer", "other"): t.pop(B)}),
            "unknown tensors",
            id="of a base of other names",
        ),
        pytest.param(lambda t: t[A].zero_(), "lora_A.weight is all zero", id="a zero A"),
        pytest.param(lambda t: t[B].zero_(), "every B matrix is zero", id="an adapter that changes nothing"),
    ],
)
def test_a_faulty_adapter_is_refused(tmp_path: Path, change: Callable[[Tensors], object], said: str) -> None:
    with pytest.raises(StageError) as caught:
        check(tmp_path, change)
    assert caught.value.code == ExitCode.DATA
    assert said in caught.value.message


@pytest.mark.parametrize("length", [0, 5, 60, -1], ids=["empty", "a few bytes", "half a header", "a byte too short"])
def test_a_cut_file_is_refused(tmp_path: Path, length: int) -> None:
    check(tmp_path, lambda tensors: None)
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(StageError, match="it is no whole safetensors file") as caught:
        check_adapter(file, EXPECTED, trained=True)
    assert caught.value.code == ExitCode.DATA


def test_a_sound_adapter_passes_and_an_untrained_one_may_change_nothing(tmp_path: Path) -> None:
    check(tmp_path, lambda tensors: None)
    check(tmp_path, lambda tensors: tensors[B].zero_(), trained=False)
