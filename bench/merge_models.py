"""Falcons of a given size with random weights, and an adapter for each: files only, nothing is held in memory."""

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from falcon_trainer.config import Lora
from falcon_trainer.model.lora import ADAPTER_FILE, lora_config
from falcon_trainer.model.shapes import Shapes, adapter_shapes, base_shapes

SEVEN_B = {
    "vocab_size": 65_024,
    "hidden_size": 4544,
    "num_attention_heads": 71,
    "multi_query": True,
    "new_decoder_architecture": False,
    "parallel_attn": True,
    "bias": False,
    "alibi": False,
}
"""Falcon-7B but for its number of layers."""
LORA = Lora()
CODES = {torch.bfloat16: "BF16", torch.float32: "F32"}
DRAWN = 8 << 20
"""Random elements that are drawn; files repeat them."""


def write_model(folder: Path, size: float, shard_bytes: int) -> None:
    """A bf16 base of about `size` bytes in `folder/base`, in files of at most `shard_bytes`, and `folder/adapter`."""
    config = _config(size)
    shapes = base_shapes(config)
    base = folder / "base"
    config.save_pretrained(base)
    shards = list(_shards(shapes, shard_bytes))
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {}, "weight_map": places}
        (base / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, shard in zip(names, shards, strict=True):
        write_tensors(base / name, shard, torch.bfloat16, std=0.02)
    adapter = folder / "adapter"
    lora_config(LORA, str(base)).save_pretrained(adapter)
    write_tensors(adapter / ADAPTER_FILE, adapter_shapes(shapes, LORA), torch.float32, std=0.01)


def _config(size: float) -> Any:
    """As many layers as fit best."""
    from transformers import FalconConfig

    def bytes_of(layers: int) -> int:
        return 2 * elements(base_shapes(FalconConfig(**SEVEN_B, num_hidden_layers=layers)))

    one, two = bytes_of(1), bytes_of(2)
    layers = max(1, 1 + round((size - one) / (two - one)))
    return FalconConfig(**SEVEN_B, num_hidden_layers=layers, torch_dtype="bfloat16")


def elements(shapes: Shapes) -> int:
    """Of all tensors."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _shards(shapes: Shapes, most: int) -> Iterator[Shapes]:
    shard: Shapes = {}
    for name, shape in shapes.items():
        if shard and 2 * elements(shard | {name: shape}) > most:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def write_tensors(file: Path, shapes: Shapes, dtype: torch.dtype, std: float) -> None:
    """A safetensors file of random elements."""
    header, end = dict[str, Any](), 0
    for name, shape in shapes.items():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    drawn = (torch.randn(DRAWN, generator=torch.Generator().manual_seed(0)) * std).to(dtype)
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        for piece in _repeated(drawn.view(torch.uint8).numpy().data, end):
            opened.write(piece)


def _repeated(data: memoryview, size: int) -> Iterable[memoryview]:
    for start in range(0, size, len(data)):
        yield data[: min(len(data), size - start)]
