"""The adapter: PEFT's LoRA on the base, and the test that a saved adapter must pass before it counts."""

from pathlib import Path
from typing import Any

from falcon_trainer.config import Lora
from falcon_trainer.model.shapes import Shapes
from falcon_trainer.outcome import ExitCode, StageError

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_NAME = "default"


def lora_config(lora: Lora, base_name: str) -> Any:
    """PEFT's configuration of the adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        use_rslora=lora.variant == "rslora",
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
    )


def saved_name(parameter: str) -> str:
    """Name in the adapter file of a parameter of the PEFT model."""
    return parameter.replace(f".{ADAPTER_NAME}.", ".")


def read_adapter(file: Path) -> dict[str, Any]:
    """The tensors of an adapter file, named as the parameters of the PEFT model."""
    from safetensors.torch import load_file

    halves = ((name.rpartition("."), tensor) for name, tensor in load_file(str(file)).items())
    return {f"{module}.{ADAPTER_NAME}.{kind}": tensor for (module, _, kind), tensor in halves}


def check_adapter(file: Path, expected: Shapes, *, trained: bool) -> None:
    """Checks names, shapes, finite numbers, and (of a trained one) that it changes the base at all.

    Raises StageError(DATA) naming the first tensor that is wrong: an adapter that fails must never be served.
    """
    from safetensors import SafetensorError, safe_open

    try:
        opening = safe_open(str(file), "pt")
    except (SafetensorError, OSError) as error:
        raise _unusable(file, f"it is no whole safetensors file ({error})") from error
    with opening as opened:
        found = set(opened.keys())
        if found != expected.keys():
            missing, foreign = sorted(expected.keys() - found), sorted(found - expected.keys())
            raise _unusable(file, f"missing tensors: {missing[:3]}, unknown tensors: {foreign[:3]}")
        effective = False
        for name, shape in expected.items():
            tensor = opened.get_tensor(name)
            if tuple(tensor.shape) != shape:
                raise _unusable(file, f"{name} has the shape {list(tensor.shape)} instead of {list(shape)}")
            if not bool(tensor.isfinite().all()):
                raise _unusable(file, f"{name} holds numbers that are not finite")
            if ".lora_A." in name and not bool(tensor.any()):
                raise _unusable(file, f"{name} is all zero")
            effective = effective or (".lora_B." in name and bool(tensor.any()))
    if trained and not effective:
        raise _unusable(file, "every B matrix is zero, so the adapter changes nothing")


def _unusable(file: Path, what: str) -> StageError:
    return StageError(ExitCode.DATA, "AdapterNotUsable", f"The adapter {file} cannot be used: {what}.")
