"""torchrun, with one thing added: which rank ended with which exit code reaches the launcher as a file.

torchrun prints this for people only, and the exit code of torchrun itself is always 1. Started by the launcher as
`python -m falcon_trainer.launcher.agent TORCHRUN-ARGUMENTS`.
"""

import json
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from falcon_trainer.launcher.deaths import own_deaths, write_deaths
from falcon_trainer.outcome import ExitCode


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


if __name__ == "__main__":
    sys.exit(main())
