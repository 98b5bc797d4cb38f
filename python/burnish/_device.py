"""Where a model runs."""

from __future__ import annotations

import warnings

from . import _burnish

__all__ = ["devices", "resolve_device"]


def devices() -> list[dict[str, str]]:
    """Return the devices of this machine: `name` is what `compile(device=…)` takes, `description` says what it is."""
    return _burnish.devices()


def resolve_device(device: object) -> str:
    """Return the device that is meant; "auto" is the first accelerator that works, or the CPU with a warning."""
    if not isinstance(device, str):
        raise TypeError(f"`device` must be a name such as 'cpu' or 'auto', got {device!r}")
    if device != "auto":
        return device if device in ("cpu", "ndarray") else _tried(device)
    reasons: list[str] = []
    for name in (entry["name"] for entry in devices() if entry["name"] not in ("cpu", "ndarray")):
        try:
            return _tried(name)
        except Exception as error:
            reasons.append(f"{name}: {error}")
    warnings.warn(f"device='auto' uses the CPU: {'; '.join(reasons) or 'there is no accelerator'}", stacklevel=4)
    return "cpu"


def _tried(device: str) -> str:
    _burnish.Session(_burnish.Program(), device)
    return device
