"""A server's pod with vLLM: upstream's image on the GPUs of one node.

Not run on a GPU: written from the sources of the version that `stages.settings.VLLM_IMAGE` names (models/falcon.py,
engine/arg_utils.py, envs.py, entrypoints, layers/quantization). Our launcher is not in that
image: no progress, no outcome; what the pod says is in its log.

The image expects to be root with a home of its own. The restricted profile wants neither, so that home, name and every
folder for caches are told (torch looks the user's name up, and has no entry for ours).
"""

from pathlib import Path

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.policy.engine import split
from falcon_operator.stages.manifest import Manifest, child, content_hash
from falcon_operator.stages.nearby import at_the_volume
from falcon_operator.stages.pod import PodPlan, Program
from falcon_operator.stages.settings import StageSettings
from falcon_operator.stages.volumes import SCRATCH
from falcon_trainer.config import Artifact
from falcon_trainer.layout import CONFIG, SERVE_PORT, WORKSPACE

API_KEY = "VLLM_API_KEY"
LINGER_SECONDS = 15
"""Before it is asked to stop, a pod serves on until every proxy and ingress knows that it goes."""
DRAIN_SECONDS = 120
"""Then, time to finish the answers that are being written; 0, vLLM's default, would cut them off."""
GRACE_SECONDS = LINGER_SECONDS + DRAIN_SECONDS + 15
CACHES = {
    "HOME": SCRATCH,
    "USER": "falcon",
    "XDG_CACHE_HOME": f"{SCRATCH}/.cache",
    "XDG_CONFIG_HOME": f"{SCRATCH}/.config",
    "HF_HOME": f"{SCRATCH}/.cache/huggingface",
    "VLLM_CACHE_ROOT": f"{SCRATCH}/.cache/vllm",
    "VLLM_CONFIG_ROOT": f"{SCRATCH}/.config/vllm",
    "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH}/.cache/inductor",
    "TRITON_CACHE_DIR": f"{SCRATCH}/.cache/triton",
    "FLASHINFER_WORKSPACE_BASE": SCRATCH,
}
QUANTIZATIONS = {"fp8": "fp8_per_tensor"}
"""What vLLM calls it; its own `fp8` is for checkpoints that are stored so."""
PROBE_FILE = "probe.py"
PROBE = Path(__file__).with_name(PROBE_FILE).read_text()


def config(run: FalconFineTune) -> Manifest:
    """The ConfigMap of the pod: the probe."""
    name = f"{run.name}-serve-{content_hash(PROBE, 10)}"
    return child(run, ("v1", "ConfigMap"), name, {"immutable": True, "data": {PROBE_FILE: PROBE}}, stage="serve")


def plan(run: FalconFineTune, settings: StageSettings, merged: Artifact, load_seconds: int) -> PodPlan:
    """The pod; it may take `load_seconds` to give its first token."""
    serve, near = run.spec.serve, at_the_volume(run, "serve")
    return PodPlan(
        stage="serve",
        config_map=config(run)["metadata"]["name"],
        grace_seconds=GRACE_SECONDS,
        restart_policy="Always",
        gpus=serve.gpus,
        read_only_workspace=True,
        shared_memory=True,  # the processes of one pod, a GPU each, talk through it
        program=Program(
            image=_image(run, settings),
            command=("vllm", "serve"),
            args=(*arguments(run, merged), *(serve.args or ())),
            env=_environment(load_seconds),
        ),
        env={"FALCON_MODEL": run.name},
        secret_env={API_KEY: serve.api_key_secret_ref} if serve.api_key_secret_ref else {},
        ports={"http": SERVE_PORT},
        probes=_probes(load_seconds),
        extra=near.extra,
    )


def arguments(run: FalconFineTune, merged: Artifact) -> tuple[str, ...]:
    """The arguments of `vllm serve` that the run's fields make."""
    serve = run.spec.serve
    shared = split(serve.gpus, run.status.model)
    names = [run.name, *([serve.alias] if serve.alias else [])]
    flags: list[tuple[str, object]] = [
        ("--host", "0.0.0.0"),
        ("--port", SERVE_PORT),
        ("--tensor-parallel-size", shared.tensor),
        ("--pipeline-parallel-size", shared.pipeline),
        ("--shutdown-timeout", DRAIN_SECONDS),
    ]
    if serve.max_model_length is not None:
        flags.append(("--max-model-len", serve.max_model_length))
    if serve.quantization != "none":
        flags.append(("--quantization", QUANTIZATIONS[serve.quantization]))
    told = [word for flag, value in flags for word in (flag, str(value))]
    return (str(WORKSPACE / merged.path), "--served-model-name", *names, *told)


def _image(run: FalconFineTune, settings: StageSettings) -> str:
    """`podTemplate.all.image` is not asked: it stands for the trainer image."""
    templates = run.spec.pod_template
    own = templates.serve.image if templates and templates.serve else None
    return own or settings.vllm_image


def _environment(load_seconds: int) -> dict[str, str]:
    return CACHES | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # The API waits for its engine, 600 s by default: less than 360 GB of weights take from a slow volume.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(load_seconds),
    }


def _probes(load_seconds: int) -> Manifest:
    """All by a completion of one token. A server that gives nobody a token for ten minutes is restarted; one that is
    merely busy never is, and stays ready.
    """

    def ask(question: str, *, period: int, timeout: int, failures: int) -> Manifest:
        return {
            "exec": {"command": ["python3", str(CONFIG.with_name(PROBE_FILE)), question]},
            "periodSeconds": period,
            "timeoutSeconds": timeout,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": ask("started", period=10, timeout=30, failures=load_seconds // 10),
        "readinessProbe": ask("ready", period=20, timeout=40, failures=3),
        "livenessProbe": ask("alive", period=60, timeout=58, failures=10),
        "lifecycle": {"preStop": {"sleep": {"seconds": LINGER_SECONDS}}},
    }
