"""What the operator is told by its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

from falcon_operator.stages.settings import VLLM_IMAGE

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class SettingsError(ValueError):
    """The environment is unusable; the text says which variable and why."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One field for each variable that the chart sets."""

    trainer_image: str
    vllm_image: str = VLLM_IMAGE
    image_pull_policy: PullPolicy = "IfNotPresent"
    namespaces: tuple[str, ...] = ()
    """Namespaces to act in; empty means all."""
    log_level: str = "INFO"
    pod_name: str = "falcon-operator"
    pod_namespace: str = "default"
    lease: str = "falcon-operator"
    workers: int = 8
    """Looks at runs that are under way at once; they wait for the API server, not for the CPU."""
    address: str = "0.0.0.0"
    port: int = 8081
    resync_seconds: float = 600.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises SettingsError."""

        def given(name: str, default: str) -> str:
            return environment.get(name, "").strip() or default

        image = given("FALCON_TRAINER_IMAGE", "")
        if not image:
            raise SettingsError("FALCON_TRAINER_IMAGE is not set: name the image that the stages' pods run")
        policy = given("FALCON_IMAGE_PULL_POLICY", cls.image_pull_policy)
        if policy not in get_args(PullPolicy):
            raise SettingsError(f"FALCON_IMAGE_PULL_POLICY is {policy!r}: use one of {', '.join(get_args(PullPolicy))}")
        level = given("FALCON_LOG_LEVEL", cls.log_level).upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingsError(f"FALCON_LOG_LEVEL is {level!r}: use DEBUG, INFO, WARNING or ERROR")
        names = given("FALCON_NAMESPACES", "").split(",")
        return cls(
            trainer_image=image,
            vllm_image=given("FALCON_VLLM_IMAGE", cls.vllm_image),
            image_pull_policy=policy,  # type: ignore[arg-type]  # checked above
            namespaces=tuple(name.strip() for name in names if name.strip()),
            log_level=level,
            pod_name=given("POD_NAME", cls.pod_name),
            pod_namespace=given("POD_NAMESPACE", cls.pod_namespace),
            lease=given("FALCON_LEASE", cls.lease),
            workers=_positive(given("FALCON_WORKERS", str(cls.workers)), "FALCON_WORKERS"),
            address=given("FALCON_HEALTH_ADDRESS", cls.address),
            port=_positive(given("FALCON_HEALTH_PORT", str(cls.port)), "FALCON_HEALTH_PORT"),
            resync_seconds=float(_positive(given("FALCON_RESYNC_SECONDS", "600"), "FALCON_RESYNC_SECONDS")),
        )


def _positive(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{name} is {text!r}: give a whole number of at least 1")
    return int(text)
