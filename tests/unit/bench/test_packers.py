"""The bound and the peer that the packing bench holds ours against are what they are called."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.length_sets import CAPACITY as ROW
from bench.packers import lower_bound
from falcon_trainer.data.packing import pack

CAPACITY = 12
REPOSITORY = Path(__file__).resolve().parents[3]


def fewest_rows(sizes: list[int]) -> int:
    """By trying every distribution."""
    for rows in range(1, len(sizes) + 1):
        for placed in product(range(rows), repeat=len(sizes) - 1):
            if max(np.bincount([0, *placed], weights=sizes)) <= CAPACITY:
                return rows
    return 0


@given(st.lists(st.integers(1, CAPACITY), min_size=1, max_size=5))
def test_no_packing_needs_fewer_rows_than_the_bound(sizes: list[int]) -> None:
    assert lower_bound(np.array(sizes), CAPACITY) <= fewest_rows(sizes) <= pack(np.array(sizes), CAPACITY).rows


@pytest.mark.parametrize(
    ("sizes", "bound"),
    [
        pytest.param([3, 3, 3, 3], 1, id="what fills a row needs one"),
        pytest.param([3, 3, 3, 4], 2, id="one token more needs another"),
        pytest.param([7, 7, 7], 3, id="documents longer than half a row never share one"),
        pytest.param([9, 9, 4], 3, id="what does not fit beside a long document needs a row of its own"),
    ],
)
def test_the_lower_bound(sizes: list[int], bound: int) -> None:
    assert lower_bound(np.array(sizes), CAPACITY) == bound


def test_a_side_of_the_bench_reports_its_rows_time_and_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "lengths.npy", np.array([ROW, ROW - 5, 5]))
    command = [sys.executable, "bench/packing.py", "--side", "plan, ours", "--folder", str(tmp_path)]
    told = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=120).stdout
    made = json.loads(told.splitlines()[-1])
    assert made["facts"] == {"rows": 2}
    assert len(made["cpu"]) == len(made["wall"]) == 7
    assert made["peak"] >= 0
