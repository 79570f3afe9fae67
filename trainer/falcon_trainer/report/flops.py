"""Floating-point operations of a training token: what MFU and HFU are counted in.

N are the parameters of the base that are multiplied with: the decoder's matrices and the head. Looking up an embedding
multiplies nothing. A token costs 2N in the forward pass and 2N in the backward pass through the activations; the other
2N of full training, the gradients of the weights, are not needed where the base is frozen. So 4N, and 6N where the
forward pass is computed a second time in the backward pass.

- 2N forward and 4N backward a token: Kaplan et al. 2020, arXiv 2001.08361, section 2.1
- MFU, counted in what the model needs: Chowdhery et al. 2022, arXiv 2204.02311, appendix B
- HFU, counted in what the hardware does, recomputation included: Korthikanti et al. 2022, arXiv 2205.05198, section 6

Left out, as in 4N and 6N themselves: attention between tokens (1.3 % of Falcon-180B's forward pass at 2,048 tokens, and
less on packed rows, whose documents see only themselves), the adapter's own matrices (0.6 % of Falcon-180B at rank 64),
and padding. The head counts only for the tokens whose logits are computed, those that are trained: otherwise a small
model with a large vocabulary would seem to reach more than its hardware can. The head is never recomputed.
"""

from math import prod
from typing import Literal

from pydantic import Field

from falcon_trainer.model.shapes import Shapes
from falcon_trainer.wire import Wire

EMBEDDING = "transformer.word_embeddings.weight"


class Work(Wire):
    """What a training token costs."""

    decoder_parameters: int = Field(description="Parameters of the decoder's matrices, the base's without the adapter.")
    head_parameters: int = Field(description="Parameters of the head, tied to the embedding or not.")
    trained_share: float = Field(description="Share of the tokens that count in the loss.")
    recomputed_share: float = Field(description="Share of the decoder that runs a second time in the backward pass.")

    @property
    def model_flops(self) -> float:
        """FLOPs that the model needs for a token: 4N."""
        return 4 * (self.decoder_parameters + self.head_parameters * self.trained_share)

    @property
    def hardware_flops(self) -> float:
        """FLOPs that the hardware does for a token: 6N of the decoder with full recomputation."""
        return self.model_flops + 2 * self.decoder_parameters * self.recomputed_share


def work(
    base: Shapes,
    *,
    layers: int,
    checkpointing: Literal["full", "selective", "none"],
    selective_layers: int | None,
    trained_share: float,
) -> Work:
    """The work of a base of these tensors. With selective checkpointing the selected layers keep what their base
    matrices give, so that only the others recompute them.
    """
    keeping = {"full": 0, "selective": min(selective_layers or layers, layers), "none": layers}[checkpointing]
    return Work(
        decoder_parameters=sum(prod(shape) for name, shape in base.items() if ".h." in name and len(shape) == 2),
        head_parameters=prod(base[EMBEDDING]),
        trained_share=trained_share,
        recomputed_share=1 - keeping / layers,
    )
