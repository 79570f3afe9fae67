"""Real numbers as strings, durations, camelCase."""

import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from falcon_trainer.wire import Real, Wire, decimal_text, memory_bytes, seconds


class Sample(Wire):
    learning_rate: Annotated[float, Real(above=0, below=1)] = 0.5
    warm: int | None = None


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_any_real_number_reads_back_from_its_text(value: float) -> None:
    real = TypeAdapter(Annotated[float, Real(at_least=0)])
    assert real.validate_python(decimal_text(value)) == value
    assert real.validate_json(real.dump_json(value)) == value


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1E-4", "1e-04"])
def test_a_real_number_may_be_written_with_an_exponent(text: str) -> None:
    assert Sample.model_validate({"learningRate": text}).learning_rate == 1e-4


@pytest.mark.parametrize(
    "value", ["", "a", "-1", "+1", ".5", "1.", "nan", "inf", "1e", " 1", "0x1", True, None, [], "1", "0"]
)
def test_what_is_no_decimal_number_within_its_limits_is_refused_with_a_sentence(value: object) -> None:
    with pytest.raises(ValidationError, match="must be a decimal number > 0 and < 1"):
        Sample.model_validate({"learningRate": value})


def test_the_schema_carries_the_limits_as_cel() -> None:
    schema = Sample.model_json_schema()["properties"]["learningRate"]
    assert schema["type"] == "string"
    assert [rule["rule"] for rule in schema["x-kubernetes-validations"]] == ["double(self) > 0.0", "double(self) < 1.0"]


def test_names_are_camel_case_outside_and_absent_fields_are_left_out() -> None:
    assert Sample(learning_rate=1e-4).to_wire() == {"learningRate": "0.0001"}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="learnRate"):
        Sample.model_validate({"learnRate": "0.1"})


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("1h30m", 5400), ("2h", 7200), ("1h1m1s", 3661), ("0s", 0)]
)
def test_durations_in_seconds(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "90", "1.5h", "-1s", "1s1m", "soon", "1d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{hours}h{minutes}m{rest}s") == hours * 3600 + minutes * 60 + rest


@pytest.mark.parametrize(("text", "expected"), [("1Mi", 1 << 20), ("256Mi", 256 << 20), ("3Gi", 3 << 30)])
def test_memory_in_bytes(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "256", "0Mi", "1.5Gi", "-1Mi", "256M", "1Ti", "256 Mi", "64Mi\n"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount of memory"):
        memory_bytes(text)


def test_a_number_beyond_doubles_is_refused() -> None:
    assert math.isinf(float("1e999"))
    with pytest.raises(ValidationError):
        Sample.model_validate({"learningRate": "1e999"})
