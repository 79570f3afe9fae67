"""Names and shapes that a Falcon of a given configuration has, and those its adapter has: no weights are made."""

from pathlib import Path
from typing import Any

from falcon_trainer.config import Lora

Shapes = dict[str, tuple[int, ...]]

ADAPTER_PREFIX = "base_model.model."
"""What PEFT puts before a base tensor's name."""


def meta_model(config: Any) -> Any:
    """The model of a configuration on the meta device: modules and shapes, no memory."""
    import torch
    from transformers import FalconForCausalLM

    with torch.device("meta"):
        return FalconForCausalLM(config)


def base_shapes(config: Any) -> Shapes:
    """The tensors that the weight files must hold. A tied head is the embedding and need not be there."""
    names = {name: tuple(tensor.shape) for name, tensor in meta_model(config).state_dict().items()}
    if config.tie_word_embeddings:
        names.pop("lm_head.weight", None)
    return names


def falcon_config(folder: Path) -> Any:
    """The FalconConfig of a model folder."""
    from transformers import FalconConfig

    return FalconConfig.from_pretrained(str(folder), local_files_only=True)


def attention_facts(config: Any) -> dict[str, int]:
    """What decides how a model can be shared out among GPUs, under the names of the status (ModelStatus)."""
    heads = config.num_attention_heads
    shared = 1 if config.multi_query else heads
    return {
        "layers": config.num_hidden_layers,
        "attentionHeads": heads,
        "keyValueHeads": config.num_kv_heads if config.new_decoder_architecture else shared,
    }


def is_target(name: str, targets: list[str]) -> bool:
    """Whether a base tensor is the weight of a linear layer that gets an adapter (PEFT's rule for module names)."""
    module, _, kind = name.rpartition(".")
    return kind == "weight" and any(module == target or module.endswith(f".{target}") for target in targets)


def adapter_shapes(base: Shapes, lora: Lora) -> Shapes:
    """The tensors of the adapter as PEFT names them: A is [rank, in], B is [out, rank]."""
    expected: Shapes = {}
    for name, shape in base.items():
        if is_target(name, lora.target_modules):
            module = ADAPTER_PREFIX + name.removesuffix(".weight")
            expected[f"{module}.lora_A.weight"] = (lora.rank, shape[1])
            expected[f"{module}.lora_B.weight"] = (shape[0], lora.rank)
    return expected


def targets_without_layer(base: Shapes, lora: Lora) -> list[str]:
    """Targets that no decoder matrix of this model answers to: misspelt, or the head or embedding."""
    matrices = [name for name, shape in base.items() if ".h." in name and len(shape) == 2]
    return [target for target in lora.target_modules if not any(is_target(name, [target]) for name in matrices)]
