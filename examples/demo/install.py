"""Installs the operator's Helm chart with the images that make built."""

import os

from examples.demo.inputs import REPOSITORY, trainer_image
from examples.demo.kube import Kubectl, command

OPERATOR_NAMESPACE, RELEASE = "falcon-system", "falcon-operator"


def image_values(prefix: str, image: str) -> list[str]:
    """Helm's --set words of one image `repository:tag`."""
    repository, _, tag = image.rpartition(":")
    return ["--set", f"{prefix}.repository={repository}", "--set-string", f"{prefix}.tag={tag}"]


def install_operator() -> None:
    """Installs or upgrades the release and waits until it is rolled out."""
    Kubectl(OPERATOR_NAMESPACE).ensure_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    words = ["helm", "upgrade", "--install", RELEASE, str(REPOSITORY / "deploy" / "chart" / "falcon-operator")]
    words += ["--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "3m"]
    words += image_values("image", os.environ["FALCON_OPERATOR_IMAGE"])
    command(*words, *image_values("trainerImage", trainer_image()))
