"""What is refused before the first child exists: each case names the field and says what to do."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.policy.acceptance import problems
from tests.unit.operator.api.runs import REPOSITORY, a_run

HUB = {"source": "hf://tiiuae/falcon-7b"}


def dataset(uri: str) -> dict[str, Any]:
    return {"dataset": {"sources": [{"uri": uri}]}}


def volume(**fields: Any) -> dict[str, Any]:
    filled = {"name": "cache", "mountPath": "/cache", "source": {"emptyDir": {}}} | fields
    return {"podTemplate": {"train": {"volumes": [filled]}}}


def variable(name: str) -> dict[str, Any]:
    return {"podTemplate": {"train": {"env": [{"name": name, "value": "1"}]}}}


Case = tuple[Mapping[str, Any], str, str]

REFUSED: dict[str, Case] = {
    "a batch that cannot be shared out": (
        {"training": {"globalBatchSize": 7, "microBatchSize": 2}, "gang": {"nodes": 2, "gpusPerNode": 0}},
        "spec.training.globalBatchSize",
        "microBatchSize × nodes × processes = 2 × 2 × 1 = 4; the nearest that fit: 4 or 8",
    ),
    "a batch smaller than one micro-batch of each rank": (
        {"training": {"globalBatchSize": 4}, "gang": {"nodes": 1, "gpusPerNode": 8}},
        "spec.training.globalBatchSize",
        "the nearest that fit: 8",
    ),
    "a warm-up that never ends": (
        {"training": {"maxSteps": 10, "warmupSteps": 10}},
        "spec.training.warmupSteps",
        "keep it below maxSteps (10)",
    ),
    "a path that leaves the claim": (
        dataset("pvc://inputs/../other/records.jsonl"),
        "spec.dataset.sources[0].uri",
        "must stay inside the claim",
    ),
    "an absolute path behind the claim": (dataset("pvc://inputs//etc/passwd"), "spec.dataset.sources[0].uri", "inside"),
    "a claim that cannot exist": (dataset("pvc://My_Claim/x"), "spec.dataset.sources[0].uri", "'My_Claim' is no name"),
    "no claim at all": ({"model": {"source": "pvc:///base"}}, "spec.model.source", "write pvc://CLAIM/PATH"),
    "a model of the Hub without an owner": ({"model": {"source": "hf://falcon-7b"}}, "spec.model.source", "OWNER/NAME"),
    "a branch in the source": ({"model": {"source": "hf://tiiuae/falcon-7b@main"}}, "spec.model.source", "revision"),
    "a revision of a model on a claim": ({"model": {"revision": "main"}}, "spec.model.revision", "leave it out"),
    "a token for a model on a claim": (
        {"model": {"tokenSecretRef": {"name": "hub", "key": "token"}}},
        "spec.model.tokenSecretRef",
        "leave it out",
    ),
    "a layer that Falcon does not have": (
        {"lora": {"targetModules": ["dense", "q_proj"]}},
        "spec.lora.targetModules[1]",
        "'q_proj' is no linear layer of a Falcon block; choose from query_key_value, dense",
    ),
    "more ranks than GPUs": (
        {"gang": {"gpusPerNode": 2, "processesPerNode": 4}},
        "spec.gang.processesPerNode",
        "4 processes cannot share 2 GPUs",
    ),
    "flash attention on a CPU": (
        {"gang": {"gpusPerNode": 0}, "training": {"attention": "flash-attention"}},
        "spec.training.attention",
        "use auto or sdpa",
    ),
    "several nodes on a volume of one": (
        {"gang": {"nodes": 2}, "workspace": {"accessMode": "ReadWriteOnce"}},
        "spec.workspace.accessMode",
        "use ReadWriteMany",
    ),
    "several servers on a volume of one node": (
        {"serve": {"replicas": 2}, "workspace": {"accessMode": "ReadWriteOnce"}},
        "spec.workspace.accessMode",
        "2 server replicas",
    ),
    "a label that children are found by": (
        {"podTemplate": {"all": {"labels": {"falcon-finetune.dev/run": "x"}}}},
        "spec.podTemplate.all.labels[falcon-finetune.dev/run]",
        "is set by the operator",
    ),
    "a label of the Job controller": (
        {"podTemplate": {"train": {"labels": {"batch.kubernetes.io/job-name": "x"}}}},
        "spec.podTemplate.train.labels[batch.kubernetes.io/job-name]",
        "is set by the operator",
    ),
    "a label value with spaces": (
        {"podTemplate": {"train": {"labels": {"team": "n l p"}}}},
        "spec.podTemplate.train.labels[team]",
        "is no label value",
    ),
    "a node selector's key with spaces": (
        {"podTemplate": {"serve": {"nodeSelector": {"my pool": "gpu"}}}},
        "spec.podTemplate.serve.nodeSelector[my pool]",
        "is no key",
    ),
    "a variable of the launcher": (variable("FALCON_ATTEMPT"), "spec.podTemplate.train.env[0].name", "leave it out"),
    "a variable of torchrun": (variable("PET_NNODES"), "spec.podTemplate.train.env[0].name", "leave it out"),
    "a rank's variable": (variable("WORLD_SIZE"), "spec.podTemplate.train.env[0].name", "leave it out"),
    "a variable that is given twice": (
        {"podTemplate": {"all": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}}},
        "spec.podTemplate.all.env[1].name",
        "A is given twice",
    ),
    "GPUs in the template": (
        {"podTemplate": {"train": {"resources": {"limits": {"nvidia.com/gpu": 8}}}}},
        "spec.podTemplate.train.resources.limits[nvidia.com/gpu]",
        "gang.gpusPerNode",
    ),
    "a volume with a name of ours": (volume(name="falcon-tmp"), "spec.podTemplate.train.volumes[0].name", "belong to"),
    "a volume over the workspace": (
        volume(mountPath="/workspace"),
        "spec.podTemplate.train.volumes[0].mountPath",
        "/workspace, which the stage needs",
    ),
    "a volume inside the sources": (
        volume(mountPath="/sources/inputs/x"),
        "spec.podTemplate.train.volumes[0].mountPath",
        "/sources",
    ),
    "a volume over what the stage is told": (
        volume(mountPath="/etc/"),
        "spec.podTemplate.train.volumes[0].mountPath",
        "/etc/falcon",
    ),
    "a volume over everything": (volume(mountPath="//"), "spec.podTemplate.train.volumes[0].mountPath", "hide"),
    "a volume at a path with dots": (
        volume(mountPath="/cache/../workspace"),
        "spec.podTemplate.train.volumes[0].mountPath",
        "plain absolute path",
    ),
    "a claim that the run mounts already": (
        volume(source={"persistentVolumeClaim": {"claimName": "inputs"}}),
        "spec.podTemplate.train.volumes[0].source",
        "the claim 'inputs' is mounted by the run already",
    ),
    "two volumes at one path": (
        {
            "podTemplate": {
                "all": {"volumes": [{"name": "a", "mountPath": "/cache", "source": {"emptyDir": {}}}]},
                "merge": {"volumes": [{"name": "b", "mountPath": "/cache/", "source": {"emptyDir": {}}}]},
            }
        },
        "spec.podTemplate.merge.volumes",
        "two volumes are mounted at /cache",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    changes, path, words = REFUSED[name]
    (problem,) = problems(a_run(**changes))
    assert problem.path == path
    assert words in problem.sentence


ACCEPTED: dict[str, Mapping[str, Any]] = {
    "the smallest spec there is": {},
    "a model of the Hub with revision and token": {
        "model": HUB | {"revision": "main", "tokenSecretRef": {"name": "hub", "key": "token"}}
    },
    "a whole claim of records": dataset("pvc://inputs"),
    "a name with dots in a path": dataset("pvc://inputs/a..b/c.jsonl"),
    "fewer ranks than GPUs": {"gang": {"gpusPerNode": 8, "processesPerNode": 4}},
    "several ranks on a CPU node": {"gang": {"gpusPerNode": 0, "processesPerNode": 4}},
    "a volume of one node without a server": {
        "serve": {"enabled": False, "replicas": 2},
        "workspace": {"accessMode": "ReadWriteOnce"},
    },
    "a volume in the place of our scratch": volume(mountPath="/tmp"),
    "a volume beside ours": volume(mountPath="/workspace-cache"),
    "another claim": volume(source={"persistentVolumeClaim": {"claimName": "cache"}}),
    "a stage's volume that replaces the one of all": {
        "podTemplate": {
            "all": {"volumes": [{"name": "a", "mountPath": "/cache", "source": {"emptyDir": {}}}]},
            "merge": {"volumes": [{"name": "a", "mountPath": "/cache", "source": {"emptyDir": {}}}]},
        }
    },
    "labels, variables and resources of the user's": {
        "podTemplate": {
            "all": {
                "labels": {"team": "nlp", "example.com/cost-center": "", "kueue.x-k8s.io/priority-class": "low"},
                "annotations": {"example.com/note": "any text, with spaces"},
                "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                "resources": {"limits": {"memory": "64Gi"}},
            }
        }
    },
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_is_accepted(name: str) -> None:
    assert problems(a_run(**ACCEPTED[name])) == []


@pytest.mark.parametrize("name", ["1abc", "a.b", "A", "a" * 41, "a-"])
def test_a_name_that_cannot_name_pods_is_refused(name: str) -> None:
    assert [problem.path for problem in problems(a_run(name))] == ["metadata.name"]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_accepted(path: Any) -> None:
    example = yaml.safe_load(path.read_text())
    example["metadata"] |= {"namespace": "ml", "uid": "u"}
    assert problems(FalconFineTune.parse(example)) == []


def test_all_problems_are_told_at_once() -> None:
    found = problems(a_run(**variable("RANK"), training={"globalBatchSize": 7, "microBatchSize": 2}))
    assert [problem.path for problem in found] == [
        "spec.training.globalBatchSize",
        "spec.podTemplate.train.env[0].name",
    ]


SIZES = st.integers(1, 64)


@given(batch=st.integers(1, 512), micro=SIZES, nodes=st.integers(1, 16), processes=st.integers(1, 8))
def test_the_batch_sizes_that_are_proposed_are_accepted(batch: int, micro: int, nodes: int, processes: int) -> None:
    def checked(size: int) -> list[str]:
        run = a_run(
            training={"globalBatchSize": size, "microBatchSize": micro},
            gang={"nodes": nodes, "gpusPerNode": 0, "processesPerNode": processes},
        )
        return [problem.sentence for problem in problems(run)]

    for sentence in checked(batch):
        assert batch % (micro * nodes * processes) != 0
        for proposed in sentence.rpartition("fit: ")[2].split(" or "):
            assert checked(int(proposed)) == []
