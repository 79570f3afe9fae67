"""torchrun in a hurry: starts the ranks of one pod and ends them as torchrun does, without four seconds of imports.

The launcher runs it in torchrun's place, with torchrun's arguments, where a test is about the launcher. What it must do
alike: ranks are its children, in sessions of their own, with RANK in their environment; SIGTERM is passed on to them;
after the first failure the others get SIGTERM, and what each died of is left in deaths.json.
"""

import os
import signal
import subprocess
import sys
import time

from falcon_trainer.launcher.deaths import write_deaths


def main() -> int:
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    count, node = int(arguments["--nproc-per-node"]), int(arguments["--node-rank"])
    program = sys.argv[sys.argv.index("-m") :]
    ranks = {
        rank: subprocess.Popen(
            [sys.executable, *program], env={**os.environ, "RANK": str(rank)}, start_new_session=True
        )
        for rank in range(node * count, (node + 1) * count)
    }

    def pass_on(number: int, frame: object) -> None:
        for process in ranks.values():
            process.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    while any(process.poll() is None for process in ranks.values()):
        if any(process.poll() for process in ranks.values()):
            pass_on(signal.SIGTERM, None)
            for process in ranks.values():
                process.wait()
        time.sleep(0.02)
    deaths = {rank: process.returncode for rank, process in ranks.items() if process.returncode}
    if deaths:
        write_deaths(deaths)
    return 1 if deaths else 0


if __name__ == "__main__":
    sys.exit(main())
