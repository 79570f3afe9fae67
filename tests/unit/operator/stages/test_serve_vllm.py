"""The server with vLLM: the whole manifest for Falcon-180B on eight GPUs, and what changes it."""

from typing import Any

import pytest

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import FalconFineTuneStatus, ModelStatus
from falcon_operator.stages import serve
from falcon_operator.stages.manifest import Manifest
from falcon_operator.stages.settings import StageSettings
from falcon_trainer.config import Artifact
from tests.unit.operator.api.runs import MERGED, a_run

SETTINGS = StageSettings(image="registry.example/falcon-trainer:1")
FALCON_180B = ModelStatus(attention_heads=232, key_value_heads=8, layers=80)
RUN = "falcon-finetune.dev/run"
STAGE = "falcon-finetune.dev/stage"
SPEC: dict[str, Any] = {
    "model": {"source": "hf://tiiuae/falcon-180B", "tokenSecretRef": {"name": "hub", "key": "token"}},
    "gang": {"nodes": 2, "gpusPerNode": 8},
    "serve": {
        "gpus": 8,
        "replicas": 2,
        "alias": "assistant",
        "maxModelLength": 2048,
        "quantization": "fp8",
        "args": ["--max-num-seqs", "64"],
        "apiKeySecretRef": {"name": "endpoint", "key": "token"},
    },
    "workspace": {"size": "1Ti", "accessMode": "ReadWriteMany"},
    "podTemplate": {
        "all": {"image": "registry.example/my-trainer:2", "nodeSelector": {"zone": "a"}},
        "serve": {"resources": {"requests": {"cpu": "16", "memory": "400Gi"}}},
    },
}


def falcon_180b(**changes: Any) -> FalconFineTune:
    run = a_run("big", **(SPEC | changes))
    return run.model_copy(update={"status": FalconFineTuneStatus(model=FALCON_180B)})


def deployment(run: FalconFineTune, merged: Artifact = MERGED) -> Manifest:
    return serve.serve_deployment(run, SETTINGS, merged)


def container(run: FalconFineTune) -> Manifest:
    (only,) = deployment(run)["spec"]["template"]["spec"]["containers"]
    found: Manifest = only
    return found


def env(run: FalconFineTune) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(run)["env"]}


def completion(question: str) -> Manifest:
    return {"exec": {"command": ["python3", "/etc/falcon/probe.py", question]}}


def test_falcon_180b_on_eight_gpus_field_by_field() -> None:
    """Not run on a GPU: this is what the API server is given."""
    run = falcon_180b()
    labels = {RUN: "big", STAGE: "serve"}
    all_labels = labels | {
        "app.kubernetes.io/name": "falcon-finetune",
        "app.kubernetes.io/instance": "big",
        "app.kubernetes.io/managed-by": "falcon-operator",
        "app.kubernetes.io/component": "serve",
    }
    made = deployment(run)
    config = serve.serve_config(run, MERGED)["metadata"]["name"]
    assert (made["apiVersion"], made["kind"]) == ("apps/v1", "Deployment")
    assert (made["metadata"]["name"], made["metadata"]["labels"]) == ("big-serve", all_labels)
    spec = made["spec"]
    template = spec.pop("template")
    assert spec == {
        "replicas": 2,
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 3900,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": labels},
    }
    assert template["metadata"] == {"labels": all_labels}
    pod = template["spec"]
    (only,) = pod.pop("containers")
    assert pod == {
        "restartPolicy": "Always",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 150,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [
            {"name": "falcon-workspace", "persistentVolumeClaim": {"claimName": "big-workspace"}},
            {"name": "falcon-config", "configMap": {"name": config}},
            {"name": "falcon-tmp", "emptyDir": {}},
            {"name": "falcon-shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    told = {each["name"]: each.get("value", each.get("valueFrom")) for each in only.pop("env")}
    assert told == {
        "HOME": "/tmp",
        "USER": "falcon",
        "XDG_CACHE_HOME": "/tmp/.cache",
        "XDG_CONFIG_HOME": "/tmp/.config",
        "HF_HOME": "/tmp/.cache/huggingface",
        "VLLM_CACHE_ROOT": "/tmp/.cache/vllm",
        "VLLM_CONFIG_ROOT": "/tmp/.config/vllm",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/.cache/inductor",
        "TRITON_CACHE_DIR": "/tmp/.cache/triton",
        "FLASHINFER_WORKSPACE_BASE": "/tmp",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
        "FALCON_MODEL": "big",
        "VLLM_API_KEY": {"secretKeyRef": {"name": "endpoint", "key": "token"}},
    }
    assert only == {
        "name": "stage",
        "image": "vllm/vllm-openai:v0.32.0",
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve"],
        "args": [
            *(f"/workspace/{MERGED.path}", "--served-model-name", "big", "assistant"),
            *("--host", "0.0.0.0", "--port", "8000"),
            *("--tensor-parallel-size", "8", "--pipeline-parallel-size", "1"),
            *("--shutdown-timeout", "120", "--max-model-len", "2048", "--quantization", "fp8_per_tensor"),
            *("--max-num-seqs", "64"),
        ],
        "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
        "volumeMounts": [
            {"name": "falcon-workspace", "mountPath": "/workspace", "readOnly": True},
            {"name": "falcon-config", "mountPath": "/etc/falcon", "readOnly": True},
            {"name": "falcon-tmp", "mountPath": "/tmp"},
            {"name": "falcon-shm", "mountPath": "/dev/shm"},
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "16", "memory": "400Gi"}, "limits": {"nvidia.com/gpu": 8}},
        "startupProbe": completion("started") | {"periodSeconds": 10, "timeoutSeconds": 30, "failureThreshold": 360},
        "readinessProbe": completion("ready") | {"periodSeconds": 20, "timeoutSeconds": 40, "failureThreshold": 3},
        "livenessProbe": completion("alive") | {"periodSeconds": 60, "timeoutSeconds": 58, "failureThreshold": 10},
        "lifecycle": {"preStop": {"sleep": {"seconds": 15}}},
    }


def test_the_hub_token_and_our_launcher_stay_out_of_it() -> None:
    assert "hub" not in [each["name"] for each in deployment(falcon_180b())["spec"]["template"]["spec"]["volumes"]]
    assert list(serve.serve_config(falcon_180b(), MERGED)["data"]) == ["probe.py"]


def test_a_plain_server_is_told_no_more_than_it_needs() -> None:
    run = a_run("small", serve={"gpus": 1})
    assert container(run)["args"] == [
        *(f"/workspace/{MERGED.path}", "--served-model-name", "small", "--host", "0.0.0.0", "--port", "8000"),
        *("--tensor-parallel-size", "1", "--pipeline-parallel-size", "1", "--shutdown-timeout", "120"),
    ]
    assert "VLLM_API_KEY" not in env(run)


def test_the_runs_own_image_goes_before_upstreams() -> None:
    assert container(falcon_180b(podTemplate={"serve": {"image": "mine/vllm:1"}}))["image"] == "mine/vllm:1"
    named = StageSettings(image="t", vllm_image="mirror/vllm:2")
    made = serve.serve_deployment(falcon_180b(), named, MERGED)["spec"]["template"]["spec"]
    assert made["containers"][0]["image"] == "mirror/vllm:2"


def test_folders_for_caches_may_be_replaced_and_the_rest_may_not() -> None:
    own = [{"name": "VLLM_CACHE_ROOT", "value": "/cache"}, {"name": "VLLM_API_KEY", "value": "x"}]
    told = env(falcon_180b(podTemplate={"serve": {"env": own}}))
    assert told["VLLM_CACHE_ROOT"] == "/cache"
    assert told["VLLM_API_KEY"] == {"secretKeyRef": {"name": "endpoint", "key": "token"}}


def test_a_server_of_ours_is_given_the_token_too() -> None:
    run = a_run(serve={"apiKeySecretRef": {"name": "endpoint", "key": "token"}})
    assert env(run)["FALCON_API_KEY"] == {"secretKeyRef": {"name": "endpoint", "key": "token"}}
    assert "secretKeyRef" not in str(serve.serve_config(run, MERGED))
    assert "FALCON_API_KEY" not in env(a_run())


def template(run: FalconFineTune, merged: Artifact = MERGED) -> Manifest:
    found: Manifest = deployment(run, merged)["spec"]["template"]
    return found


ROLLED: dict[str, tuple[dict[str, Any], bool]] = {
    "args": ({"args": ["--max-waiting", "8"]}, True),
    "the alias, which is a model's name": ({"alias": "desk"}, True),
    "the length": ({"maxModelLength": 512}, True),
    "the token's Secret": ({"apiKeySecretRef": {"name": "other", "key": "token"}}, True),
    "the number of replicas": ({"replicas": 3}, False),
}


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("name", ROLLED)
def test_what_rolls_a_server_out(name: str, gpus: int) -> None:
    changes, rolls = ROLLED[name]
    shared = {"accessMode": "ReadWriteMany"}
    before = a_run(serve={"gpus": gpus}, workspace=shared)
    after = a_run(serve={"gpus": gpus} | changes, workspace=shared)
    assert (template(before) != template(after)) is rolls


@pytest.mark.parametrize("gpus", [0, 1])
def test_another_model_rolls_a_server_out(gpus: int) -> None:
    other = Artifact(path="runs/support-bot/merged/0c", digest=f"sha256:{'0c' * 32}", bytes=2)
    run = a_run(serve={"gpus": gpus})
    assert template(run) != template(run, other)


def test_replicas_stand_outside_the_hash() -> None:
    shared = {"accessMode": "ReadWriteMany"}
    made = [deployment(a_run(serve={"replicas": count}, workspace=shared)) for count in (1, 2)]
    assert [each["spec"]["replicas"] for each in made] == [1, 2]
    assert len({each["metadata"]["annotations"]["falcon-finetune.dev/hash"] for each in made}) == 1


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_volume_of_one_node_gets_the_new_server_beside_the_old_one(gpus: int) -> None:
    alone = template(a_run(serve={"gpus": gpus}))["spec"]
    (term,) = alone["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term == {"labelSelector": {"matchLabels": {RUN: "support-bot"}}, "topologyKey": "kubernetes.io/hostname"}
    shared = template(a_run(serve={"gpus": gpus}, workspace={"accessMode": "ReadWriteMany"}))["spec"]
    assert "affinity" not in shared


def test_drains_take_one_replica_at_a_time() -> None:
    run = a_run()
    assert serve.serve_budget(run)["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": deployment(run)["spec"]["selector"]["matchLabels"]},
    }
