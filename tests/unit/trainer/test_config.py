"""RunConfig: what a stage may be told."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from falcon_trainer.config import Gang, Lora, Merge, RunConfig
from tests.unit.trainer.launcher_pod import CONFIG


def with_field(path: str, value: object) -> dict[str, Any]:
    """CONFIG with one field, named by its path, set."""
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    *heads, last = path.split(".")
    inner = config
    for head in heads:
        inner = inner.setdefault(head, {})
    inner[last] = value
    return config


def test_a_configuration_survives_the_wire() -> None:
    config = RunConfig.model_validate(with_field("training.learningRate", "0.003"))
    assert RunConfig.model_validate_json(json.dumps(config.to_wire())) == config


def test_the_defaults_are_those_of_the_original_recipe() -> None:
    config = RunConfig.model_validate(CONFIG)
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (64, 16, 0.1)
    assert config.lora.target_modules == ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    assert (config.training.deepspeed.offload_parameters, config.training.deepspeed.offload_optimizer) == (
        "none",
        "none",
    )


REFUSED = {
    "a source without a scheme": ("model.source", "/models/falcon"),
    "no data": ("dataset.sources", []),
    "a negative rank": ("lora.rank", -1),
    "a dropout of one": ("lora.dropout", "1"),
    "a dropout that is a number in JSON of the wrong sign": ("lora.dropout", "-0.1"),
    "an unknown packing": ("dataset.packing", "tetris"),
    "a ZeRO stage that is not built": ("training.deepspeed.stage", 2),
    "a gang without nodes": ("gang.nodes", 0),
    "a field nobody knows": ("training.lr", "0.1"),
    "a digest that is none": ("merged", {"path": "p", "digest": "sha256:abc", "bytes": 1}),
    "a name that DNS does not allow": ("model.tokenSecretRef", {"name": "Not_DNS", "key": "token"}),
}


@pytest.mark.parametrize(("path", "value"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_value_is_refused_at_its_path(path: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate(with_field(path, value))
    assert ".".join(str(part) for part in caught.value.errors()[0]["loc"]).startswith(path)


def test_epochs_and_max_steps_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match=r"training\.epochs and training\.maxSteps exclude each other"):
        RunConfig.model_validate(with_field("training", {"epochs": 1, "maxSteps": 10}))


@pytest.mark.parametrize("setting", [{"evaluation": {"everySteps": 5}}, {"earlyStopping": {}}])
def test_what_measures_needs_records_to_measure_on(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"set dataset\.validation"):
        RunConfig.model_validate(with_field("training", setting))


@pytest.mark.parametrize(
    ("gang", "processes", "world"),
    {
        "one rank for each GPU": (Gang(nodes=2, gpus_per_node=8), 8, 16),
        "one rank without GPUs": (Gang(nodes=3, gpus_per_node=0), 1, 3),
        "as many as the run says": (Gang(nodes=2, gpus_per_node=0, processes_per_node=4), 4, 8),
    }.values(),
)
def test_world_size(gang: Gang, processes: int, world: int) -> None:
    assert (gang.processes, gang.world_size) == (processes, world)


@pytest.mark.parametrize("memory", ["64Mi", "256Mi", "1Gi"])
def test_a_merge_may_use_so_much_memory(memory: str) -> None:
    assert Merge(memory=memory).memory == memory


@pytest.mark.parametrize("memory", ["63Mi", "1Mi", "0Gi", "64", "64M", ""])
def test_too_little_memory_for_a_merge_is_refused(memory: str) -> None:
    with pytest.raises(ValidationError, match=r"merge\.memory must be at least 64Mi|String should"):
        Merge(memory=memory)


@pytest.mark.parametrize("timeout", ["10s", "5m", "1h30m"])
def test_a_hang_time_out_is_a_duration(timeout: str) -> None:
    assert Gang(hang_timeout=timeout).hang_timeout == timeout


@pytest.mark.parametrize("timeout", ["0s", "9s", "10", "soon"])
def test_a_hang_time_out_that_would_end_every_run_is_refused(timeout: str) -> None:
    with pytest.raises(ValidationError, match=r"at least 10s|String should match"):
        Gang(hang_timeout=timeout)


def test_the_scale_of_the_update_follows_the_variant() -> None:
    assert Lora(rank=16, alpha=32).scale == 2.0
    assert Lora(rank=16, alpha=32, variant="rslora").scale == 8.0


def test_every_value_that_is_named_but_not_obeyed_is_refused_by_the_schema_with_a_sentence() -> None:
    schema = json.dumps(RunConfig.model_json_schema())
    for what in ("training.deepspeed.overrides", "dataset.sources[].weight", "model.preset"):
        assert f"{what} is not supported by this release" in schema
