"""The spec: what a user asks for.

What reaches the trainer is defined in `falcon_trainer.config` and embedded here; this file adds what only the operator
reads, and the rules that span several fields.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from falcon_operator.api.kubernetes_types import (
    ENV_RULE,
    MAX_ITEMS,
    QUANTITY_PATTERN,
    Affinity,
    EnvVar,
    LocalObject,
    Resources,
    StringMap,
    Toleration,
    Volume,
)
from falcon_trainer.config import Dataset, Gang, Lora, Merge, Model, Name, Publication, Serve, Training
from falcon_trainer.wire import Wire, cel

RULES = "x-kubernetes-validations"

ONE_CLAIM = "give claimName (a claim of yours) or size (a claim is created): exactly one of them"
OWN_CLAIM = (
    "storageClassName, accessMode and whenDeleted describe a claim that the operator creates: "
    "leave them out beside claimName"
)
NEEDS_MERGE = "the server needs the merged model: set merge.enabled to true, or serve.enabled to false"

AccessMode = Literal["ReadWriteMany", "ReadWriteOnce"]


def rules(*entries: dict[str, Any]) -> dict[str, Any]:
    """Schema extra that holds CEL rules."""
    return {RULES: list(entries)}


class Workspace(Wire):
    """The volume that holds models, data, checkpoints and results of the run."""

    claim_name: Name | None = Field(
        default=None, description="A claim of yours in the run's namespace; never created, changed or deleted."
    )
    size: str | None = Field(
        default=None,
        pattern=QUANTITY_PATTERN,
        max_length=32,
        description="Size of the claim NAME-workspace that the operator creates, such as 500Gi.",
    )
    storage_class_name: Name | None = Field(default=None, description="Default: the cluster's default class.")
    access_mode: AccessMode | None = Field(
        default=None,
        description="Default ReadWriteMany; ReadWriteOnce where the run has one node and one server replica.",
    )
    when_deleted: Literal["Retain", "Delete"] = Field(
        default="Retain", description="What happens to the created claim when the run is deleted."
    )

    @model_validator(mode="after")
    def _one_claim(self) -> Self:
        if (self.claim_name is None) == (self.size is None):
            raise ValueError(ONE_CLAIM)
        if self.claim_name and (self.storage_class_name or self.access_mode or self.when_deleted == "Delete"):
            raise ValueError(OWN_CLAIM)
        return self


WORKSPACE_RULES = rules(
    cel("has(self.claimName) != has(self.size)", ONE_CLAIM),
    cel(
        "!has(self.claimName) || !(has(self.storageClassName) || has(self.accessMode) || self.whenDeleted != 'Retain')",
        OWN_CLAIM,
    ),
)


class PodTemplate(Wire):
    """What a user adds to the pods of a stage. `all` holds for every stage; the stage's own entry wins over it."""

    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^[^\s]+$",
        description="Image of the stage, instead of the operator's trainer image. A server with vllm takes it from "
        "podTemplate.serve alone, instead of upstream's.",
    )
    labels: StringMap | None = None
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=MAX_ITEMS)] | None = None
    node_selector: StringMap | None = None
    tolerations: list[Toleration] | None = Field(default=None, max_length=MAX_ITEMS)
    affinity: Affinity | None = Field(
        default=None,
        description="A podAffinity or podAntiAffinity, even an empty one, replaces the rule that a gang's pods lie "
        "on different nodes.",
    )
    resources: Resources | None = Field(
        default=None, description="Default none; GPUs are asked for in gang.gpusPerNode and serve.gpus."
    )
    env: list[EnvVar] | None = Field(default=None, max_length=MAX_ITEMS, json_schema_extra=rules(ENV_RULE))
    volumes: list[Volume] | None = Field(default=None, max_length=32)
    image_pull_secrets: list[LocalObject] | None = Field(default=None, max_length=16)
    priority_class_name: Name | None = None
    runtime_class_name: Name | None = None
    scheduler_name: Name | None = None


class IdentityPodTemplate(PodTemplate):
    """Pods that read from or write to other systems may also carry an identity that those trust."""

    service_account_name: Name | None = Field(
        default=None, description="For workload identity; no API token of it is mounted."
    )


class PodTemplates(Wire):
    """Pod templates by stage."""

    all: PodTemplate | None = None
    prepare: IdentityPodTemplate | None = None
    train: PodTemplate | None = None
    merge: PodTemplate | None = None
    serve: PodTemplate | None = None
    evaluate: PodTemplate | None = None
    publish: IdentityPodTemplate | None = None


TRAINING_RULES = rules(
    cel(
        "!(has(self.epochs) && has(self.maxSteps))",
        "epochs and maxSteps exclude each other: keep one",
        ".maxSteps",
    ),
    cel(
        "!has(self.selectiveLayers) || self.activationCheckpointing == 'selective'",
        "selectiveLayers belongs to activationCheckpointing: selective",
        ".selectiveLayers",
    ),
)
VALIDATION_RULES = rules(
    cel(
        "!has(self.validation) || has(self.validation.split) != has(self.validation.fraction)",
        "give split or fraction: exactly one of them",
        ".validation",
    )
)
NEEDS_VALIDATION = "needs records to measure on: set dataset.validation.split or dataset.validation.fraction"
SPEC_RULES = rules(
    cel("!self.serve.enabled || self.merge.enabled", NEEDS_MERGE, ".serve.enabled"),
    cel(
        "has(self.dataset.validation) || !has(self.training) || !has(self.training.earlyStopping)",
        f"earlyStopping {NEEDS_VALIDATION}",
        ".training.earlyStopping",
    ),
    cel(
        "has(self.dataset.validation) || !has(self.training) || !has(self.training.evaluation)",
        f"evaluation {NEEDS_VALIDATION}",
        ".training.evaluation",
    ),
)


class FalconFineTuneSpec(Wire):
    """What to train, on what, how, and where it is served."""

    model_config = ConfigDict(json_schema_extra=SPEC_RULES)

    suspend: bool = Field(
        default=False,
        description="Pause the run: pods that train save a checkpoint and stop, a server is scaled to nothing; false "
        "goes on where it stopped.",
    )
    model: Model
    dataset: Dataset = Field(json_schema_extra=VALIDATION_RULES)
    lora: Lora = Lora()
    training: Training = Field(default=Training(), json_schema_extra=TRAINING_RULES)
    gang: Gang = Field(default=Gang(), description="The pods that train together; changes hold from the next attempt.")
    merge: Merge = Merge()
    serve: Serve = Serve()
    publish: list[Publication] | None = Field(
        default=None,
        max_length=8,
        description="Copies of the results elsewhere, made beside the server's start; each is checked file by file and "
        "goes on where it was interrupted.",
    )
    workspace: Workspace = Field(json_schema_extra=WORKSPACE_RULES)
    pod_template: PodTemplates | None = Field(
        default=None, description="Additions to the pods of each stage; changes hold for pods created from then on."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description="When finished Jobs of older attempts are deleted, with their pods and logs; default: the five "
        "newest stay. Never an endpoint or data.",
    )

    @model_validator(mode="after")
    def _serve_needs_merge(self) -> Self:
        if self.serve.enabled and not self.merge.enabled:
            raise ValueError(NEEDS_MERGE)
        for field in ("evaluation", "early_stopping"):
            if self.dataset.validation is None and getattr(self.training, field) is not None:
                raise ValueError(f"training.{to_camel(field)} {NEEDS_VALIDATION}")
        return self
