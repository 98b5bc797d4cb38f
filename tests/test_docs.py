"""Examples in docstrings run, and every module is one that something imports."""

import doctest
import importlib
import pkgutil

import pytest

import burnish as bn

MODULES = [info.name for info in pkgutil.walk_packages(bn.__path__, "burnish.")]


@pytest.mark.parametrize("name", ["burnish", *MODULES])
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
