"""The operator's environment."""

import pytest

from falcon_operator.settings import Settings, SettingsError

IMAGE = {"FALCON_TRAINER_IMAGE": "trainer:1"}


def test_what_the_chart_sets() -> None:
    given = IMAGE | {
        "FALCON_VLLM_IMAGE": "registry.example/vllm:1",
        "FALCON_NAMESPACES": "team-a, team-b",
        "FALCON_IMAGE_PULL_POLICY": "Never",
        "FALCON_LOG_LEVEL": "debug",
        "FALCON_LEASE": "my-release",
        "POD_NAME": "operator-0",
        "POD_NAMESPACE": "falcon-system",
    }
    settings = Settings.from_environment(given)
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.vllm_image == "registry.example/vllm:1"
    assert (settings.image_pull_policy, settings.log_level) == ("Never", "DEBUG")
    assert (settings.lease, settings.pod_name, settings.pod_namespace) == ("my-release", "operator-0", "falcon-system")


def test_what_holds_without_being_said() -> None:
    settings = Settings.from_environment(IMAGE | {"FALCON_NAMESPACES": ""})
    assert settings.vllm_image == "vllm/vllm-openai:v0.32.0"
    assert settings.namespaces == ()
    assert (settings.image_pull_policy, settings.log_level, settings.port) == ("IfNotPresent", "INFO", 8081)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param({}, "FALCON_TRAINER_IMAGE is not set", id="no image"),
        pytest.param(IMAGE | {"FALCON_IMAGE_PULL_POLICY": "Sometimes"}, "'Sometimes'", id="a policy that is none"),
        pytest.param(IMAGE | {"FALCON_LOG_LEVEL": "LOUD"}, "'LOUD'", id="a level that is none"),
        pytest.param(IMAGE | {"FALCON_WORKERS": "0"}, "FALCON_WORKERS", id="no workers"),
        pytest.param(IMAGE | {"FALCON_HEALTH_PORT": "http"}, "FALCON_HEALTH_PORT", id="a port that is no number"),
    ],
)
def test_a_wrong_variable_is_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment(given)
