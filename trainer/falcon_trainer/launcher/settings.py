"""What the pod tells its launcher through the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from falcon_trainer.outcome import ExitCode, StageError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The launcher's place in the gang, and its patience."""

    node_rank: int = 0
    attempt: int = 0
    rendezvous_host: str | None = None
    rendezvous_seconds: float = 600.0
    """How long a pod waits for rank 0's pod: scheduling, image pull and DNS of the slowest pod are in it."""
    grace_seconds: float = 25.0
    """From SIGTERM to SIGKILL of the stage: below Kubernetes' default terminationGracePeriodSeconds of 30."""
    patience: Mapping[str, float] = field(default_factory=dict)
    """Limits of hang detection, by name, that replace the ones in `launcher.hang`."""


def read_settings(env: Mapping[str, str]) -> Settings:
    """Raises StageError where a variable is not what it should be."""
    return Settings(
        node_rank=int(_number(env, "JOB_COMPLETION_INDEX", 0)),
        attempt=int(_number(env, "FALCON_ATTEMPT", 0)),
        rendezvous_host=env.get("FALCON_RENDEZVOUS_HOST") or None,
        rendezvous_seconds=_number(env, "FALCON_RENDEZVOUS_SECONDS", Settings.rendezvous_seconds),
        grace_seconds=_number(env, "FALCON_GRACE_SECONDS", Settings.grace_seconds),
        patience=_patience(env),
    )


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    return _parsed(name, env.get(name) or str(default))


def _patience(env: Mapping[str, str]) -> dict[str, float]:
    """FALCON_PATIENCE, such as `load=7200,save=3600`."""
    entries = filter(None, (entry.strip() for entry in env.get("FALCON_PATIENCE", "").split(",")))
    pairs = (entry.partition("=")[::2] for entry in entries)
    return {name.strip(): _parsed(f"FALCON_PATIENCE, {name}", seconds) for name, seconds in pairs}


def _parsed(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise StageError(
            ExitCode.CONFIGURATION,
            "InvalidConfiguration",
            f"{name}={text!r} in the pod's environment is no number >= 0",
        )
    return number
