"""NVIDIA's compiler and headers where `burnish[cuda]` put them: among Python's packages, where no loader looks."""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

__all__ = ["provide"]

# The compiler opens the builtins by name, so they have to be there before it; on Windows the folder is another.
_LIBRARIES = (
    ("lib/libnvrtc-builtins.so.*", "lib/libnvrtc.so.*"),
    ("bin/x86_64/nvrtc-builtins64_*.dll", "bin/x86_64/nvrtc64_*_0.dll"),
)


def provide() -> None:
    """Let the engine find the CUDA toolkit of the packages, if it is whole and CUDA_PATH does not name another."""
    if "CUDA_PATH" in os.environ:
        return
    spec = find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / "cu13"
        headers = (folder / "include" / name for name in ("cuda_fp16.h", "crt/mma.h", "nv/target"))
        libraries = [library for names in _LIBRARIES for name in names for library in folder.glob(name)]
        if len(libraries) >= 2 and all(header.is_file() for header in headers):
            try:
                for library in libraries:
                    ctypes.CDLL(str(library))
            except OSError:
                continue  # of another processor, say; the engine tells what it misses
            os.environ["CUDA_PATH"] = str(folder)
            return
