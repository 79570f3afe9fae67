"""Falcon as it is trained: packed rows in, loss out."""

from typing import Any

import torch
from transformers import FalconForCausalLM

from falcon_trainer.model.attention import NO_MASK, Borders, DocumentAttention, Kernel
from falcon_trainer.model.loss import LossHead


class PackedFalcon(FalconForCausalLM):  # type: ignore[misc,unused-ignore]
    """A Falcon whose layers keep documents apart and whose head returns the loss. Names of weights are Falcon's."""

    accepts_loss_kwargs = True

    def __init__(self, config: Any, kernel: Kernel) -> None:
        super().__init__(config)
        borders = Borders()
        for index, layer in enumerate(self.transformer.h):
            layer.self_attention = DocumentAttention(config, index, borders, kernel)
        self.lm_head = LossHead(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def hidden_states(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Hidden states [rows, T, hidden] of tokens and positions [rows, T]."""
        mask = torch.ones(NO_MASK, dtype=torch.bool, device=input_ids.device)
        hidden: torch.Tensor = self.transformer(
            input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False, return_dict=True
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
