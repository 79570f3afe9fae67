"""Seconds from a kill to the next training step on the local cluster, part by part, and the steps that it cost.

A gang of two ranks trains the demo's small Falcon and is struck as often as asked: a pod deleted (SIGTERM), a rank
killed (SIGKILL), a rank and the leading operator killed at once, a node without power. The last line is one JSON
object: the largest of each kind.

    make cluster-up images-load && .venv/bin/python bench/recovery.py --repeats 2
"""

import argparse
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.demo.inputs import RESTRICTED, claim, prepare_inputs
from examples.demo.install import OPERATOR_NAMESPACE, install_operator
from examples.demo.kube import Kubectl, Manifest, command
from tests.chaos.campaign import EVERY, SPEC, WORKSPACE
from tests.chaos.recovery import Recovery, recover
from tests.chaos.timeline import timeline
from tests.cluster import faults
from tests.cluster.paths import IMAGES_ENV, KUBECONFIG, RUN
from tests.e2e.gang import node_of, signal_rank, train_pods, wait_for_checkpoint
from tests.e2e.operator import leader, leaders_pod
from tests.e2e.runs import ADAPTER_ONLY, KIND, merged, run_named

TOLERATION = int(SPEC["gang"]["nodeLossTolerationSeconds"])
SIGTERM, SIGKILL, LEADER, NODE = "pod deleted", "rank killed", "with leader", "node lost"
PARTS = ("ending", "deciding", "scheduling", "starting", "loading", "first_step", "total")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="kills of each kind")
    chosen = parser.parse_args(arguments)
    _enter_cluster()
    install_operator()
    kubectl = Kubectl(f"falcon-recovery-{secrets.token_hex(3)}")
    kubectl.ensure_namespace(RESTRICTED)
    try:
        measured = _measure(kubectl, chosen.repeats)
    finally:
        command("kubectl", "delete", "namespace", kubectl.namespace, "--wait=false")
    _print(measured)
    return 0


def _enter_cluster() -> None:
    """What make sets for every program that uses the cluster."""
    os.environ["KUBECONFIG"] = str(KUBECONFIG)
    os.environ["PATH"] = f"{RUN / 'bin'}:{os.environ['PATH']}"
    for line in IMAGES_ENV.read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ[name] = value


def _measure(kubectl: Kubectl, repeats: int) -> list[tuple[str, Recovery]]:
    prepare_inputs(kubectl)
    kubectl.apply(claim(WORKSPACE))
    pods = [kind for kind in (SIGTERM, SIGKILL, LEADER) for _ in range(repeats)]
    two_pods = _strike(kubectl, "two-pods", {}, pods)
    # One pod with both ranks, so that it finds room on the other node.
    return two_pods + _strike(kubectl, "one-pod", {"nodes": 1, "processesPerNode": 2}, [NODE] * repeats)


def _strike(kubectl: Kubectl, run: str, gang: dict[str, int], kinds: Sequence[str]) -> list[tuple[str, Recovery]]:
    """Strikes one run once for each kind; it would not end by itself."""
    changes = {"gang": gang, "training": {"maxSteps": 100_000}}
    kubectl.apply(run_named(run, **merged(merged(SPEC, changes), ADAPTER_ONLY)))
    measured, saved = [], 0
    with timeline(kubectl.namespace, run) as seen:
        for attempt, kind in enumerate(kinds, start=1):
            saved = wait_for_checkpoint(kubectl, run, saved + EVERY, attempt=attempt)
            pod = train_pods(kubectl, run, attempt)[-1]
            node = node_of(pod) if kind == NODE else None
            if node:
                _lead_from_elsewhere(kubectl, node)
            try:
                found = recover(kubectl, seen, run, attempt, _killer(kubectl, kind, pod), node=node)
            finally:
                if node:
                    faults.start_node(node)
            measured.append((kind, found))
            print(f"{kind}: {found.total:.1f} s", flush=True)
    kubectl("delete", KIND, run)
    return measured


def _killer(kubectl: Kubectl, kind: str, pod: Manifest) -> Callable[[], float]:
    """Kills, and returns when it began to. Rank 1 is in the last pod, be it alone there or not."""
    leading = leaders_pod()

    def kill() -> float:
        begin = time.monotonic()
        if kind == SIGTERM:
            kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        elif kind == NODE:
            faults.kill_node(node_of(pod))
        else:
            if kind == LEADER:
                faults.crash_pod(node_of(leading), leading["metadata"]["uid"])
            signal_rank(kubectl, pod, 1, signal.SIGKILL)
        return begin

    return kill


def _lead_from_elsewhere(kubectl: Kubectl, node: str) -> None:
    """Moves the leading operator away from a node: how long a successor takes is measured by itself."""
    if node_of(leaders_pod()) != node:
        return
    Kubectl(OPERATOR_NAMESPACE)("delete", "pod", leaders_pod()["metadata"]["name"])
    kubectl.wait_for("a leader elsewhere", lambda: bool(leader()) and node_of(leaders_pod()) != node, timeout=120)


def _print(measured: Sequence[tuple[str, Recovery]]) -> None:
    heads = ("old gang ends", "operator", "scheduling", "start-up", "load", "first step", "total", "steps lost")
    print(f"\n{'seconds':<14}" + "".join(f"{head:>15}" for head in heads))
    for kind, recovery in measured:
        figures = "".join(f"{getattr(recovery, part):>15.1f}" for part in PARTS)
        print(f"{kind:<14}{figures}{recovery.steps_lost:>15}")
    print(f"\nA lost node counts as ended when it is tainted; pods tolerate that for {TOLERATION} s.\n")
    print(json.dumps(_summary(measured)))


def _summary(measured: Sequence[tuple[str, Recovery]]) -> dict[str, float]:
    def worst(part: str, *kinds: str) -> float:
        found: list[float] = [getattr(each, part) for kind, each in measured if kind in kinds]
        return round(max(found), 1)

    return {
        "pod_kill_operator_s": worst("deciding", SIGTERM, SIGKILL),
        "node_kill_operator_s": worst("deciding", NODE),
        "pod_kill_total_s": worst("total", SIGTERM, SIGKILL),
        "takeover_s": worst("until_next", LEADER),
        "node_kill_total_s": worst("total", NODE),
        "node_missed_s": worst("ending", NODE),
        "node_toleration_s": TOLERATION,
        "steps_lost_sigterm": worst("steps_lost", SIGTERM),
        "steps_lost_sigkill": worst("steps_lost", SIGKILL),
        "checkpoint_interval": EVERY,
    }


if __name__ == "__main__":
    sys.exit(main())
