"""Weights that PyTorch saved, under the names and in the layouts that they have here."""

from .weights import Names, from_torch

__all__ = ["Names", "from_torch"]
