"""Falcon as it is trained: packed rows in, loss out."""

from typing import Any

import torch
from transformers import FalconForCausalLM

from falcon_trainer.model.attention import NO_MASK, Borders, DocumentAttention, Kernel
from falcon_trainer.model.checkpointing import Keeper, Mode, checkpoint_layer
from falcon_trainer.model.frozen import FrozenLinear
from falcon_trainer.model.loss import LossHead
from falcon_trainer.outcome import ExitCode, StageError


class PackedFalcon(FalconForCausalLM):  # type: ignore[misc,unused-ignore]
    """A Falcon whose layers keep documents apart and whose head returns the loss. Names of weights are Falcon's."""

    accepts_loss_kwargs = True

    def __init__(self, config: Any, kernel: Kernel) -> None:
        """Raises StageError(CONFIGURATION) for ALiBi: its bias knows nothing of documents."""
        if config.alibi:
            raise StageError(
                ExitCode.CONFIGURATION,
                "ModelNotSupported",
                "This Falcon uses ALiBi positions (as Falcon-RW does), which packed training does not support.",
            )
        super().__init__(config)
        borders = Borders()
        for index, layer in enumerate(self.transformer.h):
            keeper = Keeper()
            layer.self_attention = DocumentAttention(config, index, borders, kernel, keeper)
            _freeze_linears(layer, keeper, parallel=config.parallel_attn or config.new_decoder_architecture)
        self.lm_head = LossHead(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def checkpoint_activations(self, mode: Mode, selective_layers: int | None = None) -> None:
        """How activations are kept. `selective_layers`: with `selective`, only so many of the first layers keep more
        than their input; default all.

        transformers' own switch would also ask for the gradient of the embedded tokens, which nothing needs under LoRA
        with non-reentrant checkpointing: the first layer's matrices are then spared in the backward pass.
        """
        for index, layer in enumerate(self.transformer.h):
            selective = mode == "selective" and (selective_layers is None or index < selective_layers)
            if mode != "none":
                checkpoint_layer(layer, layer.self_attention.keeper if selective else None)

    def hidden_states(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, embedded: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Hidden states [rows, T, hidden] of tokens and positions [rows, T]; `embedded` are the tokens looked up."""
        mask = torch.ones(NO_MASK, dtype=torch.bool, device=position_ids.device)
        hidden: torch.Tensor = self.transformer(
            input_ids=input_ids if embedded is None else None,
            inputs_embeds=embedded,
            position_ids=position_ids,
            attention_mask=mask,
            use_cache=False,
            return_dict=True,
        ).last_hidden_state
        return hidden

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | None = None,
        **ignored: Any,
    ) -> dict[str, torch.Tensor]:
        """The loss of a micro-batch: its share of the global batch's mean over `num_items_in_batch` trained tokens."""
        hidden = self.hidden_states(input_ids, position_ids)
        return {"loss": self.lm_head(hidden, labels, num_items_in_batch)}


def _freeze_linears(layer: Any, keeper: Keeper, *, parallel: bool) -> None:
    """Puts FrozenLinears in the place of a layer's four linears.

    In a parallel layer the outputs of `dense` and `dense_4h_to_h` are only added to the residual stream; in a
    sequential one a layer norm reads the sum with that of `dense`.
    """
    kept = {"query_key_value": True, "dense": not parallel, "dense_h_to_4h": True, "dense_4h_to_h": False}
    for part in (layer.self_attention, layer.mlp):
        for name, stock in list(part.named_children()):
            if name in kept:
                bias = stock.bias is not None
                ours = FrozenLinear(stock.in_features, stock.out_features, bias=bias, keeper=keeper, kept=kept[name])
                setattr(part, name, ours)
