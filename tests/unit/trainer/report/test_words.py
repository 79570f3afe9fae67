"""Numbers as people read them."""

from collections.abc import Callable

import pytest

from falcon_trainer.report.words import duration, number, percent, rate, short, size


@pytest.mark.parametrize(
    ("said", "value", "text"),
    [
        (number, 12345, "12,345"),
        (number, 12345.0, "12,345"),
        (number, 0.123456, "0.1235"),
        (number, 1234567.8, "1,234,568"),
        (number, 0, "0"),
        (short, 178_550_000_000, "178.6 B"),
        (short, 998.4, "998.4"),
        (short, 18_660, "18.66 k"),
        (size, 3 << 30, "3 GiB"),
        (size, 864 << 20, "864 MiB"),
        (size, 17, "17 B"),
        (duration, 42.4, "42.4 s"),
        (duration, 59.9, "1 min 00 s"),
        (duration, 187, "3 min 07 s"),
        (duration, 7500, "2 h 05 min"),
        (duration, 183_600, "2 d 03 h"),
        (percent, 0.4123, "41.2 %"),
        (percent, 1, "100 %"),
        (rate, 989.5e12, "989.5 TFLOP/s"),
        (rate, 2.25e15, "2.25 PFLOP/s"),
        (rate, 40.49e9, "40.49 GFLOP/s"),
    ],
)
def test_words(said: Callable[[float], str], value: float, text: str) -> None:
    assert said(value) == text
