"""Runs the tests of `cuda` on a machine without a GPU: `python tests/without_gpu [arguments of pytest]`.

Needs a build with `cuda`, `burnish[cuda]` and g++. Libraries of the same names take the places of NVIDIA's driver and
compiler: g++ compiles the kernels for this processor, and each CUDA thread of a block is a fiber (device.h). That is
slow, and no measure of time, but it runs every kernel that burnish asks for of a GPU with compute capability 7.5 and
no tensor cores. At the end NVIDIA's own compiler, which needs no GPU, is asked whether it takes them all.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import kernel

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "without_gpu"


def toolkit() -> Path:
    """Return the folder of `burnish[cuda]`'s packages."""
    spec = find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        if (Path(place) / "cu13" / "include" / "nv" / "target").is_file():
            return Path(place) / "cu13"
    sys.exit("burnish[cuda] is not installed")


def prepared(cuda: Path) -> dict[str, str]:
    """Compile the stand-ins; return the environment in which they are found."""
    folder = BUILD / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(CUDA_PATH=str(cuda), BURNISH_KERNELS=str(folder))
    for name, source in (("libcuda.so.1", "driver.cpp"), ("libnvrtc.so.13", "compiler.cpp")):
        kernel.compiled(HERE / source, "-shared", "-o", str(BUILD / name))
    shutil.copy(HERE / "device.h", folder)
    kernel.compiled(folder / "device.h", "-x", "c++-header", "-o", str(folder / "device.h.gch"))
    return {
        **os.environ,
        "BURNISH_COMPILE": f"{sys.executable} {HERE / 'kernel.py'}",
        "BURNISH_TEST_DEVICES": "cuda",
        "LD_LIBRARY_PATH": str(BUILD),
        "XDG_CACHE_HOME": str(BUILD / "cache"),  # what CubeCL keeps is not that of a GPU
    }


def refused(cuda: Path) -> list[str]:
    """Return what NVIDIA's compiler says of kernels that it does not take."""
    for name in ("libnvrtc-builtins.so.13.0", "libnvrtc.so.13"):
        compiler = ctypes.CDLL(str(cuda / "lib" / name))
    options = ("--gpu-architecture=sm_75", *(f"--include-path={cuda}/include{part}" for part in ("", "/cccl")))
    given = (ctypes.c_char_p * len(options))(*map(str.encode, options))
    answers = []
    for source in sorted((BUILD / "kernels").glob("*.cu")):
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        compiler.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), None, 0, None, None)
        if compiler.nvrtcCompileProgram(program, len(options), given):
            compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            compiler.nvrtcGetProgramLog(program, log)
            answers.append(f"{source}: {log.value.decode()}")
        compiler.nvrtcDestroyProgram(ctypes.byref(program))
    return answers


def main() -> None:
    """Run the tests, then the compiler."""
    cuda = toolkit()
    arguments = sys.argv[1:] or ["-m", "cuda", "--numprocesses", "2", "--timeout", "1800"]
    failed = subprocess.run([sys.executable, "-m", "pytest", *arguments], env=prepared(cuda), check=False).returncode
    answers = refused(cuda)
    print(*answers, f"NVIDIA's compiler refuses {len(answers)} kernels", sep="\n")
    sys.exit(failed or bool(answers))


if __name__ == "__main__":
    main()
