"""One process that has imported everything and forks the gangs of all tests here."""

from collections.abc import Iterator

import pytest

from tests.unit.trainer.ranks import Ranks
from tests.unit.trainer.workshop import REPOSITORY


@pytest.fixture(scope="session")
def gang() -> Iterator[Ranks]:
    ranks = Ranks(REPOSITORY)
    yield ranks
    ranks.close()
