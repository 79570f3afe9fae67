"""The processes that gather rows beside a rank (`training.dataLoaderWorkers`)."""

import os


def leave_group(index: int) -> None:
    """First act of worker `index`: a process group of its own.

    torchrun stops a rank with a SIGTERM to its whole group. The rank then saves and ends, but a worker would die at
    once, and torch's loader would raise in the rank before it has saved. A worker whose rank is gone ends by itself:
    torch looks every five seconds.
    """
    os.setpgid(0, 0)
