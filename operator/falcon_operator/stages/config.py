"""The immutable ConfigMap that tells a stage what to do; its name ends in the hash of its content."""

from falcon_operator.api.names import StageName
from falcon_operator.api.resource import FalconFineTune
from falcon_operator.stages.manifest import Manifest, child, content_hash
from falcon_trainer.config import Artifact, Gang, Merge, RunConfig, Serve

FILE = "run.json"


def run_config(
    run: FalconFineTune,
    stage: StageName,
    *,
    adapter: Artifact | None = None,
    merged: Artifact | None = None,
    endpoint: str | None = None,
) -> RunConfig:
    """What `stage` is told, and no more: a field that it does not read would give it a new ConfigMap, and roll out a
    running server or start a Job anew, whenever somebody changes that field.
    """
    spec = run.spec
    return RunConfig(
        run=run.name,
        namespace=run.namespace,
        model=spec.model,
        dataset=spec.dataset,
        lora=spec.lora,
        training=spec.training,
        gang=_gang(spec.gang, stage),
        merge=spec.merge if stage == "merge" else Merge(),
        serve=_served(spec.serve) if stage == "serve" else Serve(),
        publish=spec.publish if stage == "publish" else None,
        adapter=adapter,
        merged=merged,
        endpoint=endpoint,
    )


def _gang(gang: Gang, stage: StageName) -> Gang:
    """Prepare checks that the batch can be shared out among the ranks, and wants to know nothing else of them."""
    if stage == "prepare":
        return Gang(nodes=gang.nodes, gpus_per_node=gang.gpus_per_node, processes_per_node=gang.processes_per_node)
    return gang if stage == "train" else Gang()


def _served(serve: Serve) -> Serve:
    """Without the number of replicas, which restarts none, and the Secret, which the pod is given as a variable."""
    return serve.model_copy(update={"replicas": Serve().replicas, "api_key_secret_ref": None})


def config_map(run: FalconFineTune, stage: StageName, config: RunConfig) -> Manifest:
    """The ConfigMap `NAME-STAGE-HASH`."""
    text = config.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    name = f"{run.name}-{stage}-{content_hash(text, 10)}"
    return child(run, ("v1", "ConfigMap"), name, {"immutable": True, "data": {FILE: text}}, stage=stage)
