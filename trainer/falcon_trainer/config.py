"""RunConfig: everything a stage is told.

Each field that reaches the trainer is defined here once. The operator embeds these models in the custom resource, so
the CRD's schema, its documentation and its validation come from this file. `not_yet` and `choices` mark what is
named but not obeyed by this release: the API server refuses it with a sentence, it is never ignored.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from falcon_trainer.wire import DURATION_PATTERN, MEMORY_PATTERN, NAME_PATTERN, Real, Wire, cel, memory_bytes, seconds

FALCON_LINEARS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def not_yet(what: str, *, allowed: str = "false") -> dict[str, Any]:
    """Schema extra of a value that is named but not obeyed by this release; `allowed` is the CEL of what is obeyed."""
    return {"x-kubernetes-validations": [cel(allowed, f"{what} is not supported by this release")]}


def choices(*obeyed: str, what: str) -> dict[str, Any]:
    """Schema extra of an enumeration of which this release obeys only some values."""
    sentence = f"{what} supports only {', '.join(obeyed)} in this release"
    return {"x-kubernetes-validations": [cel(f"self in {list(obeyed)!r}", sentence)]}


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=253)]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN, min_length=2, max_length=16)]


SHORT_TIMEOUT = "gang.hangTimeout must be at least 10s"


def _at_least_ten_seconds(duration: str) -> str:
    if seconds(duration) < 10:
        raise ValueError(SHORT_TIMEOUT)
    return duration


LEAST_MERGE_MEMORY = "64Mi"
LITTLE_MEMORY = f"merge.memory must be at least {LEAST_MERGE_MEMORY}"


def _enough_to_merge(quantity: str) -> str:
    if memory_bytes(quantity) < memory_bytes(LEAST_MERGE_MEMORY):
        raise ValueError(LITTLE_MEMORY)
    return quantity


class SecretKey(Wire):
    """One key of a Secret in the run's namespace."""

    name: Name
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")


class Model(Wire):
    """The base model."""

    source: str = Field(
        min_length=6,
        max_length=512,
        pattern=r"^(hf|pvc|s3)://.+",
        description="The base model: hf://OWNER/NAME, or pvc://CLAIM/PATH (mounted read-only, never copied).",
        json_schema_extra=not_yet("a model source on s3://", allowed="!self.startsWith('s3://')"),
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Branch, tag or commit of an hf:// source; default main.",
    )
    preset: Literal["falcon-7b", "falcon-40b", "falcon-180b"] | None = Field(
        default=None,
        description="Settings known to fit a published Falcon.",
        json_schema_extra=not_yet("model.preset"),
    )
    token_secret_ref: SecretKey | None = Field(
        default=None,
        description="Token of the Hub, for the model, data sets and the initial adapter; mounted as a file in the "
        "prepare pod and nowhere else.",
    )


class DatasetSource(Wire):
    """One file, or one folder of files, of records."""

    uri: str = Field(
        min_length=6,
        max_length=2048,
        pattern=r"^(hf|pvc|s3|https|configmap)://.+",
        description="A file, or a folder with its subfolders: hf://OWNER/NAME[@REVISION][/PATH] of a data set of the "
        "Hub (PATH: a file, folder or configuration of it), pvc://CLAIM/PATH, s3://BUCKET/PATH, https://HOST/PATH "
        "(always a file), or configmap://NAME[/KEY]. JSON, JSON Lines, CSV, Parquet and Arrow, also compressed with "
        "gzip, bzip2, xz or zstd.",
    )
    split: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        pattern=r"^\w+$",
        description="Split of a folder or of a data set of the Hub, found as the Hub's libraries find it; default "
        "train where there are splits, else everything. Of a single file: the split that it is.",
    )
    weight: Annotated[float, Real(above=0)] | None = Field(
        default=None, description="Share of this source.", json_schema_extra=not_yet("dataset.sources[].weight")
    )


class Validation(Wire):
    """Records held out of training: a split of the sources, or a random fraction of the records."""

    split: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^\w+$")
    fraction: Annotated[float, Real(above=0, below=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.split is None) == (self.fraction is None):
            raise ValueError("give dataset.validation.split or dataset.validation.fraction: exactly one of them")
        return self


class Dataset(Wire):
    """The records, how they become text, and how the text becomes rows of tokens."""

    sources: list[DatasetSource] = Field(min_length=1, max_length=16)
    format: Literal["auto", "dolly", "alpaca", "chat", "sharegpt", "prompt-completion", "text"] = Field(
        default="auto",
        description="Shape of a record; auto recognises it by the fields of the first one. text and prompt-completion "
        "have no chat template and are served as /v1/completions.",
    )
    template: str | None = Field(
        default=None,
        min_length=1,
        max_length=8192,
        description="Your own chat template (Jinja, over `messages`), instead of the recipe's prompt. It becomes the "
        "tokenizer's chat template; it must print eos_token after each assistant message.",
    )
    train_on: Literal["completion", "all"] = Field(
        default="completion",
        description="Tokens that count in the loss: the answers (of a chat, every assistant message), or every token.",
    )
    sequence_length: int = Field(default=2048, ge=16, le=131072, description="Tokens in a row.")
    packing: Literal["best-fit", "concatenate", "none"] = Field(
        default="best-fit",
        description="How documents share rows: whole documents, best fit; one after the other, cut where a row is "
        "full; or one document a row. Documents of one row never see each other.",
    )
    too_long: Literal["truncate", "split", "skip", "fail"] = Field(
        default="truncate",
        description="What happens to a record longer than a row: cut at its end, cut into several documents, left out, "
        "or refused; always counted. With packing: concatenate no record is too long.",
    )
    on_invalid: Literal["fail", "skip"] = Field(
        default="fail", description="What happens to a record that cannot be used; always counted."
    )
    max_invalid_fraction: Annotated[float, Real(at_least=0, below=1)] = Field(
        default=0.1, description="With onInvalid: skip, the largest share of invalid records that is still accepted."
    )
    validation: Validation | None = Field(
        default=None, description="Records held out of training, to measure the model on."
    )


class Lora(Wire):
    """The adapter."""

    rank: int = Field(default=64, ge=1, le=1024)
    alpha: int = Field(default=16, ge=1, le=4096)
    dropout: Annotated[float, Real(at_least=0, below=1)] = 0.1
    target_modules: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        default=list(FALCON_LINEARS),
        min_length=1,
        max_length=16,
        description="Linear layers that get an adapter; default all four of Falcon.",
    )
    variant: Literal["lora", "rslora"] = Field(
        default="lora", description="Scale of the update: alpha/rank, or alpha/sqrt(rank)."
    )
    initial_adapter: str | None = Field(
        default=None,
        min_length=6,
        max_length=512,
        pattern=r"^(hf|pvc)://.+",
        description="Adapter to start from: pvc://CLAIM/PATH or hf://OWNER/NAME[@REVISION] of a PEFT LoRA adapter of "
        "the same base, rank, alpha, variant and target modules. Default: a new one.",
    )

    @property
    def scale(self) -> float:
        """Factor of B·A in the merged weight (rsLoRA: arXiv 2312.03732)."""
        return float(self.alpha / (self.rank**0.5 if self.variant == "rslora" else self.rank))


class DeepSpeed(Wire):
    """ZeRO settings; both configurations of the original recipe are reached by the two offload switches."""

    stage: Literal[3] = Field(default=3, description="ZeRO stage; 3 partitions parameters, gradients and optimizer.")
    offload_parameters: Literal["none", "cpu", "nvme"] = Field(
        default="none", json_schema_extra=choices("none", "cpu", what="deepspeed.offloadParameters")
    )
    offload_optimizer: Literal["none", "cpu", "nvme"] = Field(
        default="none", json_schema_extra=choices("none", "cpu", what="deepspeed.offloadOptimizer")
    )
    overrides: str | None = Field(
        default=None, max_length=8192, json_schema_extra=not_yet("training.deepspeed.overrides")
    )


class Checkpoint(Wire):
    """When the training state is saved."""

    every_steps: int = Field(default=100, ge=1, le=1_000_000)
    every_minutes: int | None = Field(
        default=None,
        ge=1,
        le=10_080,
        description="Saves also when this long has passed since the last save began, at the end of the step.",
    )
    keep: int = Field(default=3, ge=1, le=100, description="Newest checkpoints that stay on the volume.")


class Evaluation(Wire):
    """Measuring on the validation records."""

    every_steps: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Default: training.checkpoint.everySteps; always at the end."
    )
    adapter: Literal["best", "last"] = Field(
        default="best", description="Which adapter is kept in the end: of the lowest validation loss, or the last one."
    )


class EarlyStopping(Wire):
    """Stopping once the validation loss no longer falls."""

    patience: int = Field(
        default=3, ge=1, le=1000, description="Evaluations in a row without improvement that end the training."
    )
    min_delta: Annotated[float, Real(at_least=0)] = Field(
        default=0.0, description="What the validation loss must fall by to count as an improvement."
    )


class Training(Wire):
    """The optimisation."""

    epochs: int | None = Field(default=None, ge=1, le=10_000, description="Passes over the data; default 3.")
    max_steps: int | None = Field(default=None, ge=1, le=100_000_000, description="Optimizer steps, instead of epochs.")
    global_batch_size: int = Field(
        default=64, ge=1, le=65536, description="Rows per optimizer step, over all ranks and micro-batches."
    )
    micro_batch_size: int = Field(default=1, ge=1, le=1024, description="Rows per rank and forward pass.")
    learning_rate: Annotated[float, Real(above=0, below=1)] = 1e-4
    scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000)
    seed: int = Field(default=42, ge=0, le=2**31 - 1)
    attention: Literal["auto", "flash-attention", "sdpa"] = Field(
        default="auto", description="auto takes flash attention on a GPU that has it, else sdpa."
    )
    activation_checkpointing: Literal["full", "selective", "none"] = Field(
        default="full",
        description="What is kept between forward and backward: only each layer's input; also what its base matrices "
        "and attention give (faster, more memory); or everything.",
    )
    selective_layers: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="With activationCheckpointing: selective, how many layers (the first ones) keep more than their "
        "input; default all.",
    )
    data_loader_workers: int = Field(
        default=0, ge=0, le=64, description="Processes of each rank that gather rows; 0 gathers them in the rank."
    )
    deepspeed: DeepSpeed = DeepSpeed()
    checkpoint: Checkpoint = Checkpoint()
    evaluation: Evaluation | None = Field(
        default=None, description="How the validation records are used; needs dataset.validation."
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Default: none. Needs dataset.validation.")
    on_non_finite: Literal["fail", "skipBatch"] = Field(
        default="fail",
        description="What happens where the loss or the gradient of a step is no number: the training ends and waits "
        "for a person, or goes on from the newest checkpoint without that global batch, which uses up one of "
        "gang.maxRestarts. A validation loss that is no number always ends it.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("training.epochs and training.maxSteps exclude each other: keep one")
        return self


class Gang(Wire):
    """The pods that train together."""

    nodes: int = Field(default=1, ge=1, le=512, description="Pods of the gang, each on a node of its own.")
    gpus_per_node: int = Field(default=1, ge=0, le=16, description="nvidia.com/gpu of each pod; 0 trains on the CPU.")
    processes_per_node: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Ranks of each pod; default one for each GPU, and one without GPUs.",
    )
    max_restarts: int = Field(
        default=5,
        ge=0,
        le=100,
        description="Attempts after the first one that faults may use up; disruptions do not.",
    )
    hang_timeout: Annotated[Duration, AfterValidator(_at_least_ten_seconds)] | None = Field(
        default=None,
        description="How long training may go without finishing a step before the gang is ended as hung and started "
        "anew. Default: ten times the measured step, at least 5m, and 30m for the first one. Loading, evaluation and "
        "saves have limits of their own, which a longer value raises.",
        json_schema_extra={"x-kubernetes-validations": [cel("duration(self) >= duration('10s')", SHORT_TIMEOUT)]},
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="How long all attempts together may take; stands still while the run is suspended or queued.",
    )
    assembly_timeout_seconds: int = Field(
        default=300,
        ge=10,
        le=86_400,
        description="How long some pods of a gang may hold their nodes while no node can take the others; then all of "
        "them are released and tried again. A gang in a queue is admitted as a whole and never released.",
    )
    node_loss_toleration_seconds: int = Field(
        default=30, ge=0, le=3600, description="How long a pod stays bound to a node that stopped reporting."
    )

    @property
    def processes(self) -> int:
        """Ranks of each pod."""
        return self.processes_per_node or max(1, self.gpus_per_node)

    @property
    def world_size(self) -> int:
        """Ranks of the whole gang."""
        return self.nodes * self.processes


class Merge(Wire):
    """The merged model."""

    enabled: bool = True
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="Element type of the merged weights; auto keeps the base's. A change merges anew, and the new "
        "model replaces the served one when it answers.",
    )
    memory: Annotated[
        str, Field(pattern=MEMORY_PATTERN, min_length=3, max_length=16), AfterValidator(_enough_to_merge)
    ] = Field(
        default="256Mi",
        description="Memory for weights that are read, changed and written at one time, whatever the model's size; at "
        "least 64Mi. The process itself needs about 500Mi beside it.",
        json_schema_extra={
            "x-kubernetes-validations": [
                cel(f"quantity(self).compareTo(quantity('{LEAST_MERGE_MEMORY}')) >= 0", LITTLE_MEMORY)
            ]
        },
    )


class Publication(Wire):
    """A copy of a result outside the workspace."""

    what: Literal["adapter", "merged"] = "merged"
    uri: str = Field(
        min_length=6,
        max_length=256,  # all of a run are told in one termination message, which holds 4,096 bytes
        pattern=r"^(hf|pvc|s3)://.+",
        description="hf://OWNER/NAME[@BRANCH] (made if it is not there), s3://BUCKET/PATH, or pvc://CLAIM/PATH of "
        "another claim.",
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret that is mounted as files in the publish pod and nowhere else. Its keys: token (hf://), or "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and where they are needed AWS_SESSION_TOKEN, AWS_REGION and "
        "AWS_ENDPOINT_URL (s3://). Default: the identity of the pod, see podTemplate.publish.serviceAccountName.",
    )
    private: bool = Field(default=True, description="Whether a repository of the Hub that is made is private.")


class Serve(Wire):
    """The endpoint."""

    enabled: bool = True
    engine: Literal["auto", "vllm", "transformers"] = Field(
        default="auto", description="auto takes vllm where the server has GPUs, else transformers."
    )
    replicas: int = Field(
        default=1, ge=1, le=64, description="Left alone once something else, such as an autoscaler, has set it."
    )
    gpus: int = Field(
        default=0,
        ge=0,
        le=16,
        description="nvidia.com/gpu of each replica; 0 serves on the CPU. vllm shares the model out among them.",
    )
    max_model_length: int | None = Field(
        default=None,
        ge=16,
        le=1_048_576,
        description="The most tokens that prompt and answer may have together; default the model's own limit.",
    )
    quantization: Literal["none", "fp8"] = Field(
        default="none",
        description="How vllm keeps the weights in the GPUs' memory: as they are stored, or in 8 bits, made while "
        "they are loaded. What else vllm knows can be given in args.",
    )
    args: list[Annotated[str, Field(min_length=1, max_length=512)]] | None = Field(
        default=None,
        max_length=64,
        description="Further arguments of the engine; they win over those that are made from the fields. Changes roll "
        "out without downtime.",
    )
    alias: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None = Field(
        default=None,
        description="Name of a Service, and of a model, that several runs hand on: the newest one that answers has "
        "it, and gives it back when it goes.",
    )
    api_key_secret_ref: SecretKey | None = Field(
        default=None, description="Bearer token that clients must send. Default: none is asked for."
    )


class Artifact(Wire):
    """Something written once under its final name: an adapter or a merged model."""

    path: str = Field(min_length=1, max_length=512, description="Folder, relative to the workspace.")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71, description="Digest of its manifest.")
    bytes: int = Field(ge=0)


class RunConfig(Wire):
    """All that a stage is told; lies at `layout.CONFIG` in every stage pod."""

    run: str = Field(min_length=1, max_length=40)
    namespace: str = Field(min_length=1, max_length=63)
    model: Model
    dataset: Dataset
    lora: Lora = Lora()
    training: Training = Training()
    gang: Gang = Gang()
    merge: Merge = Merge()
    serve: Serve = Serve()
    publish: list[Publication] | None = Field(default=None, max_length=8)
    adapter: Artifact | None = Field(default=None, description="The accepted adapter: told to merge and publish.")
    merged: Artifact | None = Field(
        default=None,
        description="The verified merged model: told to serve, publish and evaluate. Told to merge, the model that is "
        "served now: the only one that stays beside the new one.",
    )
    endpoint: str | None = Field(
        default=None, max_length=512, description="Base URL of the API that answers: told to evaluate."
    )

    @model_validator(mode="after")
    def _something_to_measure_on(self) -> Self:
        """The API server says so of a resource; this is for configurations that are written by hand."""
        for name in ("evaluation", "early_stopping"):
            if self.dataset.validation is None and getattr(self.training, name) is not None:
                raise ValueError(f"training.{to_camel(name)} needs records to measure on: set dataset.validation")
        return self
