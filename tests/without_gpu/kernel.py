"""Makes a shared object of a kernel: `python kernel.py STEM` reads STEM.cu, writes STEM.cpp and STEM.so."""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ("-std=c++20", "-O1", "-w", "-fPIC", "-fno-strict-aliasing", "-mfma", "-mf16c")

# The types that <cstdint> has.
TYPES = re.compile(r"^typedef (?:un)?signed [\w ]+ u?int\d+_t;\n", re.MULTILINE)
SHARED = re.compile(r"extern __shared__ __align__\(\d+\) char (\w+)\[\];")
ATOMIC = re.compile(
    r'asm volatile\("atom\.relaxed\.(\w+)(?:\.noftz)?\.\w+ %0, \[%1\], %2;" : '
    r'"=\w"\((\w+)\) : "\w"\((\w+)\), "\w"\((\w+)\) *\);'
)
# Of both branches the one for GPUs that lack the instruction.
BRANCHES = re.compile(r"#if __CUDA_ARCH__ >= \d+.*?#else", re.DOTALL)
INCLUDES = re.compile(r"#include <(?:cuda_\w+|mma)\.h>\n")
KERNEL = re.compile(r'extern "C" __global__ \w+ __launch_bounds__\(\d+\)\s+(\w+)\(')
WAITS = re.compile(r"__sync|__shfl|__all_|__any_|__ballot")

LAUNCH = """
static void** parameters;
static void thread() {{ device::call(&{kernel}, parameters); }}
extern "C" void launch(void** given, const unsigned* grid, const unsigned* block, size_t shared) {{
    parameters = given;
    device::body = thread;
    device::run_grid(grid, block, shared, {waits});
}}
"""


def translated(source: str) -> str:
    """Return CUDA C++ of CubeCL's as C++ for device.h."""
    for pattern, text in (
        (TYPES, ""),
        (INCLUDES, ""),
        (BRANCHES, "#if 0\n#else"),
        (SHARED, r"char* const \1 = device::shared_memory;"),
        (ATOMIC, r"\2 = atomic_\1<decltype(\2)>(\3, \4);"),
    ):
        source = pattern.sub(text, source)
    if "asm" in source:
        raise ValueError("the kernel has instructions that nothing here stands in for")
    found = KERNEL.search(source)
    if found is None:
        raise ValueError("the source has no kernel")
    return source + LAUNCH.format(kernel=found[1], waits="true" if WAITS.search(source) else "false")


def compiled(source: Path, *options: str) -> None:
    """Have g++ compile a file."""
    include = Path(os.environ["CUDA_PATH"]) / "include"
    folders = ("-I", str(include), "-I", str(include / "cccl"))
    subprocess.run(["g++", *FLAGS, *folders, *options, str(source)], check=True)


if __name__ == "__main__":
    stem = sys.argv[1]
    Path(f"{stem}.cpp").write_text(translated(Path(f"{stem}.cu").read_text()))
    header = Path(os.environ["BURNISH_KERNELS"]) / "device.h"  # beside it lies what g++ made of it
    compiled(Path(f"{stem}.cpp"), "-shared", "-include", str(header), "-o", f"{stem}.so")
