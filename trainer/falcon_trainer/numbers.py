"""Numbers on a command line, as argparse types that say what is expected."""

import argparse
import math
from collections.abc import Callable

DIGITS = 18
"""More are no count of anything, and int() refuses to read thousands."""


def whole(at_least: int, at_most: int | None = None) -> Callable[[str], int]:
    """A whole number within these limits."""
    limits = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) <= DIGITS else None
        if number is None or number < at_least or (at_most is not None and number > at_most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return number

    return parse


def real(at_least: float, at_most: float, *, above: bool = False) -> Callable[[str], float]:
    """A number within these limits; `above`: the lower one is not among them."""
    limits = f"{'above' if above else 'of at least'} {at_least:g} and at most {at_most:g}"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not at_least <= number <= at_most or (above and number == at_least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {limits}")
        return number

    return parse
