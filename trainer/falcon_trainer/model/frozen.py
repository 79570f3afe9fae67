"""The base's linear layers: frozen, so that they need nothing of the forward pass but the gradient that comes back.

transformers' FalconLinear multiplies with `weight.T`, a view that autograd saves: under ZeRO-3 the view keeps each
gathered matrix alive until its backward pass, so that without activation checkpointing every rank would end up holding
the whole base. The product here saves no tensor; backward takes the weight that DeepSpeed has gathered again by then.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers.models.falcon.modeling_falcon import FalconLinear

from falcon_trainer.model.checkpointing import Keeper


class FrozenProduct(torch.autograd.Function):
    """x [..., in] → x · Wᵀ (+ b) [..., out] of a FrozenLinear; its only gradient is that of x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: "FrozenLinear") -> torch.Tensor:
        ctx.linear = linear
        return linear.product(x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor, None]:
        return outer[0] @ ctx.linear.weight, None


class FrozenLinear(FalconLinear):  # type: ignore[misc,unused-ignore]
    """FalconLinear for a frozen base. A weight that is trained all the same is multiplied as FalconLinear does."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, keeper: Keeper, kept: bool) -> None:
        """`kept`: the layer's recomputation needs the output. What is only added to other outputs it does not."""
        super().__init__(inputs, outputs, bias=bias)
        self._keeper, self._kept = keeper, kept

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] → [..., out]."""
        if self._keeper.recomputing and not self.weight.requires_grad:
            # Past the module's hooks: they would gather the matrix under ZeRO-3, and it is not needed.
            recalled: torch.Tensor = FrozenProduct.apply(x, self)  # type: ignore[no-untyped-call]
            return recalled
        output: torch.Tensor = super().__call__(x)
        return output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] → [..., out]."""
        if self.weight.requires_grad:
            trained: torch.Tensor = super().forward(x)
            return trained
        output: torch.Tensor = FrozenProduct.apply(x, self)  # type: ignore[no-untyped-call]
        return output

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The output, multiplied or recalled."""
        if self._keeper.recomputing:
            # Not a number, so that a layer in which backward does depend on it cannot train unnoticed.
            return self._keeper.take() if self._kept else x.new_full((*x.shape[:-1], self.out_features), torch.nan)
        output: torch.Tensor = x @ self.weight.T
        if self.bias is not None:
            output = output + self.bias
        if self._kept:
            self._keeper.put(output)
        return output
