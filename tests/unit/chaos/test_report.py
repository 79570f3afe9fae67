"""What a campaign says at its end."""

import json

import pytest

from tests.chaos.__main__ import CALM, report
from tests.chaos.campaign import Struck
from tests.chaos.plan import Fault, Strike

STRUCK = [
    Struck("struck-1", [Strike(3, 0, Fault.POD_DELETED), Strike(9, 1, Fault.NODE_LOST)], repeated=4, attempts=3),
    Struck("struck-2", [Strike(5, 1, Fault.API_SERVER_RESTARTED)], attempts=1),
]
EQUAL = {CALM: "a", "struck-1": "a", "struck-2": "a"}


def test_equal_adapters_are_a_success_with_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(7, STRUCK, EQUAL) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"seed": 7, "runs": 2, "faults": 3, "equal": 2, "steps_repeated": 4}


def test_an_adapter_that_differs_is_named_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(7, STRUCK, EQUAL | {"struck-2": "b"}) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert line.startswith("struck-2")
