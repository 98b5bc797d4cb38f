"""Data that is read while the model trains: datasets, tables, images, sequences, and random changes of samples."""

from .augmentation import Augmentation, random_crop, random_flip, random_noise, with_target
from .base import Dataset
from .images import ImageFolder
from .parquet import Parquet
from .prefetch import prefetch
from .ragged import Ragged

__all__ = [
    "Augmentation",
    "Dataset",
    "ImageFolder",
    "Parquet",
    "Ragged",
    "prefetch",
    "random_crop",
    "random_flip",
    "random_noise",
    "with_target",
]
