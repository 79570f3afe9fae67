"""What the results of the stages of one pod become in the status.

Of what a stage was told only the result counts, not what it says of it: the digest, the type and the targets that the
status is compared with are the spec's own, so that a stage of another release is never run again for ever.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from falcon_operator.api.resource import FalconFineTune
from falcon_operator.api.status import DatasetStatus, EvaluationStatus, MergeStatus, ModelStatus, PublishedStatus
from falcon_operator.controller.flow.course import unpublished
from falcon_trainer.config import Artifact

Result = Mapping[str, Any]
Facts = dict[str, Any]
"""Fields of the status."""


def prepared(run: FalconFineTune, result: Result) -> tuple[Facts, str]:
    """The records and the base model. Raises KeyError or ValueError where the result is something else; so do the
    others.
    """
    dataset = DatasetStatus.model_validate(result["dataset"])
    model = ModelStatus.model_validate(result.get("model") or {})
    counted = [f"{dataset.records} records", f"{dataset.sequences} rows", f"{dataset.tokens} tokens"]
    return {"dataset": dataset, "model": model}, f"the data is ready: {', '.join(counted)}"


def merged(run: FalconFineTune, result: Result) -> tuple[Facts, str]:
    """The merged model, and how it was made."""
    model = Artifact.model_validate(result["merged"])
    made = MergeStatus.model_validate((result.get("merge") or {}) | {"dtype": run.spec.merge.dtype})
    return {"merged": model, "merge": made}, f"the merged model is verified and lies at {model.path}"


def published(run: FalconFineTune, result: Result) -> tuple[Facts, str]:
    """The copies; each one that was asked for must be among them."""
    copies = TypeAdapter(list[PublishedStatus]).validate_python(result["published"])
    after = run.model_copy(update={"status": run.status.model_copy(update={"published": copies})})
    if missing := [publication.uri for publication in unpublished(after)]:
        raise ValueError(f"it tells of no copy of the present result at {', '.join(missing)}")
    return {"published": copies}, f"published to {', '.join(copy.uri for copy in copies)}"


def evaluated(run: FalconFineTune, result: Result) -> tuple[Facts, str]:
    """What the served model answered."""
    model = run.status.merged
    told = dict(result["evaluation"]) | {"merged": model.digest if model else None}
    found = EvaluationStatus.model_validate(told)
    text = f"the server answered {found.answered} of {found.prompts} stored prompts, {found.changed} unlike the base"
    return {"evaluation": found}, text + (f": {found.message}" if found.message else "")
