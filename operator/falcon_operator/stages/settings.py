"""What the operator's own settings add to every pod."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Read from the operator's environment once, at its start."""

    image: str
    """The trainer image; `podTemplate.*.image` of a run goes before it."""
    image_pull_policy: str = "IfNotPresent"
