"""Every merged element against a float64 computation, and against what PEFT's own merge gives."""

import json
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, FalconConfig, FalconForCausalLM

from bench.measure import memory
from falcon_trainer.config import Lora
from falcon_trainer.merge import budget
from falcon_trainer.merge.draft import Draft
from falcon_trainer.merge.shards import Recipe, merge_shards
from falcon_trainer.merge.update import Update
from falcon_trainer.model.lora import ADAPTER_FILE, lora_config
from falcon_trainer.model.shapes import ADAPTER_PREFIX
from falcon_trainer.model.weights import Weights
from tests.unit.trainer.workshop import ELEVEN_B, SMALL

MEMORY = 64 << 20
NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
ORDERED = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


@dataclass(frozen=True)
class Case:
    """A base of small random weights, and an adapter of it."""

    base: Path
    adapter: Path
    scale: float

    def merged(self, folder: Path, dtype: str = "auto") -> dict[str, torch.Tensor]:
        update = Update(Weights([self.adapter / ADAPTER_FILE]), self.scale)
        draft = Draft.at(folder)
        merge_shards(Recipe(Weights.of(self.base), update, dtype, MEMORY), draft, lambda _: None)
        return tensors_of(draft.model)

    def exact(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The merged tensor in float64, and what computing it in fp32 may be off by."""
        weights, adapter = tensors_of(self.base)[name].double(), load_file(self.adapter / ADAPTER_FILE)
        module = ADAPTER_PREFIX + name.removesuffix(".weight")
        if f"{module}.lora_A.weight" not in adapter:
            return weights, torch.zeros_like(weights)
        a, b = (adapter[f"{module}.lora_{half}.weight"].double() for half in "AB")
        magnitude = weights.abs() + self.scale * (b.abs() @ a.abs())
        return weights + self.scale * (b @ a), magnitude * 2.0**-24 * (len(a) + 2)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def make_case(folder: Path, dtype: torch.dtype, *, tied: bool, shard_size: str, variant: str, **overrides: Any) -> Case:
    torch.manual_seed(0)
    flags = {"new_decoder_architecture": True, "bias": False, "alibi": False, "vocab_size": 256}
    config = FalconConfig(**(flags | SMALL | ({} if tied else ELEVEN_B) | overrides))
    model = FalconForCausalLM(config).to(dtype)
    model.save_pretrained(folder / "base", max_shard_size=shard_size)
    lora = Lora.model_validate({"rank": 6, "alpha": 12, "dropout": "0", "variant": variant})
    tuned = get_peft_model(model.float(), lora_config(lora, "base"))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    tuned.save_pretrained(folder / "adapter")
    return Case(folder / "base", folder / "adapter", lora.scale)


def steps_apart(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """How many numbers of their type lie between two tensors, elementwise, plus one; 0 where they are equal."""
    kind = ORDERED[ours.dtype]
    lowest = torch.iinfo(kind).min

    def place(tensor: torch.Tensor) -> torch.Tensor:
        bits = tensor.view(kind).long()
        return torch.where(bits < 0, lowest - bits, bits)

    return (place(ours) - place(theirs)).abs()


def half_unit(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Half a unit in the last place of these numbers: what rounding them may be off by."""
    kind = torch.finfo(dtype)
    return exact.abs().clamp(min=kind.smallest_normal) * kind.eps / 2


def described(dtype: torch.dtype, tied: bool, many: bool, variant: str) -> str:
    head, files = "tied" if tied else "untied", "many shards" if many else "one file"
    return f"{SHORT[dtype]}, {head}, {files}, {variant}"


CASES = [
    pytest.param(*case, id=described(*case))
    for case in product(SHORT, (True, False), (False, True), ("lora", "rslora"))
]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "BLOCK", 5 * 4096)  # several blocks in each matrix, and several products in each block
    monkeypatch.setattr(budget, "SCRATCH", 4 * 4096)


@pytest.mark.parametrize(("dtype", "tied", "many", "variant"), CASES)
def test_merged_elements_are_exact_and_pefts(
    tmp_path: Path, dtype: torch.dtype, tied: bool, many: bool, variant: str
) -> None:
    case = make_case(tmp_path, dtype, tied=tied, shard_size="100KB" if many else "1GB", variant=variant)
    assert (len(list(case.base.glob("*.safetensors"))) > 1) == many
    ours = case.merged(tmp_path / "draft")
    theirs = merged_by_peft(case, dtype)
    assert ours.keys() == tensors_of(case.base).keys()
    for name, tensor in ours.items():
        assert tensor.dtype == dtype
        exact, of_sum = case.exact(name)
        assert bool(((tensor.double() - exact).abs() <= half_unit(exact, dtype) + of_sum).all()), name
        from_exact = steps_apart(tensor, exact.to(dtype))
        if dtype == torch.float32:
            # Where the terms of a sum in fp32 cancel out, more than its last place is lost: PEFT's are no better.
            assert float((from_exact <= 1).double().mean()) >= 0.9, name
        else:
            assert int(from_exact.max()) <= 1, name
        apart = steps_apart(tensor, theirs[name])
        assert int(apart.max()) <= 1, name
        assert float((apart == 0).double().mean()) >= 0.999, name


def merged_by_peft(case: Case, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    base = AutoModelForCausalLM.from_pretrained(case.base, dtype=dtype)
    state: dict[str, torch.Tensor] = PeftModel.from_pretrained(base, str(case.adapter)).merge_and_unload().state_dict()
    return state


CONVERSIONS = [(source, target) for source, target in product(SHORT, SHORT) if source != target]


@pytest.mark.parametrize(
    ("source", "target"), CONVERSIONS, ids=[f"{SHORT[source]} to {SHORT[target]}" for source, target in CONVERSIONS]
)
def test_another_element_type_is_rounded_to_once(tmp_path: Path, source: torch.dtype, target: torch.dtype) -> None:
    case = make_case(tmp_path, source, tied=True, shard_size="1GB", variant="lora")
    for name, tensor in case.merged(tmp_path / "draft", NAMES[target]).items():
        exact, of_sum = case.exact(name)
        assert tensor.dtype == target
        assert bool(((tensor.double() - exact).abs() <= half_unit(exact, target) + of_sum).all()), name
        if not of_sum.any():
            assert torch.equal(tensor, exact.to(target)), name
        elif target != torch.float32:
            assert int(steps_apart(tensor, exact.to(target)).max()) <= 1, name


def test_a_base_of_one_file_that_its_index_names_gives_a_folder_that_transformers_loads(tmp_path: Path) -> None:
    case = make_case(tmp_path, torch.float32, tied=True, shard_size="1GB", variant="lora")
    name = "model-00001-of-00001.safetensors"
    (case.base / "model.safetensors").rename(case.base / name)
    weight_map = dict.fromkeys(load_file(case.base / name), name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (case.base / "model.safetensors.index.json").write_text(json.dumps(index))
    merged = case.merged(tmp_path / "draft")
    shutil.copy(case.base / "config.json", tmp_path / "draft" / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "draft" / "model").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in merged.items())


def test_weights_on_their_way_are_the_processs_own_memory(tmp_path: Path) -> None:
    case = make_case(tmp_path, torch.float32, tied=True, shard_size="1GB", variant="lora")
    update = Update(Weights([case.adapter / ADAPTER_FILE]), case.scale)
    before, during = memory("RssShmem"), list[int]()
    recipe = Recipe(Weights.of(case.base), update, "auto", MEMORY)
    merge_shards(recipe, Draft.at(tmp_path / "draft"), lambda _: during.append(memory("RssShmem")))
    assert max(during) == before
