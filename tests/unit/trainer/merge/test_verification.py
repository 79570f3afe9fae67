"""The check of a merged model: each of its parts fails on the fault it is there for."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from falcon_trainer import layout as layouts
from falcon_trainer.merge.update import Update
from falcon_trainer.merge.verify import check_logits, check_tensors
from falcon_trainer.model.lora import ADAPTER_FILE
from falcon_trainer.model.weights import Weights
from falcon_trainer.outcome import StageError
from tests.unit.trainer.merge.test_merge import LORA, published_adapter, run, trained


@pytest.fixture(autouse=True)
def _claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "SOURCES", tmp_path / "sources")


@pytest.fixture
def sound(tmp_path: Path) -> tuple[Weights, Path, Update]:
    """Base, a copy of the merged folder to spoil, and the update."""
    shop = trained(tmp_path)
    folder = shop.layout.workspace / run(shop)["merged"]["path"]
    shutil.copytree(folder, tmp_path / "copy")
    update = Update(Weights([published_adapter(shop) / ADAPTER_FILE]), LORA.scale)
    return Weights.of(shop.sources / "models" / "base"), tmp_path / "copy", update


def spoil(folder: Path, name: str, change: Any) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = folder / index["weight_map"][name]
    tensors = load_file(file)
    change(tensors[name])
    save_file(tensors, file)


def test_a_sound_merge_passes(sound: tuple[Weights, Path, Update]) -> None:
    base, folder, update = sound
    assert len(check_tensors(base, Weights.of(folder), update)) == 8


def test_one_bit_of_an_untouched_tensor_is_noticed(sound: tuple[Weights, Path, Update]) -> None:
    base, folder, update = sound
    name = "transformer.word_embeddings.weight"
    spoil(folder, name, lambda tensor: tensor.view(torch.int32)[0, 0].bitwise_xor_(1))
    with pytest.raises(StageError, match=r"word_embeddings\.weight, which the adapter leaves alone, differs"):
        check_tensors(base, Weights.of(folder), update)


def test_a_wrong_matrix_is_noticed(sound: tuple[Weights, Path, Update]) -> None:
    base, folder, update = sound
    name = "transformer.h.0.mlp.dense_h_to_4h.weight"
    spoil(folder, name, lambda tensor: tensor.mul_(1.0001))
    with pytest.raises(StageError, match=r"of transformer\.h\.0\.mlp\.dense_h_to_4h\.weight differs from W"):
        check_tensors(base, Weights.of(folder), update)


def test_a_wrong_scale_is_noticed(sound: tuple[Weights, Path, Update]) -> None:
    base, folder, update = sound
    with pytest.raises(StageError, match="differs from W"):
        check_tensors(base, Weights.of(folder), Update(update.adapter, update.scale * 1.001))


def test_a_missing_tensor_is_noticed(sound: tuple[Weights, Path, Update]) -> None:
    base, folder, update = sound
    file = Weights.of(folder).tensors["transformer.ln_f.bias"].file
    save_file({n: t for n, t in load_file(file).items() if n != "transformer.ln_f.bias"}, file)
    with pytest.raises(StageError, match="its tensors are not those of the base"):
        check_tensors(base, Weights.of(folder), update)


def test_logits_that_differ_by_more_than_rounding_are_refused() -> None:
    check_logits(9e-6, "float32")
    for difference in (2e-5, float("nan")):
        with pytest.raises(StageError, match="its logits differ"):
            check_logits(difference, "float32")
