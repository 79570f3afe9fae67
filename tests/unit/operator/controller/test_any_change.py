"""Whatever a person changes, and whenever: the run comes to where its spec wants it, and the server never serves what
was not verified.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_operator.api.status import ConditionType
from falcon_operator.controller.flow.course import unpublished
from falcon_operator.controller.flow.snapshot import Reference
from tests.unit.operator.controller.snapshots import ORDER, run_at
from tests.unit.operator.controller.world import World, merged_as

MODEL, OTHER = {"uri": "hf://acme/bot"}, {"uri": "s3://models/bot"}
ADAPTER = {"uri": "s3://models/adapter", "what": "adapter"}
CHANGES = st.one_of(
    st.sampled_from(["auto", "bfloat16", "float16"]).map(lambda dtype: {"merge": {"dtype": dtype}}),
    st.sampled_from(["256Mi", "1Gi"]).map(lambda memory: {"merge": {"memory": memory}}),
    st.sampled_from([None, [MODEL], [MODEL, OTHER], [ADAPTER], [OTHER, ADAPTER]]).map(
        lambda copies: {"publish": copies}
    ),
    st.booleans().map(lambda enabled: {"serve": {"enabled": enabled}}),
    st.booleans().map(lambda suspend: {"suspend": suspend}),
)
STEPS = st.lists(st.sampled_from(["look", "play"]), max_size=6)
STORIES = st.lists(st.tuples(CHANGES, STEPS), min_size=1, max_size=5)


def go(world: World, steps: list[str]) -> None:
    for step in steps:
        if step == "play":
            world.play()
        else:
            plan = world.look()
            server_goes = any(obj["kind"] == "Deployment" for obj in plan.delete)
            assert not (server_goes and world.run.spec.serve.enabled), "a server that is wanted is never deleted"
        served = world.served()
        assert served is None or served.digest in world.verified


def arrived(world: World) -> None:
    """The run is where its spec wants it, with the results that its spec asks for, and is left alone there."""
    status, spec = world.run.status, world.run.spec
    told = {condition.type: condition.status for condition in status.conditions}
    assert (told[ConditionType.READY], told[ConditionType.STALLED]) == ("True", "False")
    model = merged_as(spec.merge.dtype)
    assert status.merged == model
    assert world.served() == (model if spec.serve.enabled else None)
    assert status.endpoint == ("http://r-serve.ml.svc/v1" if spec.serve.enabled else None)
    assert unpublished(world.run) == []
    assert (Reference("Job", "r-publish") in world.objects) <= bool(spec.publish)
    assert (ConditionType.PUBLISHED in told) == bool(spec.publish)
    assert (ConditionType.EVALUATED in told) == spec.serve.enabled
    if spec.serve.enabled:
        assert told[ConditionType.EVALUATED] == "True"
        assert status.evaluation
        assert status.evaluation.merged == model.digest
    assert world.settle().again is None


def at_rest(world: World) -> None:
    """Nothing of a suspended run works; one that had nothing left to do is as it was."""
    told = {condition.type: condition.status for condition in world.run.status.conditions}
    assert "True" in (told[ConditionType.SUSPENDED], told[ConditionType.READY])
    assert [pod for pods in world.pods.values() for pod in pods if pod["status"]["phase"] == "Running"] == []
    server = world.objects.get(Reference("Deployment", "r-serve"))
    assert server is None or (server["spec"]["replicas"], told[ConditionType.SUSPENDED]) == (0, "True")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(begun=st.sampled_from(ORDER[2:4]), story=STORIES)
def test_a_run_comes_to_where_its_spec_wants_it(begun: str, story: list[tuple[dict[str, Any], list[str]]]) -> None:
    world = World(run_at(ORDER[:3]))
    if begun == "Merged":
        world.settle()
    for change, steps in story:
        world.change(**change)
        go(world, steps)
    if world.run.spec.suspend:
        world.settle()
        at_rest(world)
        world.change(suspend=False)
    world.settle()
    arrived(world)
