"""The CRD that is written from the models."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from falcon_operator.api import crd
from falcon_operator.api.schema import KEPT, SchemaError, structural_schema
from falcon_operator.api.spec import FalconFineTuneSpec
from falcon_trainer.wire import Wire
from tests.unit.operator.api.runs import REPOSITORY

SCHEMA = crd.resource_schema()
SPEC = SCHEMA["properties"]["spec"]
FORBIDDEN = ("$ref", "oneOf", "allOf", "not", "title", "const")


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within `schema`, with the path of the field it describes."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts(part, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if inner in schema:
            yield from parts(schema[inner], f"{path}[]")


@pytest.mark.parametrize(("file", "text"), [(crd.FILE, crd.crd_text()), (crd.CHART_FILE, crd.chart_text())], ids=str)
def test_the_written_file_is_what_the_models_say(file: Path, text: str) -> None:
    assert (REPOSITORY / file).read_text() == text, f"{file} is out of date: run `make crds`"


def test_writing_into_another_root_makes_both_files(tmp_path: Path) -> None:
    crd.main(["--write", str(tmp_path)])
    assert (tmp_path / crd.FILE).read_text() == crd.crd_text()
    assert (tmp_path / crd.CHART_FILE).read_text() == crd.chart_text()


def test_without_write_the_crd_goes_to_standard_output() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "falcon_operator.api.crd"], check=True, capture_output=True, text=True, cwd=REPOSITORY
    )
    assert yaml.safe_load(done.stdout) == crd.crd()


def test_the_charts_copy_survives_an_uninstall() -> None:
    template = crd.chart_text().replace("{{- if .Values.crds.install }}", "").replace("{{- end }}", "")
    assert "{{" not in template, "text of the CRD would be taken for a template"
    document = yaml.safe_load(template)
    assert document["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert document == crd.crd()


def test_the_schema_is_structural() -> None:
    for path, part in parts(SCHEMA):
        assert not set(part) & set(FORBIDDEN), path
        assert set(part) <= set(KEPT), path
        assert "type" in part or part.get("x-kubernetes-int-or-string"), path
        assert not ("properties" in part and "additionalProperties" in part), path


def test_every_rule_says_what_to_do_in_a_sentence() -> None:
    rules = [(path, rule) for path, part in parts(SCHEMA) for rule in part.get("x-kubernetes-validations", [])]
    assert len(rules) > 30
    for path, rule in rules:
        assert len(rule["message"].split()) >= 3, f"{path}: {rule}"
        assert "\n" not in rule["message"], path


def test_every_field_of_the_spec_tells_what_it_is() -> None:
    undescribed = [path for path, part in parts(SPEC) if "description" not in part and part.get("type") == "object"]
    assert [path for path in undescribed if not path.endswith(FREE)] == []


FREE = ("Affinity", "source", "valueFrom", "labels", "annotations", "nodeSelector", "requests", "limits")
"""Kubernetes' own fields: `kubectl explain pod.spec` tells what they are."""


def test_every_field_of_the_models_is_in_the_schema() -> None:
    """A field that pydantic knows and the API server prunes would be ignored, which is worse than refused."""
    models = FalconFineTuneSpec.model_json_schema(by_alias=True)
    assert set(SPEC["properties"]) == set(models["properties"])
    training = models["$defs"]["Training"]["properties"]
    assert set(SPEC["properties"]["training"]["properties"]) == set(training)


class Unbounded(Wire):
    """A model that would make CEL's cost unknown."""

    text: str


class UnboundedList(Wire):
    """The same with a list."""

    numbers: list[int]


class UnboundedMap(Wire):
    """The same with a map."""

    numbers: dict[str, int]


class Union(Wire):
    """Two alternatives: no structural schema has them."""

    value: int | bool = Field(json_schema_extra={"oneOf": []})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Unbounded, r"\.text: a string needs a maximum length"),
        (UnboundedList, r"\.numbers: a list needs a maximum"),
        (UnboundedMap, r"\.numbers: a map needs a maximum"),
        (Union, r"\.value: oneOf has no place in a structural schema"),
    ],
)
def test_a_model_without_a_structural_schema_is_refused_with_the_fields_path(model: type[Wire], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        structural_schema(model.model_json_schema(by_alias=True))


def test_the_columns_show_strings_made_for_people() -> None:
    version = crd.crd()["spec"]["versions"][0]
    shown = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["Stage", "Progress", "Loss", "ETA", "Attempt", "Endpoint", "Age"]
    for column in version["additionalPrinterColumns"]:
        assert column["jsonPath"].startswith((".status.", ".metadata."))


def test_the_crd_is_plain_json() -> None:
    assert json.loads(json.dumps(crd.crd())) == crd.crd()
