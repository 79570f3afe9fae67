"""torchrun, with one thing added: which rank ended with which exit code reaches the launcher as a file.

torchrun prints this for people only, and the exit code of torchrun itself is always 1. Started by the launcher as
`python -m falcon_trainer.launcher.agent TORCHRUN-ARGUMENTS`.
"""

import json
import signal
import sys
from collections.abc import Mapping

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import main as torchrun

from falcon_trainer.launcher.deaths import write_deaths
from falcon_trainer.outcome import ExitCode

CLOSE_SECONDS = 30
"""After a rank's failure torchrun kills the others that have not left by then (PContext.close)."""


def main() -> int:
    """Runs torchrun; 1 where a rank failed, 143 where it was stopped. Raises what else torchrun raises."""
    try:
        torchrun()
    except ChildFailedError as error:
        deaths = own_deaths(error.failures)
        write_deaths(deaths)
        print(f"ranks ended with these exit codes (negative: a signal): {json.dumps(deaths)}", file=sys.stderr)
        return 1
    except SignalException as error:
        print(f"torchrun ended its ranks: {error}", file=sys.stderr)
        return ExitCode.STOPPED
    return 0


def own_deaths(failures: Mapping[int, ProcessFailure]) -> dict[int, int]:
    """Rank → exit code, without the ranks that torchrun killed itself. Its times are whole seconds."""
    first = min((failure.timestamp for failure in failures.values()), default=0)
    return {
        rank: failure.exitcode
        for rank, failure in failures.items()
        if failure.exitcode != -signal.SIGKILL or failure.timestamp < first + CLOSE_SECONDS - 1
    }


if __name__ == "__main__":
    sys.exit(main())
