"""`make demo`: installs the operator, makes inputs, applies examples/dolly-tiny.yaml and asks the tuned model."""

import argparse
import json
import sys
import textwrap

from examples.demo.inputs import REPOSITORY, RESTRICTED, demo_records, pod, prepare_inputs
from examples.demo.install import OPERATOR_NAMESPACE, install_operator
from examples.demo.kube import Kubectl, KubectlError, Manifest
from examples.demo.watch import KIND, RunFailedError, Screen, follow

NAMESPACE, RUN = "falcon-demo", "dolly-tiny"
EXAMPLE = REPOSITORY / "examples" / f"{RUN}.yaml"


def ask(kubectl: Kubectl, endpoint: str) -> list[Manifest]:
    """Asks base and tuned model every trained question, from a pod inside the cluster."""
    questions = [record["instruction"] for record in demo_records()]
    files = {
        "ask.py": (REPOSITORY / "examples" / "demo" / "ask.py").read_text(),
        "questions.json": json.dumps(questions),
    }
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ask"}, "data": files})
    kubectl("delete", "pod", "ask", "--ignore-not-found", "--wait")
    manifest = pod(
        "ask", ["python", "/ask/ask.py", endpoint, RUN, "/ask/questions.json", "/inputs/base"], writable=False
    )
    manifest["spec"]["volumes"].append({"name": "ask", "configMap": {"name": "ask"}})
    manifest["spec"]["containers"][0]["volumeMounts"].append({"name": "ask", "mountPath": "/ask"})
    kubectl.apply(manifest)
    kubectl.wait_for("the pod that asks", lambda: phase(kubectl, "ask") in ("Succeeded", "Failed"), timeout=300)
    log = kubectl("logs", "ask")
    if phase(kubectl, "ask") == "Failed":
        raise RuntimeError(f"the endpoint could not be asked:\n{log}")
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def phase(kubectl: Kubectl, name: str) -> str:
    """A pod's phase."""
    return str(((kubectl.get("pod", name) or {}).get("status") or {}).get("phase", ""))


def side_by_side(answers: list[Manifest]) -> int:
    """Prints base and tuned answers beside each other; returns how many equal the trained one."""
    trained = {record["instruction"]: record["response"] for record in demo_records()}
    equal = 0
    for answer in answers:
        right = answer["tuned"].strip() == trained[answer["question"]].strip()
        equal += right
        print(f"\n\033[1m{answer['question']}\033[0m")
        before = textwrap.wrap(answer["base"].encode("ascii", "replace").decode().strip() or "(nothing)", 52)
        after = textwrap.wrap(answer["tuned"].strip() + ("   ✓" if right else "   ✗ not the trained answer"), 60)
        for i in range(max(len(before[:4]), len(after))):
            left = before[i] if i < len(before[:4]) else ""
            print(f"  {left:<52} │ {after[i] if i < len(after) else ''}")
    return equal


def next_steps(endpoint: str) -> str:
    """The commands that a user would try now."""
    return f"""
What to try next:
  export KUBECONFIG=$PWD/.run/kubeconfig PATH=$PWD/.run/bin:$PATH
  kubectl -n {NAMESPACE} get fft
  kubectl -n {NAMESPACE} describe fft {RUN}
  kubectl -n {NAMESPACE} port-forward svc/{endpoint.split("//")[1].split(".")[0]} 8000:80
  curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{RUN}", "messages": [{{"role": "user", "content": "…"}}]}}'
  kubectl -n {NAMESPACE} delete fft {RUN}      # takes every child along; your claims stay
  make demo-clean                             # deletes the demo's namespace
  make cluster-down                           # takes the local cluster away"""


def demo() -> int:
    screen, kubectl = Screen(), Kubectl(NAMESPACE)
    screen.line(f"installing the operator into namespace {OPERATOR_NAMESPACE} (Helm chart in deploy/chart)")
    install_operator()
    kubectl.ensure_namespace(RESTRICTED)
    screen.line("making a small Falcon base (180B's architecture, random weights) and copying the records")
    if not prepare_inputs(kubectl):
        screen.line("… they lie on the claim already")
    screen.line(f"kubectl apply -f examples/{EXAMPLE.name}")
    kubectl("apply", "-f", str(EXAMPLE))
    run = follow(kubectl, RUN, screen)
    endpoint: str = run["status"]["endpoint"]
    print("\n" + kubectl("get", KIND, RUN))
    screen.line(f"asking {endpoint} and the untrained base (left: base, right: fine-tuned)")
    answers = ask(kubectl, endpoint)
    equal = side_by_side(answers)
    print(f"\n{equal} of {len(answers)} trained answers reproduced.")
    print(next_steps(endpoint))
    return 0 if equal == len(answers) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m examples.demo", description=__doc__)
    parser.add_argument("--delete", action="store_true", help="delete what the demo made in the cluster")
    try:
        if parser.parse_args().delete:
            Kubectl(NAMESPACE)("delete", "namespace", NAMESPACE, "--ignore-not-found")
            return 0
        return demo()
    except (KubectlError, RunFailedError, RuntimeError, TimeoutError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        print(f"  kubectl -n {NAMESPACE} describe fft {RUN}   # where it stands and why", file=sys.stderr)
        print("  make demo-clean && make demo                # start anew", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
