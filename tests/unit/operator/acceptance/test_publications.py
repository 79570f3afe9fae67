"""What is published, and where to: what is refused before the first child exists."""

from typing import Any

import pytest

from falcon_operator.policy.acceptance import problems
from tests.unit.operator.api.runs import a_run

TARGETS = ["hf://acme/support-bot", "hf://acme/support-bot@v2", "s3://models/support-bot", "pvc://models/support-bot"]
ADAPTER_ONLY = {"merge": {"enabled": False}, "serve": {"enabled": False}}


def publishing(*publications: dict[str, Any], **spec: Any) -> list[tuple[str, str]]:
    """Path and sentence of each problem of a run that publishes this."""
    return [(found.path, found.sentence) for found in problems(a_run(publish=list(publications), **spec))]


def test_every_kind_of_target_is_accepted() -> None:
    assert publishing(*({"uri": uri} for uri in TARGETS)) == []
    assert publishing({"uri": TARGETS[0], "what": "adapter"}, **ADAPTER_ONLY) == []
    assert publishing({"uri": TARGETS[0], "private": False, "secretName": "hub"}) == []
    assert publishing({"uri": TARGETS[2], "secretName": "bucket"}, {"uri": "s3://models/other"}) == []


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a repository without an owner": ({"uri": "hf://support-bot"}, "uri", "write hf://OWNER/NAME"),
    "a part of a repository": ({"uri": "hf://acme/bot/merged"}, "uri", "a whole repository"),
    "a bucket without a folder": ({"uri": "s3://models"}, "uri", "write s3://BUCKET/PATH"),
    "a claim without a folder": ({"uri": "pvc://models/"}, "uri", "write pvc://CLAIM/PATH"),
    "a folder outside the claim": ({"uri": "pvc://models/../x"}, "uri", "must stay inside the claim"),
    "the run's own workspace": ({"uri": "pvc://support-bot-workspace/x"}, "uri", "the run's own workspace"),
    "credentials for a claim": ({"uri": "pvc://models/x", "secretName": "s"}, "secretName", "needs no credentials"),
    "a bucket that is to be public": ({"uri": "s3://models/x", "private": False}, "private", "only a repository"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_publication_that_cannot_be_made_is_refused(name: str) -> None:
    publication, field, words = REFUSED[name]
    ((path, sentence),) = publishing(publication)
    assert path == f"spec.publish[0].{field}"
    assert words in sentence


def test_a_merged_model_needs_a_merge() -> None:
    ((path, sentence),) = publishing({"uri": TARGETS[0]}, **ADAPTER_ONLY)
    assert path == "spec.publish[0].what"
    assert "merge.enabled" in sentence


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://models/bot", "s3://models/bot"),
        ("s3://models/bot", "s3://models/bot/"),
        ("s3://models/bot", "s3://models/bot/adapter"),
        ("s3://models/bot/adapter", "s3://models/bot"),
        ("pvc://shelf/bot", "pvc://shelf/./bot"),
        ("hf://acme/bot", "hf://acme/bot@main"),
    ],
)
def test_two_copies_never_lie_in_each_other(one: str, other: str) -> None:
    found = publishing({"uri": one}, {"uri": other, "what": "adapter"})
    assert ("spec.publish[1].uri", True) in [(path, "lie in each other" in sentence) for path, sentence in found]


def test_copies_beside_each_other_are_accepted() -> None:
    uris = ["s3://models/bot", "s3://models/bot-2", "pvc://models/bot", "hf://acme/bot", "hf://acme/bot@v2"]
    assert publishing(*({"uri": uri} for uri in uris)) == []


@pytest.mark.parametrize("path", ["/published", "/published/models/x", "/etc/falcon-publish"])
def test_a_volume_leaves_the_places_of_the_publish_stage_alone(path: str) -> None:
    volume = {"name": "x", "mountPath": path, "source": {"emptyDir": {}}}
    ((_, sentence),) = publishing(podTemplate={"publish": {"volumes": [volume]}})
    assert "which the stage needs" in sentence


def test_a_target_claim_is_not_mounted_a_second_time() -> None:
    volume = {"name": "x", "mountPath": "/x", "source": {"persistentVolumeClaim": {"claimName": "models"}}}
    ((path, sentence),) = publishing({"uri": "pvc://models/x"}, podTemplate={"publish": {"volumes": [volume]}})
    assert path == "spec.podTemplate.publish.volumes[0].source"
    assert "'models' is mounted by the run already" in sentence
