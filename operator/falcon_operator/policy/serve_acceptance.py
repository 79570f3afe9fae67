"""Whether the server that a run asks for can be made."""

from collections.abc import Iterator

from falcon_operator.api.resource import FalconFineTune, Problem
from falcon_operator.policy.engine import engine_of
from falcon_operator.stages.naming import stage_name
from falcon_trainer.serve.arguments import ArgumentsError, engine_arguments

MADE_FROM_FIELDS = {
    "--model": "the model is the run's own",
    "--served-model-name": "the names are the run's and serve.alias",
    "--host": "the probes and the Service need it as it is",
    "--port": "the probes and the Service need it as it is",
    "--uds": "the probes and the Service need a port",
    "--ssl-keyfile": "the probes and the Service speak plain HTTP",
    "--ssl-certfile": "the probes and the Service speak plain HTTP",
    "--config": "a file could say what is not allowed here: give its arguments one by one",
    "--api-key": "a token does not belong into a spec: use serve.apiKeySecretRef",
}
"""Arguments of vLLM that would take the server away from under its Service."""


def serve_problems(run: FalconFineTune) -> Iterator[Problem]:
    """The problems of `serve`."""
    for check in (_engine, _arguments, _alias):
        yield from check(run)


def _engine(run: FalconFineTune) -> Iterator[Problem]:
    serve = run.spec.serve
    engine = engine_of(serve)
    if engine == "vllm" and not serve.gpus:
        yield Problem("spec.serve.gpus", "the engine vllm needs at least one GPU: set it, or use engine: transformers")
    if engine != "vllm" and serve.quantization != "none":
        yield Problem(
            "spec.serve.quantization",
            f"{serve.quantization} is an option of the engine vllm, and this server's is {engine}: leave it out, or "
            "set serve.gpus",
        )


def _arguments(run: FalconFineTune) -> Iterator[Problem]:
    serve, path = run.spec.serve, "spec.serve.args"
    if engine_of(serve) == "transformers":
        try:
            engine_arguments(serve.args, gpus=serve.gpus)
        except ArgumentsError as error:
            yield Problem(path, str(error).removeprefix("serve.args: "))
        return
    for index, word in enumerate(serve.args or ()):
        if not index and not word.startswith("-"):
            yield Problem(f"{path}[0]", f"{word!r} is no option of vllm: they begin with '--'")
        name = word.partition("=")[0].replace("_", "-")
        if why := next((why for flag, why in MADE_FROM_FIELDS.items() if _means(name, flag)), None):
            yield Problem(f"{path}[{index}]", f"{word.partition('=')[0]} cannot be given here: {why}")


def _means(word: str, flag: str) -> bool:
    """Whether a command line may take the word for the flag: argparse knows flags by their beginnings."""
    return word == flag or (len(word) >= 4 and word.startswith("--") and flag.startswith(word))


def _alias(run: FalconFineTune) -> Iterator[Problem]:
    own = [stage_name(run, "serve"), stage_name(run, "train")]
    if run.spec.serve.alias in own:
        yield Problem("spec.serve.alias", f"{run.spec.serve.alias} is a Service of the run itself: choose another name")
