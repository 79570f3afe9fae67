"""Runs a script of `pods/` inside the cluster and returns the JSON object that it prints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.demo.inputs import pod
from examples.demo.kube import Kubectl

SCRIPTS = Path(__file__).parent / "pods"


def run_inside(
    kubectl: Kubectl,
    script: str,
    *arguments: str,
    claims: Mapping[str, str] | None = None,
    writable: bool = False,
    timeout: float = 240,
) -> dict[str, Any]:
    """Runs `pods/SCRIPT` to its end; `claims` maps mount paths to claims beside /inputs, which is never writable."""
    name = f"test-{script.removesuffix('.py').replace('_', '-')}"
    text = (SCRIPTS / script).read_text()
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {script: text}})
    manifest = pod(name, ["python", f"/script/{script}", *arguments], writable=False)
    mounts, volumes = manifest["spec"]["containers"][0]["volumeMounts"], manifest["spec"]["volumes"]
    mounts.append({"name": "script", "mountPath": "/script"})
    volumes.append({"name": "script", "configMap": {"name": name}})
    for number, (path, claim) in enumerate((claims or {}).items()):
        mounts.append({"name": f"claim-{number}", "mountPath": path, "readOnly": not writable})
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}})
    kubectl("delete", "pod", name, "--ignore-not-found", "--wait")
    kubectl.apply(manifest)

    def phase() -> str:
        return str((kubectl.get("pod", name) or {}).get("status", {}).get("phase", ""))

    kubectl.wait_for(f"pod {name} to end", lambda: phase() in ("Succeeded", "Failed"), timeout=timeout)
    log = kubectl("logs", name)
    assert phase() == "Succeeded", f"{script} failed in its pod:\n{log}"
    result: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    return result
