"""The resource as the API server sends it, typed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from falcon_operator.api.names import API_VERSION, KIND
from falcon_operator.api.spec import FalconFineTuneSpec
from falcon_operator.api.status import FalconFineTuneStatus, Moment
from falcon_trainer.wire import Wire


class Problem(NamedTuple):
    """What is wrong with a resource: the field's path (`spec.training.globalBatchSize`), and a sentence."""

    path: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}"


class InvalidResourceError(ValueError):
    """A resource that the models refuse."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class Metadata(Wire):
    """The part of meta/v1 ObjectMeta that the operator reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: str
    namespace: str
    uid: str
    resource_version: str = ""
    generation: int = 1
    labels: dict[str, str] = Field(default={})
    annotations: dict[str, str] = Field(default={})
    creation_timestamp: Moment | None = None
    deletion_timestamp: Moment | None = None


class FalconFineTune(Wire):
    """One run: a Falcon model from data to a served, fine-tuned endpoint."""

    metadata: Metadata
    spec: FalconFineTuneSpec
    status: FalconFineTuneStatus = FalconFineTuneStatus()

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Self:
        """The typed form of a FalconFineTune. Raises InvalidResourceError where the models refuse it."""
        parts = {key: obj[key] for key in ("metadata", "spec", "status") if obj.get(key) is not None}
        try:
            return cls.model_validate(parts)
        except ValidationError as error:
            raise InvalidResourceError(
                [Problem(_path(item["loc"]), _sentence(item)) for item in error.errors()]
            ) from None

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    def owner_reference(self) -> dict[str, Any]:
        """Makes a child go when the run goes."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _sentence(item: Mapping[str, Any]) -> str:
    return str(item["msg"]).removeprefix("Value error, ")


def spec_hash(spec: FalconFineTuneSpec) -> str:
    """Digest (hex, 16 characters) of what stays the same once a run is accepted.

    Values equal to their default are left out, so that a field which a later release adds, with a default, does not
    change the digest of a run that was accepted before.
    """
    fixed = spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_defaults=True,
        include={"model", "dataset", "lora", "training"},
    )
    text = json.dumps(fixed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
