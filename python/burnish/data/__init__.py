"""Data that is read while the model trains: datasets, and random changes of samples."""

from .augmentation import Augmentation, random_crop, random_flip, random_noise, with_target
from .base import Dataset

__all__ = [
    "Augmentation",
    "Dataset",
    "random_crop",
    "random_flip",
    "random_noise",
    "with_target",
]
