"""Callbacks: hooks into a fit, with Keras's names and order.

Epochs and batches are counted from 0. A fit whose callbacks use batch hooks goes to the engine one batch at a time,
otherwise in chunks of about a tenth of a second. The result is the same to the bit.
"""

from ..doctor import Doctor
from .averaging import EMA, SWA
from .base import Callback, LambdaCallback
from .checkpoint import Checkpoint
from .json_lines import JSONLogger
from .logs import CSVLogger, Timer
from .monitoring import Monitor
from .progress import ProgressBar
from .rates import LearningRateScheduler, ReduceLROnPlateau
from .saving import ModelCheckpoint
from .search import OptunaPruning
from .stopping import EarlyStopping, TerminateOnNaN
from .tracker import Tracker
from .trackers import MLflow, TensorBoard, WandB

__all__ = [
    "EMA",
    "SWA",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "Doctor",
    "EarlyStopping",
    "JSONLogger",
    "LambdaCallback",
    "LearningRateScheduler",
    "MLflow",
    "ModelCheckpoint",
    "Monitor",
    "OptunaPruning",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "Timer",
    "Tracker",
    "WandB",
]
