"""Tuning: learning rates and batch sizes found on the model itself, and how well a model does over splits and seeds."""

from __future__ import annotations

from ._batch_size import BatchSizeSearch, BatchTrial, find_batch_size
from ._ensemble import Ensemble
from ._learning_rate import LearningRateSearch, find_learning_rate
from ._scaling import scale_learning_rate
from ._validation import Scores, cross_validate, repeat

__all__ = [
    "BatchSizeSearch",
    "BatchTrial",
    "Ensemble",
    "LearningRateSearch",
    "Scores",
    "cross_validate",
    "find_batch_size",
    "find_learning_rate",
    "repeat",
    "scale_learning_rate",
]
