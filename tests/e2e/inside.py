"""Runs a script of `pods/` inside the cluster and returns the JSON object that it prints."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from examples.demo.inputs import pod
from examples.demo.kube import Kubectl, KubectlError

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
    name = _start(kubectl, script, arguments, claims or {}, writable=writable)
    return _result(kubectl, name, script, timeout)


class Background:
    """Runs `pods/SCRIPT` until it is told to stop by the file /tmp/stop; entered, it has printed its first line."""

    def __init__(self, kubectl: Kubectl, script: str, *arguments: str) -> None:
        self._kubectl, self._script, self._arguments = kubectl, script, arguments

    def __enter__(self) -> Self:
        self._name = _start(self._kubectl, self._script, self._arguments, {}, writable=False)
        self._kubectl.wait_for(f"{self._script} to begin", lambda: bool(self._log()), timeout=240)
        return self

    def __exit__(self, *_: object) -> None:
        self._kubectl("delete", "pod", self._name, "--ignore-not-found", "--wait=false")

    def wait_for(self, line: str) -> None:
        """Waits until it has printed this line."""
        self._kubectl.wait_for(f"{line!r} of {self._script}", lambda: line in self._log().splitlines(), timeout=240)

    def result(self) -> dict[str, Any]:
        """Tells it to stop; the JSON object that it prints then."""
        self._kubectl("exec", self._name, "--", "touch", "/tmp/stop")
        return _result(self._kubectl, self._name, self._script, 240)

    def _log(self) -> str:
        try:
            return self._kubectl("logs", self._name)
        except KubectlError:  # its container is not there yet
            return ""


def _start(
    kubectl: Kubectl, script: str, arguments: Sequence[str], claims: Mapping[str, str], *, writable: bool
) -> str:
    name = f"test-{script.removesuffix('.py').replace('_', '-')}"
    text = (SCRIPTS / script).read_text()
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {script: text}})
    manifest = pod(name, ["python", f"/script/{script}", *arguments], writable=False)
    mounts, volumes = manifest["spec"]["containers"][0]["volumeMounts"], manifest["spec"]["volumes"]
    mounts.append({"name": "script", "mountPath": "/script"})
    volumes.append({"name": "script", "configMap": {"name": name}})
    for number, (path, claim) in enumerate(claims.items()):
        mounts.append({"name": f"claim-{number}", "mountPath": path, "readOnly": not writable})
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}})
    kubectl("delete", "pod", name, "--ignore-not-found", "--wait")
    kubectl.apply(manifest)
    return name


def _result(kubectl: Kubectl, name: str, script: str, timeout: float) -> dict[str, Any]:
    def phase() -> str:
        return str((kubectl.get("pod", name) or {}).get("status", {}).get("phase", ""))

    kubectl.wait_for(f"pod {name} to end", lambda: phase() in ("Succeeded", "Failed"), timeout=timeout)
    log = kubectl("logs", name)
    assert phase() == "Succeeded", f"{script} failed in its pod:\n{log}"
    result: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    return result
