"""One thread for torch: on matrices as small as the tests', several threads mostly wait for each other."""

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
