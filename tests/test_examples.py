"""The examples that need data of their own run in small: as a user runs them, on a few made-up images and lines."""

import gzip
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch):
    """Run an example with arguments."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    return run


def write_images(folder, part, rows, rng):
    """Write files in MNIST's format: squares, large ones (1) and small ones (0)."""
    labels = np.arange(rows, dtype=np.uint8) % 2
    images = rng.integers(0, 64, (rows, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[14 - 4 - 8 * label : 14 + 4 + 8 * label, 10:18] = 255
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images.tobytes()))
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels.tobytes()))


def test_fashion_mnist(run, rng, tmp_path, capsys):
    write_images(tmp_path, "train", 32, rng)
    write_images(tmp_path, "t10k", 32, rng)
    run("fashion_mnist", tmp_path, "--epochs", 50)
    assert capsys.readouterr().out.splitlines()[-1] == "test accuracy: 100.00%"


def test_character_model(run, tmp_path, capsys):
    sentence = "the quick brown fox jumps over the lazy dog. "
    (tmp_path / "text.txt").write_text(60 * sentence)
    run("character_model", tmp_path / "text.txt", "--epochs", 10, "--batch-size", 4, "--write", 60)
    assert capsys.readouterr().out.splitlines()[-1] in 4 * sentence


@pytest.mark.parametrize("name", ["fashion_mnist", "character_model"])
def test_a_missing_file_is_said_in_a_line(run, tmp_path, name):
    with pytest.raises(SystemExit, match=r"is not there: `apt install [a-z-]+`, or give the path of"):
        run(name, tmp_path / "absent")
