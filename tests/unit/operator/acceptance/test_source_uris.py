"""Where models, records and adapters may lie, and what is said of an address that cannot be one."""

from collections.abc import Mapping
from typing import Any

import pytest

from falcon_operator.policy.acceptance import problems
from tests.unit.operator.api.runs import a_run

URI = "spec.dataset.sources[0].uri"
TOKEN = {"tokenSecretRef": {"name": "hub", "key": "token"}}


def records(uri: str) -> dict[str, Any]:
    return {"dataset": {"sources": [{"uri": uri}]}}


def start(uri: str) -> dict[str, Any]:
    return {"lora": {"initialAdapter": uri}}


REFUSED: dict[str, tuple[Mapping[str, Any], str, str]] = {
    "a bucket that cannot exist": (records("s3://My Bucket/x"), URI, "'My Bucket' is no name of a bucket; write s3://"),
    "a path that leaves the bucket": (records("s3://bucket/../x"), URI, "the path must be plain, without '..'"),
    "a key with an empty part": (records("s3://bucket/a//b"), URI, "without two '/' in a row"),
    "a data set of the Hub without an owner": (records("hf://dolly"), URI, "write hf://OWNER/NAME, hf://OWNER/NAME@"),
    "a data set of the Hub with an empty revision": (records("hf://acme/tickets@/x"), URI, "write hf://OWNER/NAME"),
    "a ConfigMap that cannot exist": (records("configmap://My_Map"), URI, "'My_Map' is no name of a ConfigMap"),
    "a folder in a ConfigMap": (records("configmap://map/a/b"), URI, "'a/b' is no key of a ConfigMap"),
    "a web address without a file": (records("https://example.com/"), URI, "names no file on example.com"),
    "a web address without a host": (records("https:///x.jsonl"), URI, "names no host"),
    "a web address with a password": (records("https://me:secret@example.com/x"), URI, "use a presigned address"),
    "a web address with a space": (records("https://example.com/a b"), URI, "write it as %20"),
    "a line end": (records("pvc://inputs/a\nb"), URI, "control character"),
    "an adapter by its file": (start("hf://acme/adapter/x.bin"), "spec.lora.initialAdapter", "a whole repository"),
    "an adapter on a claim that cannot exist": (start("pvc://A/x"), "spec.lora.initialAdapter", "'A' is no name"),
    "a token where nothing is on the Hub": (
        {"model": TOKEN} | records("s3://bucket/x") | start("pvc://adapters/v1"),
        "spec.model.tokenSecretRef",
        "neither the model nor a data source nor the initial adapter is on hf://",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    changes, path, words = REFUSED[name]
    (problem,) = problems(a_run(**changes))
    assert problem.path == path
    assert words in problem.sentence


ACCEPTED: dict[str, Mapping[str, Any]] = {
    "an object of a bucket": records("s3://bucket/a/train.jsonl.gz"),
    "a whole bucket": records("s3://bucket"),
    "a file of the web with a signature": records("https://example.com:8443/x.parquet?X-Amz-Signature=a%2Fb"),
    "a ConfigMap, whole": records("configmap://records"),
    "one key of a ConfigMap": records("configmap://records/train.jsonl"),
    "a data set of the Hub": records("hf://databricks/databricks-dolly-15k"),
    "a folder of a revision of a data set": records("hf://acme/tickets@v1.2/data/2024"),
    "the Parquet copy of a data set": records("hf://acme/tickets@refs/convert/parquet/default"),
    "an adapter of the Hub": start("hf://acme/adapter@v2"),
    "an adapter on a claim": start("pvc://adapters/support/v1"),
    "a token for a data set alone": {"model": TOKEN} | records("hf://acme/tickets"),
    "a token for an adapter alone": {"model": TOKEN} | start("hf://acme/adapter"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_is_accepted(name: str) -> None:
    assert problems(a_run(**ACCEPTED[name])) == []
