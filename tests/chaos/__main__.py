"""`make chaos`: random faults at random steps on the local cluster; every run must end with the undisturbed adapter.

The last line is one JSON object. Exit code 1 where an adapter differs.
"""

import argparse
import json
import secrets
import sys
import time
from collections.abc import Sequence

from examples.demo.inputs import RESTRICTED, claim, prepare_inputs
from examples.demo.install import install_operator
from examples.demo.kube import Kubectl, command
from tests.chaos.campaign import LAST_STRIKE, RANKS, WORKSPACE, Struck, adapter_only, endure
from tests.chaos.plan import campaign
from tests.e2e.inside import run_inside
from tests.e2e.runs import wait_true

CALM = "undisturbed"


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    seed = secrets.randbits(32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}: make chaos SEED={seed} RUNS={chosen.runs} does the same again", flush=True)
    install_operator()
    kubectl = Kubectl(f"falcon-chaos-{secrets.token_hex(3)}")
    kubectl.ensure_namespace(RESTRICTED)
    try:
        return _report(seed, *_conduct(kubectl, seed, chosen.runs))
    finally:
        command("kubectl", "delete", "namespace", kubectl.namespace, "--wait=false")


def _conduct(kubectl: Kubectl, seed: int, runs: int) -> tuple[list[Struck], dict[str, str]]:
    """The struck runs, one after the other, and the digest of every adapter by run."""
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.0f} s] {text}", flush=True)

    prepare_inputs(kubectl)
    kubectl.apply(claim(WORKSPACE), adapter_only(CALM))
    wait_true(kubectl, CALM, "Trained", timeout=600)
    say(f"{CALM}: done")
    struck = []
    for number, strikes in enumerate(campaign(seed, runs=runs, steps=LAST_STRIKE, ranks=RANKS), start=1):
        struck.append(endure(kubectl, f"struck-{number}", strikes, say))
        say(f"struck-{number}: done after {struck[-1].attempts} attempts")
    names = [CALM, *(run.name for run in struck)]
    return struck, run_inside(kubectl, "adapter_digests.py", "/workspace", *names, claims={"/workspace": WORKSPACE})


def _report(seed: int, struck: Sequence[Struck], digests: dict[str, str]) -> int:
    print(f"\n{'run':<12}{'faults':<60}{'attempts':>9}{'repeated':>10}  adapter")
    equal = 0
    for run in struck:
        same = digests[run.name] == digests[CALM]
        equal += same
        faults = ", ".join(f"{strike.fault} at {strike.step}" for strike in run.strikes)
        verdict = "equal" if same else "DIFFERS"
        print(f"{run.name:<12}{faults:<60}{run.attempts:>9}{run.repeated:>10}  {verdict}")
    told = {"seed": seed, "runs": len(struck), "faults": sum(len(run.strikes) for run in struck), "equal": equal}
    print(json.dumps(told | {"steps_repeated": sum(run.repeated for run in struck)}))
    return 0 if equal == len(struck) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--runs", type=int, default=3)
    return parser


if __name__ == "__main__":
    sys.exit(main())
