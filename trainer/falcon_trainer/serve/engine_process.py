"""`python -m falcon_trainer.serve.engine_process FOLDER --port PORT --device DEVICE …`: `transformers serve`, pinned to
one model that is loaded before the first request.

The command line of transformers itself would import every other command first.
"""

import argparse
import ctypes
import signal

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--attn-implementation")
    arguments = parser.parse_args()
    # An engine without the layer in front of it would hold memory and a GPU, and answer nobody.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    import torch
    from transformers.cli.serve import Serve

    if arguments.device != "cpu" and not torch.cuda.is_available():
        parser.exit(1, "The pod asked for GPUs (serve.gpus), but torch sees none: look at the node's driver.\n")

    Serve(
        force_model=arguments.folder,
        host="127.0.0.1",
        port=arguments.port,
        device=arguments.device,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
        log_level="error",
    )


if __name__ == "__main__":
    main()
