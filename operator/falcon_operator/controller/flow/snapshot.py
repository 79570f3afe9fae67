"""What is known of one run at one moment: the input of every decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from falcon_operator.api.names import StageName
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
class Sight:
    """What is seen of the pods of one stage."""

    pods: Sequence[Object] = ()
    """Pods of the stage; of the train stage, those of the newest attempt."""
    events: Sequence[Object] = ()
    """Warnings about the stage's objects, read only while none of its pods runs."""
    progress: Progress | None = None
    """What the stage's pod said last; None means unknown."""


@dataclass(frozen=True, kw_only=True)
class Snapshot(Sight):
    """The resource and those of its children that matter in its present stage, as the API had them."""

    metadata: Metadata
    status: FalconFineTuneStatus
    run: FalconFineTune | None
    """None where the models refuse the resource; `problems` says why."""
    problems: Sequence[Problem] = ()
    objects: Mapping[Reference, Object] = field(default_factory=dict)
    """Existing objects under the names of the children of the present stages, whoever owns them."""
    attempts: Mapping[int, Object] = field(default_factory=dict)
    """The run's own train Jobs by attempt."""
    beside: Mapping[StageName, Sight] = field(default_factory=dict)
    """The stages that run beside the present one, of which the snapshot's own pods are."""
    runs: Sequence[Object] = ()
    """The runs of the namespace, read only of a run that shares a name with others."""
    refusal: str | None = None
    """What the API server said when it refused the last child that was to be written."""

    def at(self, stage: StageName) -> "Snapshot":
        """The snapshot as the look at a stage beside the present one needs it."""
        seen = self.beside.get(stage, Sight())
        return replace(self, pods=seen.pods, events=seen.events, progress=seen.progress)
