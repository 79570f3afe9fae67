"""W + scale x B x A of some rows: in fp32, rounded once, as PEFT's own merge of an fp32 adapter computes it."""

import math
from dataclasses import dataclass

import torch

from falcon_trainer.model.shapes import ADAPTER_PREFIX
from falcon_trainer.model.weights import Weights


@dataclass(frozen=True)
class Pair:
    """The adapter's two matrices of one base matrix, in fp32."""

    a: torch.Tensor
    """[rank, in]"""
    b: torch.Tensor
    """[out, rank]"""


@dataclass(frozen=True)
class Update:
    """The adapter as a change of the base's matrices."""

    adapter: Weights
    scale: float

    def changes(self, base_name: str) -> bool:
        """Whether the adapter has a pair for this tensor of the base."""
        return base_name.endswith(".weight") and self._half(base_name, "A") in self.adapter.tensors

    def pair(self, base_name: str) -> Pair:
        """The pair of a base matrix that the adapter changes.

        Of an fp32 adapter, as training writes it, both are views of the mapped file and take no memory.
        """
        return Pair(self._whole(self._half(base_name, "A")), self._whole(self._half(base_name, "B")))

    def add(self, weights: torch.Tensor, pair: Pair, first_row: int, scratch: torch.Tensor) -> None:
        """Changes fp32 rows [n, in] in place; the first of them is `first_row` of the matrix.

        PEFT rounds B x A, then its product with the scale, then the sum. Where the scale is a power of two its product
        is exact, and one call that adds in place gives the same bits in less time; else the change is made in `scratch`
        (fp32, at least as many elements), step by step.
        """
        b = pair.b[first_row : first_row + len(weights)]
        if _is_power_of_two(self.scale):
            weights.addmm_(b, pair.a, alpha=self.scale)
            return
        change = scratch[: weights.numel()].view(weights.shape)
        torch.mm(b, pair.a, out=change)
        weights.add_(change.mul_(self.scale))

    @staticmethod
    def _half(base_name: str, half: str) -> str:
        return f"{ADAPTER_PREFIX}{base_name.removesuffix('.weight')}.lora_{half}.weight"

    def _whole(self, name: str) -> torch.Tensor:
        return self.adapter.flat(name).view(self.adapter.tensors[name].shape).float()


def _is_power_of_two(number: float) -> bool:
    return abs(math.frexp(number)[0]) == 0.5
