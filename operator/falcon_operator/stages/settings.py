"""What the operator's own settings add to every pod."""

from dataclasses import dataclass

VLLM_IMAGE = "vllm/vllm-openai:v0.32.0"
"""Upstream's own image; the arguments of `stages.serve_vllm` are those of this version."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Read from the operator's environment once, at its start."""

    image: str
    """The trainer image; `podTemplate.*.image` of a run goes before it."""
    image_pull_policy: str = "IfNotPresent"
    vllm_image: str = VLLM_IMAGE
    """The image of servers with GPUs; `podTemplate.serve.image` of a run goes before it."""
