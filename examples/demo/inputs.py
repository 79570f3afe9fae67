"""The demo's inputs on a claim: a small Falcon base model and a few records.

A claim is what a user has: weights and data that lie in the cluster. A pod that mounts it receives the files and makes
the base model; it needs nothing but the trainer's image.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from examples.demo.kube import Kubectl, Manifest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
CLAIM = "falcon-inputs"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
FILLED = "falcon-finetune.dev/demo-filled"
"""Annotation of a claim that holds everything."""
RECORDS = 8

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def trainer_image() -> str:
    """The trainer's image; make sets it from what it built and loaded."""
    return os.environ["FALCON_TRAINER_IMAGE"]


def short_records(path: Path, count: int = RECORDS) -> Sequence[Manifest]:
    """The `count` shortest records without context: quick to learn by heart. Their order is the file's."""
    records = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    plain = [(len(r["instruction"]) + len(r["response"]), i) for i, r in enumerate(records) if not r["context"]]
    return [records[i] for i in sorted(i for _, i in sorted(plain)[:count])]


def demo_records() -> Sequence[Manifest]:
    """Records of Dolly where they lie beside the checkout, else records of our own."""
    dolly = SHARED / "dolly-sample.jsonl"
    return short_records(dolly if dolly.exists() else REPOSITORY / "examples" / "data" / "dolly-mini.jsonl")


def claim(name: str = CLAIM, size: str = "2Gi") -> Manifest:
    """A claim that pods on every node can mount."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
    }


def pod(name: str, command: Sequence[str], *, writable: bool, token: bool = False) -> Manifest:
    """A pod of the trainer's image with the inputs at /inputs; admitted under the *restricted* profile."""
    container = {
        "name": "main",
        "image": trainer_image(),
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "HF_HUB_OFFLINE", "value": "1"}],
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "inputs", "mountPath": "/inputs", "readOnly": not writable},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    volumes = [
        {"name": "inputs", "persistentVolumeClaim": {"claimName": CLAIM}},
        {"name": "tmp", "emptyDir": {}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": token,
            "securityContext": POD_SECURITY,
            "containers": [container],
            "volumes": volumes,
        },
    }


def wait_running(kubectl: Kubectl, name: str) -> None:
    """Waits until the pod runs, and says why where it cannot."""
    try:
        kubectl("wait", "--for=jsonpath={.status.phase}=Running", f"pod/{name}", "--timeout=180s")
    except Exception as error:
        raise RuntimeError(f"pod {name} does not start:\n{kubectl('describe', 'pod', name)}") from error


def files_for(folder: Path, extra: dict[str, str]) -> None:
    """Lays out what is copied onto the claim: the records, further files of `extra` (name → text), the tokenizer."""
    lines = [json.dumps(record, ensure_ascii=False) for record in demo_records()]
    (folder / "dolly-tiny.jsonl").write_text("\n".join(lines) + "\n")
    for name, text in extra.items():
        (folder / name).write_text(text)
    tokenizer = SHARED / "falcon-tokenizer"
    if tokenizer.exists():
        (folder / "tokenizer").mkdir()
        for path in tokenizer.iterdir():
            (folder / "tokenizer" / path.name).write_bytes(path.read_bytes())


def prepare_inputs(kubectl: Kubectl, extra: dict[str, str] | None = None) -> bool:
    """Makes the claim and fills it with records and a base model; False where it is filled already."""
    present = kubectl.get("persistentvolumeclaim", CLAIM)
    if present and FILLED in present["metadata"].get("annotations", {}):
        return False
    kubectl.apply(claim())
    kubectl("delete", "pod", CLAIM, "--ignore-not-found", "--wait")
    kubectl.apply(pod(CLAIM, ["python", "-c", "import signal; signal.pause()"], writable=True))
    wait_running(kubectl, CLAIM)
    with tempfile.TemporaryDirectory() as folder:
        files_for(Path(folder), extra or {})
        for path in sorted(Path(folder).iterdir()):
            kubectl("cp", str(path), f"{CLAIM}:/inputs/{path.name}")
    tokenizer = ["--tokenizer", "/inputs/tokenizer"] if (SHARED / "falcon-tokenizer").exists() else []
    records = [] if tokenizer else ["--records", "/inputs/dolly-tiny.jsonl"]
    kubectl("exec", CLAIM, "--", "python", "-m", "falcon_trainer.tiny", "/inputs/base", *tokenizer, *records)
    kubectl("delete", "pod", CLAIM, "--wait=false")
    kubectl("annotate", "persistentvolumeclaim", CLAIM, f"{FILLED}=true")
    return True
