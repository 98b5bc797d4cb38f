"""Images in a folder, decoded while the model trains."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import choice, integer
from .._optional import required
from .._structure import is_sequence
from .base import Dataset

if TYPE_CHECKING:
    from .._feed.arrays import Array

__all__ = ["ImageFolder"]

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageFolder(Dataset):
    """Images in sub-folders named after their classes; needs Pillow (`pip install 'burnish[images]'`).

    `x` is `(rows, height, width, channels)`, `y` the number of the class. The rows are in the order of the classes' and
    then the files' names; a part to validate on comes from `split`.

    Parameters
    ----------
    path : path
        The folder. If images lie in it and no sub-folder holds any, they have no class: for predictions.
    size : tuple (height, width)
        What every image is brought to.
    channels : {3, 1, 4}
        Colours, grey, or colours and opacity.
    dtype : {"float32", "uint8"}
        Numbers from 0 to 1, or from 0 to 255.
    resize : {"stretch", "crop"}
        How an image of other proportions is brought to the size: stretched, or cut off evenly at two sides.
    workers : int, optional
        How many threads decode (default: one a core, at most 8).

    Attributes
    ----------
    classes : list of str
        The names of the classes, in the order of their numbers.
    files : list of Path
        The images.

    Examples
    --------
    >>> import burnish as bn
    >>> def train(model):
    ...     training, validation = bn.data.ImageFolder("flowers", size=(64, 64)).split(0.2)
    ...     return model.fit(training, validation_data=validation, augment=bn.data.random_flip())
    """

    def __init__(
        self,
        path: Any,
        size: tuple[int, int],
        *,
        channels: int = 3,
        dtype: str = "float32",
        resize: str = "stretch",
        workers: int | None = None,
    ) -> None:
        required("PIL.Image", "images")
        if not is_sequence(size) or len(size) != 2:
            raise TypeError(f"`size` must be (height, width), got {size!r}")
        self.size = integer("size", size[0], 1), integer("size", size[1], 1)
        if channels not in _MODES:
            raise ValueError(f"`channels` must be 1, 3 or 4, got {channels!r}")
        self.channels = channels
        self.dtype = choice("dtype", dtype, ("float32", "uint8"))
        self.resize = choice("resize", resize, ("stretch", "crop"))
        self.workers = min(8, os.cpu_count() or 1) if workers is None else integer("workers", workers, 1)
        self._root = Path(os.fsdecode(path))
        self.classes: list[str]
        self.files: list[Path]
        self.classes, self.files, self._labels = _listed(self._root)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: Array) -> Any:
        """Return some images, and their classes."""
        x = np.empty((len(rows), *self.size, self.channels), self.dtype)
        for place, row in enumerate(rows):
            x[place] = self._image(self.files[int(row)])
        return x, None if self._labels is None else self._labels[rows]

    def held_out(self, fraction: float) -> tuple[Dataset, Dataset]:
        """Refuse: the last images are those of the last classes."""
        raise ValueError(
            f"`validation_split` {fraction:g} would hold out the last classes: "
            "give a part of `dataset.split(fraction)` as `validation_data`"
        )

    def description(self) -> dict[str, Any]:
        """Return what the images are, and how they are brought to one size."""
        names = "\n".join(file.relative_to(self._root).as_posix() for file in self.files)
        files = hashlib.sha256(names.encode()).hexdigest()
        form = {"size": list(self.size), "channels": self.channels, "dtype": self.dtype, "resize": self.resize}
        return {"files": files, **form}

    def _image(self, file: Path) -> Array:
        images, operations = required("PIL.Image", "images"), required("PIL.ImageOps", "images")
        height, width = self.size
        try:
            with images.open(file) as opened:
                image = operations.exif_transpose(opened).convert(_MODES[self.channels])
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{str(file)!r} cannot be read as an image: {error}") from error
        if self.resize == "crop":
            image = operations.fit(image, (width, height), images.Resampling.BILINEAR)
        elif image.size != (width, height):
            image = image.resize((width, height), images.Resampling.BILINEAR)
        pixels = np.asarray(image).reshape(height, width, self.channels)
        return pixels if self.dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)


def _listed(root: Path) -> tuple[list[str], list[Path], Array | None]:
    """Return the classes that have images, the images, and their classes' numbers."""
    if not root.is_dir():
        raise NotADirectoryError(f"`path` must be a folder, got {str(root)!r}")
    several = {folder.name: _images_in(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    several = {name: files for name, files in several.items() if files}
    if several:
        labels = np.repeat(np.arange(len(several)), [len(files) for files in several.values()])
        return list(several), [file for files in several.values() for file in files], labels
    files = _images_in(root)
    if not files:
        raise ValueError(f"`path` must hold images ({', '.join(sorted(_SUFFIXES))}), got none in {str(root)!r}")
    return [], files, None


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
