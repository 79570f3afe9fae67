"""Repositories of the Hub: the client, and its errors as sentences that say what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from falcon_trainer import layout
from falcon_trainer.outcome import ExitCode, StageError

TIMEOUT = 60
"""Seconds that a question about a repository may take."""
NOUNS = {"Model": "model", "Data": "data set", "Adapter": "adapter"}


@dataclass(frozen=True)
class Repository:
    """What a run names on the Hub, and where its spec names it."""

    subject: Literal["Model", "Data", "Adapter"]
    name: str
    revision: str
    field: str
    """Field of the spec with the name."""
    revision_field: str

    @property
    def kind(self) -> Literal["model", "dataset"]:
        """The Hub's own kinds: an adapter is a model to it."""
        return "dataset" if self.subject == "Data" else "model"

    @property
    def noun(self) -> str:
        return NOUNS[self.subject]


def api() -> Any:
    """The Hub's client (HfApi), with the token of the mounted file."""
    from huggingface_hub import HfApi

    token = layout.TOKEN.read_text().strip() if layout.TOKEN.is_file() else None
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


@contextmanager
def explained(repository: Repository) -> Iterator[None]:
    """Turns the Hub's errors into StageErrors that say what to do."""
    from huggingface_hub import errors

    name, noun, subject = repository.name, repository.noun, repository.subject
    unreached: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except errors.GatedRepoError as error:
        raise StageError(
            ExitCode.NO_PERMISSION,
            f"{subject}Gated",
            f"{name} is gated: open its page on the Hub, accept its terms with your account, and name a Secret with "
            "a token of that account in model.tokenSecretRef.",
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise StageError(
            ExitCode.NO_INPUT,
            f"{subject}NotFound",
            f"The Hub knows no {noun} {name}, or shows it only to its owners: check {repository.field}, and "
            "model.tokenSecretRef if it is private.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StageError(
            ExitCode.NO_INPUT,
            f"{subject}NotFound",
            f"{name} has no revision {repository.revision}: check {repository.revision_field}.",
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, unreached, ConnectionError) as error:
        raise _unavailable(repository, error) from error


def _unavailable(repository: Repository, error: Exception) -> StageError:
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (401, 403):
        return StageError(
            ExitCode.NO_PERMISSION,
            "TokenRefused",
            f"The Hub refuses the token for {repository.name} (HTTP {status}): check the Secret in "
            "model.tokenSecretRef.",
        )
    what = f"answers HTTP {status}" if status else f"cannot be reached ({type(error).__name__}: {error})"
    return StageError(
        ExitCode.UNAVAILABLE,
        "HubUnavailable",
        f"The Hub {what} while {repository.name} is fetched. Without access to the Hub, put the {repository.noun} on "
        "a claim and name it as pvc://CLAIM/PATH.",
    )
