"""The doctor: says in words what is wrong with a training, shows the figures, and prescribes.

It works as a callback while a model is trained, and on a history afterwards.
"""

from __future__ import annotations

from ._doctor import Doctor
from ._report import Finding, Remedy, Report

__all__ = ["Doctor", "Finding", "Remedy", "Report"]
