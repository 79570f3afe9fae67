"""Reading a resource, and what its words mean."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.api.resource import FalconFineTune, InvalidResourceError, spec_hash
from falcon_operator.api.status import (
    Condition,
    ConditionType,
    FalconFineTuneStatus,
    TrainingStatus,
    display_duration,
    percent_done,
)
from falcon_trainer.config import Training
from tests.unit.operator.api.runs import a_run, laid_over, resource

WRONG: dict[str, tuple[Mapping[str, Any], str, str]] = {
    "a wrong type": ({"gang": {"nodes": "two"}}, "spec.gang.nodes", "integer"),
    "an unknown field": ({"lerningRate": "1"}, "spec.lerningRate", "not permitted"),
    "a negative number": ({"training": {"globalBatchSize": -8}}, "spec.training.globalBatchSize", "greater"),
    "a real number out of its limits": ({"lora": {"dropout": "1"}}, "spec.lora.dropout", "must be a decimal number"),
    "an item of a list": ({"dataset": {"sources": [{"uri": "x"}]}}, "spec.dataset.sources[0].uri", "at least 6"),
    "two that exclude each other": (
        {"training": {"epochs": 1, "maxSteps": 1}},
        "spec.training",
        "training.epochs and training.maxSteps exclude each other: keep one",
    ),
    "a claim of mine and one to create": ({"workspace": {"claimName": "mine"}}, "spec.workspace", "exactly one"),
    "serving without a merged model": ({"merge": {"enabled": False}}, "spec", "the server needs the merged model"),
    "a quantity that is none": (
        {"podTemplate": {"train": {"resources": {"limits": {"cpu": "many"}}}}},
        "spec.podTemplate.train.resources.limits.cpu",
        "quantity",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_resource_is_refused_with_path_and_sentence(name: str) -> None:
    changes, path, words = WRONG[name]
    with pytest.raises(InvalidResourceError) as caught:
        a_run(**changes)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert words in caught.value.problems[0].sentence


def test_a_resource_without_a_spec_is_refused() -> None:
    with pytest.raises(InvalidResourceError, match="spec: Field required"):
        FalconFineTune.parse({"metadata": resource()["metadata"]})


def test_metadata_of_the_api_server_is_read_as_far_as_it_is_needed() -> None:
    given_metadata = {"creationTimestamp": "2026-11-24T08:00:00Z", "managedFields": [{}], "selfLink": "x"}
    obj = resource()
    obj["metadata"] |= given_metadata
    run = FalconFineTune.parse(obj)
    assert run.metadata.creation_timestamp == datetime(2026, 11, 24, 8, tzinfo=UTC)
    assert run.owner_reference()["uid"] == run.metadata.uid


def test_a_status_of_a_newer_operator_is_read() -> None:
    obj = resource() | {"status": {"stage": "Training", "novelty": {"x": 1}, "training": {"step": 3, "mood": "good"}}}
    assert FalconFineTune.parse(obj).status.training == TrainingStatus(step=3)


def test_a_status_survives_the_way_over_the_wire() -> None:
    condition = Condition(
        type=ConditionType.READY,
        status="True",
        reason="Serving",
        message="",
        last_transition_time=datetime(2026, 11, 24, 8, 1, 2, 345678, tzinfo=UTC),
    )
    status = FalconFineTuneStatus(conditions=[condition], training=TrainingStatus(loss="0.0312", percent=42))
    wire = status.to_wire()
    assert wire["conditions"][0]["lastTransitionTime"] == "2026-11-24T08:01:02Z"
    assert FalconFineTuneStatus.model_validate(wire) == status
    assert status.condition(ConditionType.READY) == condition
    assert status.condition(ConditionType.STALLED) is None


SAME: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "a default that is written out": ({}, {"lora": {"rank": 64}}),
    "another notation of a number": ({"training": {"learningRate": "3e-3"}}, {"training": {"learningRate": "0.003"}}),
    "fields that may change": ({}, {"gang": {"nodes": 4}, "serve": {"replicas": 2}, "podTemplate": {"all": {}}}),
}
OTHER: dict[str, Mapping[str, Any]] = {
    "the model": {"model": {"source": "hf://tiiuae/falcon-7b"}},
    "a record source": {"dataset": {"sources": [{"uri": "pvc://inputs/others.jsonl"}]}},
    "the rank": {"lora": {"rank": 8}},
    "the seed": {"training": {"seed": 1}},
    "a nested field": {"training": {"checkpoint": {"keep": 1}}},
}


@pytest.mark.parametrize("name", SAME)
def test_the_hash_stays_the_same_for(name: str) -> None:
    one, two = SAME[name]
    assert spec_hash(a_run(**one).spec) == spec_hash(a_run(**two).spec)


@pytest.mark.parametrize("name", OTHER)
def test_the_hash_changes_with(name: str) -> None:
    assert spec_hash(a_run(**OTHER[name]).spec) != spec_hash(a_run().spec)


def test_the_hash_is_one_of_the_first_release_for_ever() -> None:
    """acceptedSpecHash of runs in clusters was computed by older releases: a new one must compute the same."""
    assert spec_hash(a_run().spec) == "0338f0bd3227d668"


@given(st.builds(Training, seed=st.integers(0, 2**31 - 1), warmup_steps=st.integers(0, 99)))
def test_the_hash_does_not_depend_on_whether_defaults_were_filled_in(training: Training) -> None:
    full = laid_over({"training": training.to_wire()}, {})
    sparse = {"training": training.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
    assert spec_hash(a_run(**full).spec) == spec_hash(a_run(**sparse).spec)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (45, "45s"),
        (60, "1m"),
        (192, "3m12s"),
        (3599, "59m59s"),
        (3600, "1h"),
        (7500, "2h5m"),
        (86_400 + 3 * 3600 + 59, "1d3h"),
    ],
)
def test_a_duration_reads_well(seconds: int, text: str) -> None:
    assert display_duration(seconds) == text


@pytest.mark.parametrize(
    ("step", "total", "percent"), [(0, 0, 0), (0, 60, 0), (1, 3, 33), (299, 300, 99), (300, 300, 100), (301, 300, 100)]
)
def test_a_hundred_percent_means_done(step: int, total: int, percent: int) -> None:
    assert percent_done(step, total) == percent
