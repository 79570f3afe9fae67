"""Which program serves, and how it shares a model out among the GPUs of one pod."""

from typing import Literal, NamedTuple

from falcon_operator.api.status import ModelStatus
from falcon_trainer.config import Serve

Engine = Literal["vllm", "transformers"]


def engine_of(serve: Serve) -> Engine:
    """The engine that `serve` means: `auto` takes vLLM where there are GPUs, which it needs."""
    if serve.engine == "auto":
        return "vllm" if serve.gpus else "transformers"
    return serve.engine


class Split(NamedTuple):
    """How many GPUs each layer is cut into, and how many groups of layers follow each other."""

    tensor: int
    pipeline: int


def split(gpus: int, model: ModelStatus | None) -> Split:
    """The split of a model among `gpus` that cuts most: the GPUs of a cut work at the same time, those of a pipeline
    in turn.

    vLLM (models/falcon.py) asserts that a cut divides the attention heads, and that it divides the key-value heads or
    is a multiple of them: 1 for Falcon-7B with its 71 heads, up to 8 for Falcon-180B with 232 and 8. What is not known
    of a model is not assumed: then nothing is cut. A pipeline longer than the model has layers would leave stages
    empty, so the GPUs beyond stay idle.
    """
    gpus = max(1, gpus)
    heads = model.attention_heads if model else None
    tensor = max(
        size for size in range(1, gpus + 1) if gpus % size == 0 and _fits(size, heads, _key_value_heads(model))
    )
    layers = model.layers if model and model.layers else gpus
    return Split(tensor, min(gpus // tensor, layers))


def _key_value_heads(model: ModelStatus | None) -> int:
    return (model.key_value_heads if model else None) or 1


def _fits(size: int, heads: int | None, key_value_heads: int) -> bool:
    if not heads:
        return size == 1
    shares = key_value_heads % size if key_value_heads >= size else size % key_value_heads
    return heads % size == 0 and shares == 0
