"""What is refused of a server before it is made."""

from typing import Any

import pytest

from falcon_operator.policy.acceptance import problems
from tests.unit.operator.api.runs import a_run

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "vllm without a GPU": ({"engine": "vllm"}, "spec.serve.gpus", "needs at least one GPU"),
    "quantization without vllm": (
        {"quantization": "fp8"},
        "spec.serve.quantization",
        "this server's is transformers: leave it out, or set serve.gpus",
    ),
    "an option that the engine does not know": (
        {"args": ["--no-such-thing"]},
        "spec.serve.args",
        "unrecognized arguments: --no-such-thing",
    ),
    "a value for vllm that belongs to no option": (
        {"gpus": 1, "args": ["64"]},
        "spec.serve.args[0]",
        "'64' is no option of vllm",
    ),
    "another port": ({"gpus": 1, "args": ["--seed", "1", "--port=9"]}, "spec.serve.args[2]", "--port cannot be given"),
    "a token in the spec": ({"gpus": 1, "args": ["--api_key", "x"]}, "spec.serve.args[0]", "serve.apiKeySecretRef"),
    "the beginning of an option": ({"gpus": 1, "args": ["--served=x"]}, "spec.serve.args[0]", "--served cannot be"),
    "an encrypted server": ({"gpus": 1, "args": ["--ssl-keyfile", "k"]}, "spec.serve.args[0]", "speak plain HTTP"),
    "the run's own Service as alias": ({"alias": "support-bot-serve"}, "spec.serve.alias", "of the run itself"),
    "the gang's Service as alias": ({"alias": "support-bot-train"}, "spec.serve.alias", "of the run itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_server_that_cannot_be_made_is_refused(name: str) -> None:
    serve, path, words = REFUSED[name]
    (problem,) = problems(a_run(serve=serve))
    assert problem.path == path
    assert words in problem.sentence


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param({"gpus": 8, "quantization": "fp8", "args": ["--max-num-seqs", "64"]}, id="vllm"),
        pytest.param({"gpus": 1, "engine": "transformers", "args": ["--dtype", "bfloat16"]}, id="transformers"),
        pytest.param({"alias": "support-bot"}, id="the run's own name as alias, which none of its Services has"),
    ],
)
def test_a_server_that_can_be_made_is_accepted(serve: dict[str, Any]) -> None:
    assert problems(a_run(serve=serve)) == []
