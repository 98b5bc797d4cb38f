"""The CUDA toolkit that Python's packages bring is found where the machine has none."""

import ctypes
import os
from pathlib import Path

import pytest

from burnish import _toolkit

HEADERS = ("cuda_fp16.h", "crt/mma.h", "nv/target")
LIBRARIES = ("libnvrtc-builtins.so.13.0", "libnvrtc.so.13")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of packages with the toolkit in it, the only one on the path."""
    toolkit = tmp_path / "nvidia" / "cu13"
    for name in (
        *(f"include/{header}" for header in HEADERS),
        *(f"lib/{library}" for library in LIBRARIES),
        "lib/libnvrtc.alt.so.13",
    ):
        (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
        (toolkit / name).touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delenv("CUDA_PATH", raising=False)
    yield toolkit
    os.environ.pop("CUDA_PATH", None)


@pytest.fixture
def loaded(monkeypatch):
    """The names of the libraries that were loaded, in order."""
    names = []
    monkeypatch.setattr(ctypes, "CDLL", lambda path: names.append(Path(path).name))
    return names


def test_the_builtins_are_loaded_before_the_compiler_that_opens_them_by_name(packages, loaded):
    _toolkit.provide()
    assert loaded == list(LIBRARIES)
    assert os.environ["CUDA_PATH"] == str(packages)
    _toolkit.provide()
    assert loaded == list(LIBRARIES)


def test_a_toolkit_that_is_named_stays(packages, loaded, monkeypatch):
    monkeypatch.setenv("CUDA_PATH", "elsewhere")
    _toolkit.provide()
    assert (loaded, os.environ["CUDA_PATH"]) == ([], "elsewhere")


@pytest.mark.parametrize("name", [f"include/{HEADERS[1]}", f"include/{HEADERS[2]}", f"lib/{LIBRARIES[0]}"])
def test_half_a_toolkit_is_none(packages, loaded, name):
    (packages / name).unlink()
    _toolkit.provide()
    assert loaded == []
    assert "CUDA_PATH" not in os.environ


def test_a_library_that_cannot_be_loaded_is_left_alone(packages):
    _toolkit.provide()  # the files are empty
    assert "CUDA_PATH" not in os.environ


def test_no_package_of_nvidia_is_no_error(tmp_path, loaded, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delenv("CUDA_PATH", raising=False)
    _toolkit.provide()
    assert loaded == []
    assert "CUDA_PATH" not in os.environ
