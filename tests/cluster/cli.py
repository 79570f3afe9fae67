"""The cluster that the demo and the tests run on; `make help` lists what a person types."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from tests.cluster import faults, provider
from tests.cluster.shell import ClusterError, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 after a sentence that says what to do; 130 when interrupted."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.action(chosen)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: Callable[[argparse.Namespace], object], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(action=action)
        return added

    command(
        "up", lambda _: provider.up(), "bring the cluster up (CLUSTER=local | kind | current) and write .run/kubeconfig"
    )
    command("down", lambda _: provider.down(), "take it down; built programs and image layers stay in the cache")
    command("images", lambda _: provider.images(), "build the images and write their names to .run/images.env")
    command("load", lambda _: provider.load(), "build the images and bring them to the nodes")
    command("deps", lambda _: provider.prepare(), "install and build what the chosen cluster lacks")
    node_faults: tuple[tuple[str, Callable[[str], None], str], ...] = (
        ("kill-node", faults.kill_node, "cut the power of a node of the local cluster"),
        ("start-node", faults.start_node, "bring it back"),
        ("stop-kubelet", faults.stop_kubelet, "cut a node off from the control plane"),
    )
    for name, act, text in node_faults:
        fault = command(name, partial(_on_node, act), text)
        fault.add_argument("name", help="node-0, node-1")
    command("restart-api-server", lambda _: faults.restart_api_server(), "kill the API server and start it again")
    return parser


def _on_node(act: Callable[[str], None], chosen: argparse.Namespace) -> None:
    act(chosen.name)
