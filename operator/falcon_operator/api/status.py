"""The status: what the operator says of a run. Fields unknown to it (a newer operator wrote them) are ignored."""

from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from falcon_trainer.config import Artifact
from falcon_trainer.wire import Wire

MAX_ATTEMPTS = 20
MAX_NODES = 64
MAX_MESSAGE = 4096


class Stage(StrEnum):
    """Where a run stands, in one word (the column STAGE)."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    TRAINING = "Training"
    MERGING = "Merging"
    DEPLOYING = "Deploying"
    PUBLISHING = "Publishing"
    SERVING = "Serving"
    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """Types of the conditions; the last three are kstatus' (`kubectl wait`, Argo CD and Flux read them)."""

    ACCEPTED = "Accepted"
    PREPARED = "Prepared"
    TRAINED = "Trained"
    MERGED = "Merged"
    SERVING = "Serving"
    EVALUATED = "Evaluated"
    PUBLISHED = "Published"
    SUSPENDED = "Suspended"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


def rfc3339(moment: datetime) -> str:
    """Kubernetes' form of a time: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(value: object) -> object:
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    PlainSerializer(rfc3339, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time with time zone, in whole seconds."""

Word = Annotated[str, Field(max_length=128)]
Text = Annotated[str, Field(max_length=MAX_MESSAGE)]
Count = Annotated[int, Field(ge=0)]


class Reported(Wire):
    """Base of the status models."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Condition(Reported):
    """A meta/v1 Condition."""

    type: Word
    status: Literal["True", "False", "Unknown"]
    observed_generation: Count | None = None
    last_transition_time: Moment
    reason: Word
    message: Annotated[str, Field(max_length=32768)]


class ValidationStatus(Reported):
    """What was held out of training."""

    records: Count | None = None
    sequences: Count | None = Field(default=None, description="Rows of tokens.")
    tokens: Count | None = None
    trained_tokens: Count | None = Field(default=None, description="Tokens that the loss is measured on.")


class DatasetStatus(Reported):
    """What the prepare stage made of the records."""

    format: Word | None = Field(default=None, description="Shape of the records, given or recognised.")
    records: Count | None = None
    skipped: Count | None = Field(default=None, description="Records left out, as onInvalid and tooLong say.")
    invalid: Count | None = Field(default=None, description="Of the records left out, those that cannot be used.")
    empty_answers: Count | None = Field(default=None, description="Of the invalid records, those with an empty answer.")
    duplicates: Count | None = Field(default=None, description="Records equal to an earlier one; they are kept.")
    truncated: Count | None = Field(default=None, description="Records cut at the length of a row.")
    split: Count | None = Field(default=None, description="Records cut into several documents.")
    documents: Count | None = None
    longest_document: Count | None = Field(default=None, description="In tokens.")
    median_document: Count | None = Field(default=None, description="In tokens.")
    sequences: Count | None = Field(default=None, description="Rows of tokens.")
    tokens: Count | None = None
    trained_tokens: Count | None = Field(default=None, description="Tokens that count in the loss.")
    packing_efficiency: Word | None = Field(
        default=None, description="Share of the rows that is no padding, a decimal string."
    )
    validation: ValidationStatus | None = None


class ModelStatus(Reported):
    """The base model as it was found."""

    source: Annotated[str, Field(max_length=512)] | None = None
    commit: Word | None = Field(default=None, description="What the revision of an hf:// source resolved to.")
    parameters: Count | None = None
    bytes: Count | None = None
    layers: Count | None = None
    attention_heads: Count | None = None
    key_value_heads: Count | None = None


class MergeStatus(Reported):
    """How the merged model was made, and what its check found."""

    dtype: Word | None = Field(default=None, description="What merge.dtype asked for.")
    tensors: Count | None = None
    changed_tensors: Count | None = None
    logit_difference: Word | None = Field(
        default=None,
        description="Largest difference of logits between base + adapter and merged, as a share of the largest logit; "
        "absent where the model does not fit in the merge pod's memory. A decimal string.",
    )


class PublishedStatus(Reported):
    """One finished copy of a result."""

    uri: Annotated[str, Field(max_length=512)]
    what: Word
    digest: Annotated[str, Field(max_length=71)] = Field(description="Of the artefact that was copied.")
    revision: Word | None = Field(default=None, description="The commit, of a repository of the Hub.")
    bytes: Count | None = None


class EvaluationStatus(Reported):
    """The stored prompts, answered by the served model: a look whether training came through to the endpoint."""

    merged: Annotated[str, Field(max_length=71)] | None = Field(
        default=None, description="Digest of the model that answered."
    )
    prompts: Count | None = None
    answered: Count | None = None
    changed: Count | None = Field(default=None, description="Answers that differ from the base's.")
    message: Annotated[str, Field(max_length=1024)] | None = None


class FailureStatus(Reported):
    """The newest failure of a stage."""

    reason: Word
    message: Text
    attempt: Count | None = None
    time: Moment | None = None


class TrainingStatus(Reported):
    """How far the training is."""

    step: Count | None = None
    total_steps: Count | None = None
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    progress: Word | None = Field(default=None, description="percent as the column shows it: 42%.")
    loss: Word | None = Field(default=None, description="A decimal string.")
    tokens_per_second: Count | None = None
    estimated_seconds_left: Count | None = None
    eta: Word | None = Field(default=None, description="estimatedSecondsLeft as the column shows it: 3m12s.")
    last_checkpoint_step: Count | None = None
    evaluation_loss: Word | None = Field(
        default=None, description="Loss on the validation records: the newest, in the end the kept adapter's."
    )
    best_step: Count | None = Field(default=None, description="Step of the lowest evaluation loss so far.")
    stopped_early: bool | None = Field(default=None, description="Whether training.earlyStopping ended the training.")
    attempt: Count | None = None
    restarts: Count | None = Field(default=None, description="Faults since the last progress.")
    disruptions: Count | None = Field(default=None, description="Disruptions since the last progress.")
    last_failure: FailureStatus | None = None
    next_attempt_time: Moment | None = None
    active_seconds: Count | None = Field(
        default=None, description="Time that attempts took until now, without the one since activeSince."
    )
    active_since: Moment | None = Field(default=None, description="Absent while nothing runs.")


class AttemptStatus(Reported):
    """One attempt of the gang."""

    attempt: Annotated[int, Field(ge=1)]
    job_uid: Word | None = None
    state: Literal["Running", "Queued", "Suspended", "Succeeded", "Faulted", "Disrupted"] = "Running"
    start_time: Moment | None = None
    end_time: Moment | None = None
    resumed_from_step: Count | None = Field(
        default=None, description="The newest known checkpoint, and once rank 0 has told, the one that it loaded."
    )
    last_step: Count | None = None
    nodes: list[Word] = Field(default=[], max_length=MAX_NODES, description="Where its pods ran, the first 64.")
    notices: list[Annotated[str, Field(max_length=600)]] = Field(
        default=[], max_length=8, description="What its rank 0 wanted a person to know; each was an Event."
    )
    reason: Word | None = None
    message: Annotated[str, Field(max_length=1024)] | None = None
    retryable: bool | None = Field(default=None, description="Whether another attempt may succeed without a person.")


class FalconFineTuneStatus(Reported):
    """What the operator says of the run."""

    observed_generation: Count | None = None
    accepted_spec_hash: Word | None = Field(
        default=None, description="Digest of what was accepted; from then on model, dataset, lora and training stay."
    )
    stage: Word | None = None
    conditions: list[Condition] = Field(
        default=[],
        max_length=32,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    dataset: DatasetStatus | None = None
    model: ModelStatus | None = None
    training: TrainingStatus | None = None
    attempts: list[AttemptStatus] = Field(default=[], max_length=MAX_ATTEMPTS, description="The newest attempts.")
    adapter: Artifact | None = None
    merged: Artifact | None = None
    merge: MergeStatus | None = None
    evaluation: EvaluationStatus | None = None
    published: list[PublishedStatus] = Field(default=[], max_length=8)
    alias: Word | None = Field(default=None, description="The name of serve.alias, while this run answers to it.")
    endpoint: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Base URL of the OpenAI-compatible API."
    )

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of that type."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


def display_duration(seconds: int) -> str:
    """Seconds as `kubectl get` shows them, in at most two units: 45s, 3m12s, 2h5m, 4d3h."""
    units = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
    for (name, size), (below_name, below_size) in pairwise(units):
        if seconds >= size:
            rest = seconds % size // below_size
            return f"{seconds // size}{name}" + (f"{rest}{below_name}" if rest else "")
    return f"{max(0, seconds)}s"


def percent_done(step: int, total_steps: int) -> int:
    """Whole percent, rounded down, so that 100 means done."""
    return 100 * min(step, total_steps) // total_steps if total_steps else 0
