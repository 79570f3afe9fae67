"""Compile DeepSpeed's operators ahead of time: `build_operators.py OUT` writes what is to be laid over the environment.

DeepSpeed's own ahead-of-time build (DS_BUILD_…) compiles for the processor it runs on (`-march=native`); an image runs
on other nodes too. Here its builders are kept and told which instructions every node has: x86-64-v3 (AVX2, since 2013).
"""

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from torch.utils.cpp_extension import load

# cpu_adam: optimizer offloaded to the CPU. fused_adam: the optimizer on the device.
# deepspeed_shm_comm: collectives among the ranks of one pod, asked for whenever torch.distributed starts on CPU.
BUILDERS = {
    "cpu": ["CPUAdamBuilder", "FusedAdamBuilder", "ShareMemCommBuilder"],
    "cuda": ["CPUAdamBuilder", "FusedAdamBuilder"],
}
PORTABLE = {"-march=native": "-march=x86-64-v3", "-D__AVX512__": "-D__AVX256__"}


def compile_operator(builder_name: str, site_packages: Path, scratch: Path) -> str:
    """Compile one operator into the copy of the environment; returns DeepSpeed's name of it."""
    builder = get_accelerator().create_op_builder(builder_name)
    package, _, module = builder.absolute_name().rpartition(".")
    target = site_packages.joinpath(*package.split("."))
    target.mkdir(parents=True, exist_ok=True)
    build = scratch / module
    build.mkdir(parents=True)
    load(
        name=module,
        sources=[builder.deepspeed_src_path(source) for source in builder.sources()],
        extra_include_paths=[
            builder.deepspeed_src_path(path) for path in builder.strip_empty_entries(builder.include_paths())
        ],
        extra_ldflags=builder.strip_empty_entries(builder.extra_ldflags()),
        build_directory=str(build),
        is_python_module=False,
        **compiler_flags(builder),
    )
    shutil.copy2(build / f"{module}.so", target)
    return str(builder.name)


def compiler_flags(builder: Any) -> dict[str, Any]:
    """What DeepSpeed's own just-in-time build would pass, made portable."""
    cxx = [PORTABLE.get(flag, flag) for flag in builder.strip_empty_entries(builder.cxx_args()) if flag != "-g"]
    if not hasattr(builder, "compute_capability_args"):
        return {"extra_cflags": cxx}
    # Not run on a GPU. In this mode the builder takes the architectures from TORCH_CUDA_ARCH_LIST.
    builder.build_for_cpu = False
    builder.jit_mode = True
    nvcc = builder.strip_empty_entries(builder.nvcc_args())
    if builder.enable_bf16:
        cxx = [*cxx, "-DBF16_AVAILABLE"]
        nvcc = [*nvcc, "-DBF16_AVAILABLE", "-U__CUDA_NO_BFLOAT16_OPERATORS__", "-U__CUDA_NO_BFLOAT162_OPERATORS__"]
    return {"extra_cflags": cxx, "extra_cuda_cflags": nvcc, "with_cuda": True}


def main(out: Path) -> None:
    installed = Path(deepspeed.__file__).parent
    site_packages = out / installed.parent.relative_to(sysconfig.get_path("data"))
    accelerator = get_accelerator().device_name()
    built = [compile_operator(name, site_packages, out.with_name("scratch")) for name in BUILDERS[accelerator]]
    record = (installed / "git_version_info_installed.py").read_text()
    facts: dict[str, object] = {}
    exec(record, facts)
    operators = dict(facts["installed_ops"]) | dict.fromkeys(built, True)
    # What DeepSpeed compares with the torch it meets at run time, as its setup.py would have written it.
    runtime = {
        "version": ".".join(torch.__version__.split(".")[:2]),
        "bf16_support": False,
        "cuda_version": ".".join((torch.version.cuda or "0.0").split(".")[:2]),
        "nccl_version": "0.0",
        "hip_version": "0.0",
    }
    lines = [line for line in record.splitlines() if line.split("=")[0] in {"version", "git_hash", "git_branch"}]
    lines += [f"installed_ops={operators!r}", f"accelerator_name={accelerator!r}", f"torch_info={runtime!r}"]
    (site_packages / "deepspeed" / "git_version_info_installed.py").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
