"""The two sides of the step bench: the same Falcon, the same records, a Trainer each.

- stock: the original recipe (philschmid/deep-learning-pytorch-huggingface, `training/run_ds_lora.py`) on today's
  transformers: records one after the other in rows of 2,048 tokens, the tail dropped; attention sdpa, over the whole
  row; every token trained, full logits; activation checkpointing; PEFT's LoRA on all linears but the head.
- ours: whole records packed best fit (prepare's files), `PackedFalcon` with attention per document, loss of answers
  alone from a fused head, selective activation checkpointing; the same LoRA.

Both are trained by `Trainer.train()` of transformers, in one process and without DeepSpeed.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import FalconConfig, FalconForCausalLM, Trainer, TrainerCallback, TrainingArguments

from falcon_trainer.config import Lora
from falcon_trainer.data.store import PackedRows
from falcon_trainer.data.tokenization import Tokens
from falcon_trainer.model.attention import choose_kernel
from falcon_trainer.model.lora import lora_config
from falcon_trainer.model.packed import PackedFalcon
from falcon_trainer.train.collate import collate
from falcon_trainer.train.loop import FalconTrainer
from falcon_trainer.train.order import RowOrder, TrainingRows

CAPACITY = 2048
STOCK_ROWS = "concatenated.npy"
LEARNING_RATE = 1e-3
NAME = "bench"
LOGIT_STD = 1.6
"""Spread of the untrained logits, as of falcon_trainer.tiny. The head is the embedding and stays frozen: with
transformers' own start of 0.02 for its weights, no loss could fall far."""


@dataclass(frozen=True)
class Shape:
    """Falcon's figures."""

    VOCABULARY: ClassVar[int] = 65_024
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    new_decoder: bool = True

    @property
    def shares(self) -> str:
        """Of the stock forward pass's multiplications on a whole row: those of the head, and of attention itself."""
        width = self.hidden // self.heads
        linear = self.hidden * (width * (self.heads + 2 * self.kv_heads) + self.hidden + 8 * self.hidden)
        attention, head = 2 * CAPACITY * self.hidden, self.hidden * self.VOCABULARY
        total = head + self.layers * (linear + attention)
        return f"the head {head / total:.0%} and attention {self.layers * attention / total:.0%}"

    def config(self) -> Any:
        return FalconConfig(
            vocab_size=self.VOCABULARY,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_kv_heads=self.kv_heads,
            new_decoder_architecture=self.new_decoder,
            multi_query=True,
            parallel_attn=True,
            bias=False,
            alibi=False,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            max_position_embeddings=CAPACITY,
            use_cache=False,
            attn_implementation="sdpa",
        )


SHAPES = {
    "small": Shape(1024, 4, 16, 1),
    "tiny": Shape(256, 4, 16, 1),
    "falcon-7b-shape": Shape(4544, 32, 71, 1, new_decoder=False),  # in bf16 on a GPU; not run on a GPU
}
"""Heads of 64 as in all Falcons but in tiny; 16 query heads to a key as in Falcon-40B, 71 as in Falcon-7B."""


def base(shape: Shape, device: str) -> Any:
    """The stock model, the same weights whenever it is made."""
    torch.manual_seed(0)
    with torch.device(device):
        model = FalconForCausalLM(shape.config()).to(torch.bfloat16 if device == "cuda" else torch.float32)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=LOGIT_STD / shape.hidden**0.5)
    model.name_or_path = NAME
    return model.requires_grad_(False)


def adapter(seed: int) -> Any:
    """The recipe's LoRA: rank 64, alpha 16, dropout 0.1, all linears of the layers."""
    torch.manual_seed(seed)  # PEFT draws A when it is put on the model
    return lora_config(Lora(), NAME)


def stock(shape: Shape, folder: Path, *, seed: int, epochs: int, device: str) -> tuple[Any, list[int]]:
    """Trainer of the stock recipe and the tokens of each of its steps."""
    from datasets import Dataset

    model = base(shape, device)
    model.activation_checkpointing_enable()
    rows = np.load(folder / STOCK_ROWS)
    # The columns of the recipe's data set: a copy of the tokens as labels, a mask of ones.
    dataset = Dataset.from_dict({"input_ids": rows, "attention_mask": np.ones_like(rows), "labels": rows})
    trainer = Trainer(
        model=get_peft_model(model, adapter(seed)),
        args=_arguments(folder, seed, steps=epochs * len(rows), activation_checkpointing=True),
        train_dataset=dataset,
    )
    return trainer, [CAPACITY] * (epochs * len(rows))


def ours(
    shape: Shape, folder: Path, *, seed: int, epochs: int, device: str, checkpointing: Any = "selective"
) -> tuple[Any, list[int]]:
    """Trainer as the train stage makes it, without what it reports and saves, and the tokens of each of its steps."""
    _, kernel = choose_kernel("auto", gpu=device == "cuda")
    stock_model = base(shape, device)
    with torch.device("meta"):
        model = PackedFalcon(stock_model.config, kernel)
    model.load_state_dict(stock_model.state_dict(), assign=True)
    model.tie_weights()
    model.name_or_path = NAME
    model.transformer.rotary_emb = stock_model.transformer.rotary_emb
    model.requires_grad_(False)
    model.checkpoint_activations(checkpointing)
    packed = PackedRows(folder)
    order = RowOrder(len(packed), seed)
    steps = epochs * len(packed)
    trainer = FalconTrainer(
        saving=cast(Any, None),
        reporter=cast(Any, None),
        measuring=None,
        initial_adapter=None,
        model=get_peft_model(model, adapter(seed)),
        args=_arguments(folder, seed, steps=steps, train_sampling_strategy="sequential", remove_unused_columns=False),
        train_dataset=TrainingRows(packed, order, steps),
        data_collator=collate,
    )
    return trainer, [int(packed.lengths[row]) for row in order.rows(0, steps)]


def _arguments(folder: Path, seed: int, *, steps: int, **others: Any) -> Any:
    return TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant_with_warmup",
        optim="adamw_torch",
        seed=seed,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        label_names=["labels"],
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **others,
    )


class Clock(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Wall and CPU time at the end of each step, so that a step includes the reading of its batch."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


def held_out_loss(shape: Shape, trained: Any, documents: list[Tokens], device: str) -> float:
    """Mean loss of the answers' tokens, each document alone, by stock Falcon with PEFT and the trained adapter."""
    weights = get_peft_model_state_dict(trained, save_embedding_layers=False)  # else it asks the Hub
    judge = get_peft_model(base(shape, device), adapter(0))
    set_peft_model_state_dict(judge, weights)
    judge.eval()
    total, count = 0.0, 0
    for document in documents:
        ids = torch.tensor([document.ids], device=device)
        places = torch.tensor(_answer_places(document), device=device)
        with torch.no_grad():
            hidden = judge.base_model.model.transformer(input_ids=ids).last_hidden_state[0, places - 1]
            logits = judge.base_model.model.lm_head(hidden).float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, places], reduction="sum"))
        count += len(places)
    return total / count


def _answer_places(document: Tokens) -> list[int]:
    spans = zip(document.trained[::2], document.trained[1::2], strict=True)
    return [place for start, end in spans for place in range(start, end)]
