"""The operator as a process: killed in every stage, stopped politely, replaced by another one, cut off from the API."""

import signal
import time
from contextlib import suppress

import aiohttp

from falcon_operator.leadership import LEASE_DURATION
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.processes import Process
from tests.integration.api import api_client, until
from tests.integration.kubelet import runs_on, success
from tests.integration.lab import Lab
from tests.integration.recorder import recording

STAGES = ("prepare", "train", "merge", "serve")


def holder(kubectl: Kubectl, lab: Lab) -> str:
    """The operator process that holds the Lease; empty while none does."""
    if not kubectl.succeeds("-n", lab.namespace, "get", "lease", "falcon-operator"):
        return ""
    name = kubectl.get("-n", lab.namespace, "lease", "falcon-operator")["spec"].get("holderIdentity") or ""
    return str(name).split("_")[0]


async def until_leads(kubectl: Kubectl, lab: Lab, name: str, seconds: float = 30.0) -> None:
    async def leads() -> bool:
        return holder(kubectl, lab) == name

    await until(f"{name} to lead\n{lab.processes[-1].last_words()}", leads, seconds)


async def answers(port: int) -> bool:
    """Whether the operator with this health port is up: a standby is ready, too."""
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as response:
            return response.status == 200
    return False


async def until_dead(process: Process) -> float:
    """Seconds until the process is gone."""
    begin = time.monotonic()

    async def dead() -> bool:
        return not process.alive

    await until(f"the end of {process.name}", dead)
    return time.monotonic() - begin


async def test_an_operator_that_is_killed_in_each_stage_makes_nothing_twice(
    lab: Lab, control_plane: ControlPlane, kubectl: Kubectl
) -> None:
    lab.kubelet.stages = dict.fromkeys(STAGES, runs_on)
    async with api_client(control_plane.kubeconfig) as api, recording(api, lab.namespace) as recorder:
        await lab.submit()
        for number, stage in enumerate(STAGES):
            process = lab.start_process(f"operator-{number}", FALCON_HEALTH_PORT=str(18081 + number))
            await lab.until_pods(stage, 2 if stage == "train" else 1)
            process.kill()
            kubectl("-n", lab.namespace, "delete", "lease", "falcon-operator")  # as if it had run out
            lab.kubelet.stages[stage] = runs_on if stage == "serve" else success
        lab.start_process("operator-last", FALCON_HEALTH_PORT="18090")
        await lab.until_condition("Ready", "True")
        assert recorder.made_twice() == {}
        assert [each["attempt"] for each in (await lab.run())["status"]["attempts"]] == [1]


async def test_a_stop_releases_the_lease_and_a_crash_lets_it_run_out(lab: Lab, kubectl: Kubectl) -> None:
    first = lab.start_process("first", FALCON_HEALTH_PORT="18091")
    await until_leads(kubectl, lab, "first")
    second = lab.start_process("second", FALCON_HEALTH_PORT="18092")
    await until("second to be up", lambda: answers(18092))
    assert holder(kubectl, lab) == "first"

    first.signal(signal.SIGTERM)
    assert await until_dead(first) < 2.0
    begin = time.monotonic()
    await until_leads(kubectl, lab, "second")
    assert time.monotonic() - begin < 5.0, "the Lease was not released"

    lab.start_process("third", FALCON_HEALTH_PORT="18093")
    await until("third to be up", lambda: answers(18093))
    second.kill()
    begin = time.monotonic()
    await until_leads(kubectl, lab, "third")
    assert 10.0 < time.monotonic() - begin < 22.0, "a crashed leader keeps the Lease for its duration, and no longer"


async def test_a_leader_whose_lease_is_taken_ends(lab: Lab, kubectl: Kubectl) -> None:
    process = lab.start_process("robbed", FALCON_HEALTH_PORT="18094")
    await until_leads(kubectl, lab, "robbed")
    patch = '{"spec": {"holderIdentity": "somebody-else"}}'
    kubectl("-n", lab.namespace, "patch", "lease", "falcon-operator", "--type=merge", "-p", patch)
    await until_dead(process)
    assert "does not hold the lease" in process.last_words()


async def test_a_leader_that_the_api_server_leaves_without_answers_ends(
    lab: Lab, control_plane: ControlPlane, kubectl: Kubectl
) -> None:
    """Its requests hang; it must be silent before another one may take the Lease over."""
    process = lab.start_process("hung", FALCON_HEALTH_PORT="18096")
    await until_leads(kubectl, lab, "hung")
    control_plane.process("kube-apiserver").signal(signal.SIGSTOP)
    try:
        assert await until_dead(process) < LEASE_DURATION
    finally:
        control_plane.process("kube-apiserver").signal(signal.SIGCONT)


async def test_a_run_goes_on_after_the_api_server_was_gone(lab: Lab, control_plane: ControlPlane) -> None:
    lab.kubelet.stages["train"] = runs_on
    lab.start_process("patient", FALCON_HEALTH_PORT="18095")
    await lab.submit()
    await lab.until_pods("train", 2)
    control_plane.restart_api_server()  # in this thread, with which the API server would end
    lab.kubelet.stages["train"] = success
    await lab.until_condition("Ready", "True", seconds=60)
    assert lab.processes[-1].alive
