"""Which stage a run is at, and which run beside it, from its spec and its status alone."""

from typing import Any

import pytest

from falcon_operator.api.status import ConditionType, EvaluationStatus, MergeStatus, PublishedStatus
from falcon_operator.controller.flow.course import current_stage, goes_before, needless_jobs, stages_beside
from tests.unit.operator.api.runs import ADAPTER, MERGED
from tests.unit.operator.controller.snapshots import ORDER, run_at

SERVED, EVALUATED = ORDER[:4], (*ORDER, "Evaluated")
AS_BFLOAT16 = {"merge": MergeStatus(dtype="bfloat16")}
COPY = {"uri": "s3://models/bot"}
ADAPTER_COPY = {"uri": "s3://models/adapter", "what": "adapter"}
COPIED = PublishedStatus(uri=COPY["uri"], what="merged", digest=MERGED.digest)
ADAPTER_COPIED = PublishedStatus(uri=ADAPTER_COPY["uri"], what="adapter", digest=ADAPTER.digest)
OFF = {"enabled": False}

Case = tuple[tuple[str, ...], dict[str, Any], dict[str, Any], str | None, tuple[str, ...]]
"""Conditions that are True, more of the status, the spec; the current stage and those beside it."""

CASES: dict[str, Case] = {
    "accepted": (ORDER[:1], {}, {}, "prepare", ()),
    "prepared": (ORDER[:2], {}, {}, "train", ()),
    "trained": (ORDER[:3], {}, {}, "merge", ()),
    "merged": (SERVED, {}, {}, "serve", ("evaluate",)),
    "evaluated": (EVALUATED, {}, {}, "serve", ()),
    "an adapter and nothing more": (ORDER[:3], {}, {"merge": OFF, "serve": OFF}, None, ()),
    "merged and not served": (SERVED, {}, {"serve": OFF}, None, ()),
    # merge.dtype
    "the type that was asked for": (EVALUATED, AS_BFLOAT16, {"merge": {"dtype": "bfloat16"}}, "serve", ()),
    "another type": (EVALUATED, AS_BFLOAT16, {"merge": {"dtype": "float16"}}, "merge", ("serve",)),
    "another type of a model that nobody serves": (
        SERVED,
        AS_BFLOAT16,
        {"merge": {"dtype": "float16"}, "serve": OFF},
        "merge",
        (),
    ),
    "another type, seen already": (
        ("Accepted", "Prepared", "Trained", "Serving", "Evaluated"),
        AS_BFLOAT16 | {"merged": MERGED, "evaluation": EvaluationStatus(merged=MERGED.digest)},
        {"merge": {"dtype": "float16"}},
        "merge",
        ("serve",),
    ),
    "a type that was changed back while the merge ran": (
        ("Accepted", "Prepared", "Trained", "Serving"),
        AS_BFLOAT16 | {"merged": MERGED},
        {"merge": {"dtype": "bfloat16"}},
        "merge",
        ("serve", "evaluate"),
    ),
    "a model of an older operator, whose type is not known": (
        EVALUATED,
        {},
        {"merge": {"dtype": "float16"}},
        "serve",
        (),
    ),
    "more memory for a merge that is over": (
        EVALUATED,
        AS_BFLOAT16,
        {"merge": {"dtype": "bfloat16", "memory": "1Gi"}},
        "serve",
        (),
    ),
    # evaluate
    "another model than the evaluated one": (
        EVALUATED,
        {"evaluation": EvaluationStatus(merged=f"sha256:{'0c' * 32}")},
        {},
        "serve",
        ("evaluate",),
    ),
    "an evaluation that failed": (ORDER, {}, {}, "serve", ("evaluate",)),
    # publish
    "copies of the model before it is merged": (ORDER[:3], {}, {"publish": [COPY]}, "merge", ()),
    "copies of the model": (SERVED, {}, {"publish": [COPY]}, "serve", ("publish", "evaluate")),
    "copies of the model, made": ((*EVALUATED, "Published"), {"published": [COPIED]}, {"publish": [COPY]}, "serve", ()),
    "copies that the status tells of before the condition does": (
        EVALUATED,
        {"published": [COPIED]},
        {"publish": [COPY]},
        "serve",
        ("publish",),
    ),
    "one more copy": (
        (*EVALUATED, "Published"),
        {"published": [COPIED]},
        {"publish": [COPY, ADAPTER_COPY]},
        "serve",
        ("publish",),
    ),
    "one copy less": (
        (*EVALUATED, "Published"),
        {"published": [COPIED, ADAPTER_COPIED]},
        {"publish": [COPY]},
        "serve",
        (),
    ),
    "a copy of the model before": (
        (*EVALUATED, "Published"),
        {"published": [COPIED.model_copy(update={"digest": f"sha256:{'0c' * 32}"})]},
        {"publish": [COPY]},
        "serve",
        ("publish",),
    ),
    "copies of the adapter while it is merged": (ORDER[:3], {}, {"publish": [ADAPTER_COPY]}, "merge", ("publish",)),
    "copies of the adapter alone": (
        ORDER[:3],
        {},
        {"publish": [ADAPTER_COPY], "merge": OFF, "serve": OFF},
        None,
        ("publish",),
    ),
    "copies before there is an adapter": (ORDER[:2], {}, {"publish": [ADAPTER_COPY]}, "train", ()),
}


@pytest.mark.parametrize("name", CASES)
def test_the_stages_of_a_run(name: str) -> None:
    done, status, spec, here, beside = CASES[name]
    run = run_at(done, status, **spec)
    assert (current_stage(run), stages_beside(run)) == (here, beside)


ALONE = {"gang": {"nodes": 1}}
BEFORE: dict[str, tuple[dict[str, Any], tuple[ConditionType, ...]]] = {
    "copies of the model": ({"publish": [COPY]}, (ConditionType.MERGED,)),
    "copies of the adapter": ({"publish": [ADAPTER_COPY]}, ()),
    "copies from a volume of the server's node": (
        {"publish": [COPY]} | ALONE,
        (ConditionType.MERGED, ConditionType.SERVING),
    ),
    "copies of the adapter from a volume of the server's node": (
        {"publish": [ADAPTER_COPY]} | ALONE,
        (ConditionType.SERVING,),
    ),
    "copies from a volume of one node without a server": (
        {"publish": [COPY], "serve": OFF} | ALONE,
        (ConditionType.MERGED,),
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_what_goes_before_the_copies(name: str) -> None:
    spec, before = BEFORE[name]
    assert goes_before(run_at(SERVED, **spec), "publish") == before


NEEDLESS: dict[str, tuple[tuple[str, ...], dict[str, Any], tuple[str, ...]]] = {
    "all is wanted": ((*EVALUATED, "Published"), {"publish": [COPY]}, ()),
    "nothing is published any more": ((*EVALUATED, "Published"), {}, ("publish",)),
    "nothing is served any more": (EVALUATED, {"serve": OFF}, ("evaluate",)),
    "nothing is merged any more": (EVALUATED, {"merge": OFF, "serve": OFF}, ("merge", "evaluate")),
    "what was never begun": (ORDER[:3], {"merge": OFF, "serve": OFF}, ()),
}


@pytest.mark.parametrize("name", NEEDLESS)
def test_the_jobs_that_are_not_asked_for_any_more(name: str) -> None:
    done, spec, stages = NEEDLESS[name]
    assert needless_jobs(run_at(done, **spec)) == stages
