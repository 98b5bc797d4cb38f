"""A second session with the numbers of a model, to try things on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import _burnish

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._runtime import Core, Runtime

__all__ = ["copied_session", "untouched"]


def copied_session(runtime: Runtime) -> _burnish.Session:
    """Return a session of its own with a model's program, weights, buffers and optimizer."""
    built, compiled = runtime.built, runtime.built.compiled
    if compiled is None:
        raise ValueError("the model has no loss yet: call compile first")
    state = runtime.session.state()
    session = _burnish.Session(built.program, compiled.device, compiled.precision, compiled.seed, state)
    session.optimizer(compiled.engine_config(built.program, built.frozen()))
    session.load_optimizer_state(runtime.optimizer_state())
    return session


@contextmanager
def untouched(core: Core) -> Generator[None]:
    """Forget in the end what a look at the model made it build."""
    runtime = core.runtime
    try:
        yield
    finally:
        core.runtime = runtime
