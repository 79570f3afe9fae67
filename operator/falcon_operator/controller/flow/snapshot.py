"""What is known of one run at one moment: the input of every decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from falcon_operator.api.resource import FalconFineTune, Metadata, Problem
from falcon_operator.api.status import FalconFineTuneStatus
from falcon_operator.objects import Object
from falcon_trainer.progress import Progress


class Reference(NamedTuple):
    """Names one object in the run's namespace."""

    kind: str
    name: str


def reference(obj: Object) -> Reference:
    """The reference that names `obj`."""
    return Reference(obj["kind"], obj["metadata"]["name"])


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The resource and those of its children that matter in its present stage, as the API had them."""

    metadata: Metadata
    status: FalconFineTuneStatus
    run: FalconFineTune | None
    """None where the models refuse the resource; `problems` says why."""
    problems: Sequence[Problem] = ()
    objects: Mapping[Reference, Object] = field(default_factory=dict)
    """Existing objects under the names of the stage's children, whoever owns them."""
    attempts: Mapping[int, Object] = field(default_factory=dict)
    """The run's own train Jobs by attempt."""
    pods: Sequence[Object] = ()
    """Pods of the stage; of the train stage, those of the newest attempt."""
    events: Sequence[Object] = ()
    """Warnings about the stage's objects, read only while none of its pods runs."""
    refusal: str | None = None
    """What the API server said when it refused the last child that was to be written."""
    progress: Progress | None = None
    """What the stage's pod said last; None means unknown."""
