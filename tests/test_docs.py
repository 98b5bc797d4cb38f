"""Examples in docstrings and in docs/ run, and every module is one that something imports."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import burnish as bn

MODULES = [info.name for info in pkgutil.walk_packages(bn.__path__, "burnish.")]
PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))


@pytest.mark.parametrize("name", ["burnish", *MODULES])
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_every_layer_loss_and_metric_is_in_the_table():
    page = (Path(__file__).parents[1] / "docs" / "layers.md").read_text(encoding="utf-8")
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", page))))
    names = {*bn.layers.__all__, *bn.losses.__all__, *bn.metrics.__all__} - {"Layer", "Loss", "Metric"}
    assert names <= told, names - told


def test_every_operation_is_in_the_table():
    page = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`", page))
    assert set(bn.ops.__all__) <= told, set(bn.ops.__all__) - told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for module in re.findall(r"<!-- needs (\w+) -->", text):
        pytest.importorskip(module)
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner().run(test).failed == 0
