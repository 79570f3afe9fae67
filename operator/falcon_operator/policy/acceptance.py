"""Whether a run is accepted: what a schema cannot say, checked before the first child exists.

Pure: nothing is looked up. That a claim exists, that a record parses, that a model is found, is the prepare stage's to
say.
"""

import re
from collections.abc import Iterator

from falcon_operator.api.names import MAX_NAME
from falcon_operator.api.resource import FalconFineTune, Problem
from falcon_operator.policy.pod_acceptance import pod_template_problems
from falcon_operator.policy.publish_acceptance import publish_problems
from falcon_operator.policy.serve_acceptance import serve_problems
from falcon_operator.stages.prepare import source_uris
from falcon_operator.stages.workspace import access_mode
from falcon_trainer import uris
from falcon_trainer.config import FALCON_LINEARS

RUN_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"


def problems(run: FalconFineTune) -> list[Problem]:
    """Everything that is wrong with the spec; empty where the run is accepted."""
    checks = (
        *(_name, _sources, _model_options, _batch, _steps, _adapter, _gang, _workspace),
        publish_problems,
        serve_problems,
        pod_template_problems,
    )
    return [problem for check in checks for problem in check(run)]


def _name(run: FalconFineTune) -> Iterator[Problem]:
    if len(run.name) > MAX_NAME or not re.fullmatch(RUN_NAME, run.name):
        yield Problem(
            "metadata.name",
            f"must have at most {MAX_NAME} characters, begin with a letter and hold a-z, 0-9 and - only",
        )


def _sources(run: FalconFineTune) -> Iterator[Problem]:
    named: list[tuple[str, str, uris.Grammar]] = [("spec.model.source", run.spec.model.source, uris.MODEL)]
    for index, source in enumerate(run.spec.dataset.sources):
        named.append((f"spec.dataset.sources[{index}].uri", source.uri, uris.DATA))
    if run.spec.lora.initial_adapter:
        named.append(("spec.lora.initialAdapter", run.spec.lora.initial_adapter, uris.ADAPTER))
    for path, uri, grammar in named:
        if sentence := uris.problem(uri, grammar):
            yield Problem(path, f"{uri!r} cannot be used: {sentence}")


def _model_options(run: FalconFineTune) -> Iterator[Problem]:
    model = run.spec.model
    if model.revision is not None and not model.source.startswith("hf://"):
        yield Problem("spec.model.revision", f"belongs to hf:// models and {model.source!r} is none: leave it out")
    if model.token_secret_ref is not None and not any(uri.startswith("hf://") for uri in source_uris(run)):
        yield Problem(
            "spec.model.tokenSecretRef",
            "is the Hub's, and neither the model nor a data source nor the initial adapter is on hf://: leave it out",
        )


def _batch(run: FalconFineTune) -> Iterator[Problem]:
    training, gang = run.spec.training, run.spec.gang
    unit = training.micro_batch_size * gang.world_size
    if training.global_batch_size % unit:
        below = training.global_batch_size // unit * unit
        fitting = f"{below} or {below + unit}" if below else str(unit)
        yield Problem(
            "spec.training.globalBatchSize",
            f"{training.global_batch_size} rows cannot be shared out: give a multiple of microBatchSize × nodes × "
            f"processes = {training.micro_batch_size} × {gang.nodes} × {gang.processes} = {unit}; "
            f"the nearest that fit: {fitting}",
        )


def _steps(run: FalconFineTune) -> Iterator[Problem]:
    training = run.spec.training
    if training.max_steps is not None and training.warmup_steps >= training.max_steps:
        yield Problem(
            "spec.training.warmupSteps",
            f"{training.warmup_steps} leaves no step after the warm-up: keep it below maxSteps ({training.max_steps})",
        )


def _adapter(run: FalconFineTune) -> Iterator[Problem]:
    for index, module in enumerate(run.spec.lora.target_modules):
        if module not in FALCON_LINEARS:
            yield Problem(
                f"spec.lora.targetModules[{index}]",
                f"{module!r} is no linear layer of a Falcon block; choose from {', '.join(FALCON_LINEARS)}",
            )


def _gang(run: FalconFineTune) -> Iterator[Problem]:
    gang = run.spec.gang
    if gang.gpus_per_node and gang.processes > gang.gpus_per_node:
        yield Problem(
            "spec.gang.processesPerNode",
            f"{gang.processes} processes cannot share {gang.gpus_per_node} GPUs: each rank needs one of its own",
        )
    if run.spec.training.attention == "flash-attention" and not gang.gpus_per_node:
        yield Problem(
            "spec.training.attention", "flash-attention needs GPUs and gang.gpusPerNode is 0: use auto or sdpa"
        )


def _workspace(run: FalconFineTune) -> Iterator[Problem]:
    gang, serve = run.spec.gang, run.spec.serve
    if access_mode(run) != "ReadWriteOnce" or (gang.nodes == 1 and (serve.replicas == 1 or not serve.enabled)):
        return
    yield Problem(
        "spec.workspace.accessMode",
        f"a ReadWriteOnce volume is mounted by one node at a time, and the run has {gang.nodes} training nodes and "
        f"{serve.replicas} server replicas: use ReadWriteMany",
    )
