"""ReadWriteMany volumes by claim: Rancher's local-path provisioner over one folder that all nodes see.

The class is called `standard` and is the default one, on the local cluster as on kind (which ships the same
provisioner, set to one folder per node; `kind.py` sets it to the shared one).
"""

import json
from pathlib import Path
from typing import Any

from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import Process
from tests.cluster.shell import Word
from tests.cluster.tools import path_of

CLASS = "standard"
NAMESPACE = "local-path-storage"
_PROVISIONER = "rancher.io/local-path"
# hostPath volumes know no fsGroup: the folder must be writable for whatever user the pod runs as.
_SETUP = '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\nchmod 0777 "$VOL_DIR"\n'
_TEARDOWN = '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n'


def start(control_plane: ControlPlane, shared: Path, helper_image: str) -> Process:
    """Start the provisioner as a process of the host, unless it runs; volumes are folders in `shared`."""
    process = control_plane.process("local-path-provisioner")
    if not process.alive:
        shared.mkdir(parents=True, exist_ok=True)
        control_plane.kubectl.apply(*objects(shared))
        folder = control_plane.folder / "storage"
        folder.mkdir(exist_ok=True)
        helper = folder / "helperPod.yaml"
        helper.write_text(json.dumps(helper_pod(helper_image)))
        config = folder / "config.json"
        config.write_text(json.dumps({"sharedFileSystemPath": str(shared)}))
        kubeconfig = control_plane.component_kubeconfig("local-path-provisioner", "local-path", "system:masters")
        flags: list[Word] = [f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}", f"--config={config}"]
        flags += [f"--helper-image={helper_image}", f"--helper-pod-file={helper}", "--configmap-name=local-path-config"]
        flags += ["--service-account-name=default", f"--provisioner-name={_PROVISIONER}"]
        process.start([*control_plane.wrapper, path_of("local-path-provisioner"), "start", *flags])
    return process


def objects(shared: Path) -> list[dict[str, Any]]:
    """Namespace, scripts and class of the provisioner."""
    data = {
        "config.json": json.dumps({"sharedFileSystemPath": str(shared)}),
        "setup": _SETUP,
        "teardown": _TEARDOWN,
    }
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "local-path-config", "namespace": NAMESPACE},
            "data": data,
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CLASS, "annotations": default},
            "provisioner": _PROVISIONER,
            "reclaimPolicy": "Delete",
            # As on kind; the claim is bound when its first pod is scheduled.
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    ]


def helper_pod(image: str) -> dict[str, Any]:
    """The pod that makes or removes one folder."""
    container = {"name": "helper-pod", "image": image, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
