"""What the API server fills in is what the models would fill in."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.api import crd
from falcon_operator.api.spec import FalconFineTuneSpec
from tests.unit.operator.api.defaulting import with_defaults
from tests.unit.operator.api.runs import MINIMAL, REPOSITORY, laid_over

SPEC = crd.resource_schema()["properties"]["spec"]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))

PARTS: dict[str, list[Any]] = {
    "lora": [{}, {"rank": 8}, {"dropout": "0"}, {"targetModules": ["dense"]}],
    "training": [{}, {"epochs": 1}, {"deepspeed": {}}, {"checkpoint": {"keep": 1}}, {"learningRate": "0.5"}],
    "gang": [{}, {"nodes": 4}, {"gpusPerNode": 0}],
    "merge": [{}, {"dtype": "float32"}],
    "serve": [{}, {"enabled": False}, {"gpus": 1}],
    "podTemplate": [{}, {"all": {}}, {"train": {"env": [{"name": "A", "value": "1"}]}}],
    "workspace": [{}, {"whenDeleted": "Delete"}, {"accessMode": "ReadWriteOnce"}],
}


@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in PARTS.items()}))
def test_defaults_of_schema_and_models_agree(changes: dict[str, Any]) -> None:
    spec = laid_over(MINIMAL, changes)
    by_server, by_models = with_defaults(spec, SPEC), FalconFineTuneSpec.model_validate(spec).to_wire()
    assert by_server == by_models
    assert FalconFineTuneSpec.model_validate(by_server) == FalconFineTuneSpec.model_validate(spec)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_means_the_same_with_the_servers_defaults(path: Any) -> None:
    spec = yaml.safe_load(path.read_text())["spec"]
    by_server = with_defaults(spec, SPEC)
    assert FalconFineTuneSpec.model_validate(by_server) == FalconFineTuneSpec.model_validate(spec)


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"dolly-tiny", "falcon-7b", "falcon-180b"}
