from pathlib import Path

import pytest

from tests.cluster import provider
from tests.cluster.shell import ClusterError


@pytest.fixture
def last_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    choice = tmp_path / "cluster"
    monkeypatch.setattr(provider, "_CHOICE", choice)
    return choice


@pytest.mark.parametrize(
    ("asked", "last", "engine", "chosen"),
    [
        pytest.param("local", "kind", "docker", "local", id="what CLUSTER names wins over everything"),
        pytest.param("current", None, None, "current", id="the user's own cluster is used when it is named"),
        pytest.param(None, "local", "docker", "local", id="a checkout stays with the cluster it used last"),
        pytest.param(None, "current", None, "current", id="also with the user's own, once it was named"),
        pytest.param(None, None, "docker", "kind", id="kind where a container engine answers"),
        pytest.param(None, None, None, "local", id="else a real control plane on this machine"),
        pytest.param("", None, None, "local", id="an empty CLUSTER names nothing"),
        pytest.param(None, "nonsense", None, "local", id="a choice that cannot be read counts for nothing"),
    ],
)
def test_the_cluster_that_is_meant(
    asked: str | None,
    last: str | None,
    engine: str | None,
    chosen: str,
    last_choice: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider, "container_engine", lambda: engine)
    if last is not None:
        last_choice.write_text(f"{last}\n")
    assert provider.choose({} if asked is None else {"CLUSTER": asked}) == chosen


def test_an_unknown_cluster_is_refused_with_the_known_ones(last_choice: Path) -> None:
    with pytest.raises(ClusterError, match="CLUSTER=minikube is not known; it is one of local, kind, current"):
        provider.choose({"CLUSTER": "minikube"})
