"""Reads the RunConfig that a stage is told, from JSON (the pod's file) or YAML (written by hand)."""

import json
from pathlib import Path

from pydantic import JsonValue, ValidationError

from falcon_trainer.config import RunConfig
from falcon_trainer.outcome import ExitCode, StageError

SHOWN = 8
"""Faults named in one message; more would not fit a termination message."""


def read_config(path: Path) -> RunConfig:
    """The RunConfig at `path`. Raises StageError where it is missing, no JSON or YAML, or breaks the schema."""
    try:
        return RunConfig.model_validate(_parse(path))
    except OSError as error:
        raise _refused(f"the run configuration {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise _refused(f"the run configuration {path} is wrong: {'; '.join(faults[:SHOWN])}{more}") from error


def _parse(path: Path) -> JsonValue:
    text = path.read_text()
    try:
        if path.suffix in {".yaml", ".yml"}:
            import yaml  # here, because the launcher of a pod must start fast and reads JSON

            try:
                parsed: JsonValue = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
            return parsed
        parsed = json.loads(text)
    except ValueError as error:
        raise _refused(f"the run configuration {path} cannot be parsed: {error}") from error
    return parsed


def _refused(message: str) -> StageError:
    return StageError(ExitCode.CONFIGURATION, "InvalidConfiguration", message)
