"""`python3 -m tests.cluster`: what the Makefile calls."""

import argparse
from collections.abc import Callable, Sequence

from tests.cluster import tools
from tests.cluster.local import LocalCluster
from tests.cluster.shell import ClusterError, say


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(action=action)
        return added

    command("up", lambda _: LocalCluster().up(), "bring the cluster up")
    command("down", lambda _: LocalCluster().down(), "take the cluster down")
    command("tools", lambda _: tools.build_all(), "build the programs")
    chosen = parser.parse_args(arguments)
    try:
        chosen.action(chosen)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0
