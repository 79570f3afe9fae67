"""`serve.args` of the engine `transformers`, as words of a command line. Pure and without torch: the operator reads
them too, to refuse a wrong one before a pod is made.

`--dtype` and `--attn-implementation` are called as `transformers serve` calls them; the sampling defaults are obeyed by
our layer, which tells the engine all of its sampling anyway.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from falcon_trainer.numbers import real, whole

DTYPES = ("auto", "bfloat16", "float16", "float32")
ATTENTION = ("eager", "sdpa", "flash_attention_2")
"""What transformers' Falcon has (modeling_falcon.py, FALCON_ATTENTION_CLASSES)."""
MOST_WAITING = 256
"""Requests that may wait by default; beyond this, waiting is worse for a client than asking again elsewhere."""


class ArgumentsError(ValueError):
    """Arguments that the engine does not obey; the text is one sentence, beginning with `serve.args`."""


@dataclass(frozen=True, kw_only=True)
class EngineArguments:
    """What the arguments say; None leaves it to the engine."""

    dtype: str = "auto"
    """Element type of the weights in memory; auto: as they are stored."""
    attention: str | None = None
    threads: int | None = None
    """Threads of one operation on the CPU; default the pod's CPUs."""
    most_waiting: int = MOST_WAITING
    sampling: Mapping[str, float] = field(default_factory=dict)
    """temperature, top_p and top_k of requests that say nothing; they go before the model's generation_config.json."""


def engine_arguments(args: Sequence[str] | None, *, gpus: int) -> EngineArguments:
    """What `serve.args` say. Raises ArgumentsError."""
    parsed = _parser().parse_args(list(args or ()))
    if parsed.attn_implementation == "flash_attention_2" and not gpus:
        raise ArgumentsError("serve.args: --attn-implementation flash_attention_2 needs GPUs, and serve.gpus is 0.")
    sampling = {"temperature": parsed.temperature, "top_p": parsed.top_p, "top_k": parsed.top_k}
    return EngineArguments(
        dtype=parsed.dtype,
        attention=parsed.attn_implementation,
        threads=parsed.threads,
        most_waiting=parsed.max_waiting,
        sampling={name: value for name, value in sampling.items() if value is not None},
    )


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit, also with exit_on_error=False (bpo-41255)."""

    def error(self, message: str) -> NoReturn:
        known = ", ".join(action.option_strings[0] for action in self._actions)
        raise ArgumentsError(
            f"serve.args: {message}. The engine transformers knows {known}; a name and its value are two items, or one "
            "joined by '='."
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="serve.args", add_help=False, allow_abbrev=False)
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--attn-implementation", choices=ATTENTION)
    parser.add_argument("--threads", type=whole(1, 1024))
    parser.add_argument("--max-waiting", type=whole(1, 100_000), default=MOST_WAITING)
    parser.add_argument("--temperature", type=real(0, 2))
    parser.add_argument("--top-p", type=real(0, 1, above=True))
    parser.add_argument("--top-k", type=whole(0, 1_000_000))
    return parser
