"""The chart's files, as far as they can be judged without rendering them."""

import json
import re
import tomllib

import yaml

from tests.unit.operator.api.runs import REPOSITORY

CHART = REPOSITORY / "deploy" / "chart" / "falcon-operator"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
CHART_YAML = yaml.safe_load((CHART / "Chart.yaml").read_text())


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    assert set(VALUES) | {"global"} == set(SCHEMA["properties"])
    for name, value in VALUES.items():
        properties = SCHEMA["properties"][name].get("properties")
        if properties is not None:
            assert set(value) == set(properties), name


def test_every_value_is_read_by_a_template() -> None:
    text = "\n".join(path.read_text() for path in (CHART / "templates").iterdir())
    read = set(re.findall(r"\.Values\.([A-Za-z]+)", text))
    assert read == set(VALUES)


def test_the_charts_version_is_the_operators() -> None:
    project = tomllib.loads((REPOSITORY / "operator" / "pyproject.toml").read_text())["project"]
    assert CHART_YAML["version"] == CHART_YAML["appVersion"] == project["version"]
