"""The bearer token that clients must send, where the pod is told one."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from falcon_trainer.outcome import ExitCode, StageError
from falcon_trainer.serve.errors import ApiError

VARIABLE = "FALCON_API_KEY"
"""Holds the token; the operator fills it from the Secret of serve.apiKeySecretRef."""
SCHEME = "bearer"


def told_key(environment: Mapping[str, str]) -> str | None:
    """The token of this pod; None where none is asked for.

    Raises StageError(CONFIGURATION) for one that no client can send: with it the server would refuse everybody.
    """
    if VARIABLE not in environment:
        return None
    key = environment[VARIABLE].strip()  # a Secret made from a file ends in a line break
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        what = "is empty" if not key else "holds characters that no HTTP header can carry"
        raise StageError(
            ExitCode.CONFIGURATION,
            "ApiKeyNotUsable",
            f"The token in the Secret of serve.apiKeySecretRef {what}. Write another one into it.",
        )
    return key


@dataclass(frozen=True)
class Guard:
    """Compares what a client sends with the token."""

    key: str

    def refusal(self, header: bytes | None) -> ApiError | None:
        """Why a request with this Authorization header is refused; None where it is let in."""
        if header is None:
            return _refused("This server asks for an API key: send it as 'Authorization: Bearer KEY'.")
        scheme, _, sent = header.partition(b" ")
        # Compared in constant time: how long a refusal takes must not tell how much of a guess was right.
        right = hmac.compare_digest(sent.strip(), self.key.encode())
        if scheme.lower() == SCHEME.encode() and right:
            return None
        return _refused("The API key is wrong.")


def _refused(message: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, message, "invalid_api_key", challenge="Bearer")
