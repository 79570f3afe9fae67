"""One served model for all tests that only ask it."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.unit.trainer.serve_process import ALIAS, Server, served


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real stage with a tiny Falcon; it starts in about ten seconds."""
    folder = tmp_path_factory.mktemp("serve")
    with served(folder, serve={"alias": ALIAS}, FALCON_GRACE_SECONDS="15", FALCON_LINGER_SECONDS="0") as running:
        yield running.until_ready()


@pytest.fixture(scope="session")
def client(server: Server) -> OpenAI:
    """The official client, without its retries."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)
