"""Runs for the tests: a small valid spec, with parts of it changed."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from falcon_operator.api.resource import FalconFineTune
from falcon_trainer.config import Artifact

REPOSITORY = Path(__file__).resolve().parents[4]

MINIMAL: dict[str, Any] = {
    "model": {"source": "pvc://inputs/base"},
    "dataset": {"sources": [{"uri": "pvc://inputs/records.jsonl"}]},
    "workspace": {"size": "2Gi"},
}
ADAPTER = Artifact(path="runs/support-bot/adapter/0a", digest=f"sha256:{'0a' * 32}", bytes=1)
MERGED = Artifact(path="runs/support-bot/merged/0b", digest=f"sha256:{'0b' * 32}", bytes=2)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `below` with `above` laid over it, mapping by mapping."""
    found = copy.deepcopy(dict(below))
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = laid_over(found[key], value) if both else copy.deepcopy(value)
    return found


def resource(name: str = "support-bot", /, **changes: Any) -> dict[str, Any]:
    """A FalconFineTune as the API server sends it: the minimal spec with `changes` laid over it."""
    return {
        "apiVersion": "falcon-finetune.dev/v1alpha1",
        "kind": "FalconFineTune",
        "metadata": {"name": name, "namespace": "ml", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1},
        "spec": laid_over(MINIMAL, changes),
    }


def a_run(name: str = "support-bot", /, **changes: Any) -> FalconFineTune:
    """The typed form of `resource`."""
    return FalconFineTune.parse(resource(name, **changes))
