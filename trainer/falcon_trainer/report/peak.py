"""The peak of the hardware that MFU is measured against: from data sheets where the GPU is known, else measured."""

import re
import time
from pathlib import Path

from falcon_trainer.wire import Wire

TERA = 1e12

DATA_SHEETS: tuple[tuple[str, float], ...] = (
    (r"GB[23]00", 2500.0),
    (r"B[23]00", 2250.0),
    (r"GH200", 989.5),
    (r"H[12]00 NVL", 835.5),
    (r"H100 PCIe", 756.5),
    (r"H[128]00", 989.5),
    (r"A[18]00", 312.0),
    (r"L40S", 362.0),
    (r"L40", 181.0),
    (r"L4", 121.0),
    (r"A40", 149.7),
    (r"A30", 165.0),
    (r"A10G", 70.0),
    (r"A10", 125.0),
)
"""Name as CUDA gives it, and dense bfloat16 TFLOP/s of the tensor cores: NVIDIA's data sheets of each product, half of
the figure "with sparsity". The first that fits counts. Not run on a GPU."""

MEASURED_SECONDS = 0.2
CPU_SIZE, GPU_SIZE = 1024, 8192
"""Rows and columns of the matrices that are multiplied: large enough that the multiplication is all that counts."""


class Peak(Wire):
    """Peak of one rank's hardware."""

    device: str
    flops: float
    """FLOP/s."""
    origin: str
    """Where the figure comes from, as a phrase for the page."""


def peak(*, gpu: bool) -> Peak:
    """The peak of this rank's GPU, or of as many CPU threads as torch uses here."""
    import torch

    if not gpu:
        threads = torch.get_num_threads()
        device = f"{_processor()}, {threads} {'thread' if threads == 1 else 'threads'} per rank"
        origin = f"measured on rank 0: fp32 product of matrices of {CPU_SIZE} x {CPU_SIZE}"
        return Peak(device=device, flops=_measured("cpu", torch.float32, CPU_SIZE), origin=origin)
    name = torch.cuda.get_device_name()  # not run on a GPU
    if (known := of_data_sheet(name)) is not None:
        return Peak(device=name, flops=known, origin="dense bf16 peak of NVIDIA's data sheet")
    origin = f"measured on rank 0, because the GPU is not in our table: bf16 product of {GPU_SIZE} x {GPU_SIZE}"
    return Peak(device=name, flops=_measured("cuda", torch.bfloat16, GPU_SIZE), origin=origin)


def of_data_sheet(name: str) -> float | None:
    """FLOP/s of the GPU that CUDA calls `name`; None where it is not known."""
    for pattern, tera_flops in DATA_SHEETS:
        if re.search(rf"\b{pattern}\b", name):
            return tera_flops * TERA
    return None


def _measured(device: str, dtype: "object", size: int) -> float:
    """The fastest of a few products: the others were disturbed. Draws no random numbers, which training counts on."""
    import torch

    one, other = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))  # type: ignore[call-overload]
    fastest, deadline = float("inf"), time.perf_counter() + MEASURED_SECONDS
    while time.perf_counter() < deadline or fastest == float("inf"):
        started = time.perf_counter()
        product = one @ other
        product[0, 0].item()  # waits for the device
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "CPU"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "CPU")
