"""The same model for sequences of several lengths: a program and a session for each, of which one has the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._feed.arrays import signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._build import Built, Signature
    from ._burnish import Session
    from ._feed.arrays import Array

__all__ = ["Sessions", "check_lengths", "fits", "inputs_like"]

_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class Sessions:
    """The session of the model as it was built, and those for inputs of other lengths.

    Parameters, buffers and the optimizer's state move to the session that is asked for, by way of the host, so that it
    makes no difference which one trained before.
    """

    def __init__(self, main: Session) -> None:
        self._main = self._current = main
        self._others: dict[_Shapes, Session] = {}

    def main(self) -> Session:
        """Return the model's own session."""
        return self._with_numbers(self._main)

    def fitting(self, arrays: Mapping[str, Array], make: Callable[[], Session]) -> Session:
        """Return the session for arrays of such shapes, made when it is first asked for."""
        shapes = tuple(sorted((name, array.shape[1:]) for name, array in arrays.items()))
        if shapes not in self._others:
            self._others[shapes] = make()
        return self._with_numbers(self._others[shapes])

    def forget(self) -> None:
        """Make those for other lengths anew when they are needed, as the optimizer has changed."""
        self.main()
        self._others.clear()

    def _with_numbers(self, session: Session) -> Session:
        if session is not self._current:
            session.load_state(self._current.state())
            session.load_optimizer_state(self._current.optimizer_state())
            self._current = session
        return session


def fits(built: Built, arrays: Mapping[str, Array]) -> bool:
    """Say whether arrays have the shapes that the model was built for."""
    inputs, targets = built.inputs.shapes, {} if built.targets is None else built.targets.shapes
    return all(
        (inputs[name] if name in inputs else targets[name]) == (None, *array.shape[1:])
        for name, array in arrays.items()
    )


def inputs_like(built: Built, arrays: Mapping[str, Array]) -> Signature:
    """Return the inputs that the model was built for, with the shapes of these arrays."""
    return signature_of({name: arrays[name] for name in built.inputs.shapes}, built.inputs.names)


def check_lengths(main: Built, other: Built) -> None:
    """Raise unless a model has the same parameters for both lengths."""
    first, second = (
        {path: tuple(shape) for path, shape, *_ in [*built.program.parameters(), *built.program.buffers()]}
        for built in (main, other)
    )
    for path, shape in first.items():
        if second.get(path) != shape:
            raise ValueError(
                f"`x`: the shape of the parameter {path!r} depends on the sequences' length ({shape} and "
                f"{second.get(path)}): give bn.data.Ragged one bucket only"
            )
