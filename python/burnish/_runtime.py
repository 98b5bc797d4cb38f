"""A model's engine side: its program, the session that holds its numbers, and how far training has come."""

from __future__ import annotations

import hashlib
import json
import weakref
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from . import _burnish
from ._build import Built, Signature, build
from ._feed.arrays import check_signature
from ._feed.frames import in_order
from ._lengths import Sessions, check_lengths, fits, inputs_like

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import numpy.typing as npt

    from ._compile import Compiled
    from ._feed.arrays import Array
    from ._feed.sources import Piece
    from ._fit import Run
    from ._freeze import Rules
    from .layers.base import Layer
    from .optimizers.base import LearningRate

__all__ = ["Core", "Position", "Runtime", "train", "train_whole", "weak"]

_AVERAGE = "average/"  # layers' names cannot hold a slash

P = ParamSpec("P")
R = TypeVar("R")


def weak(method: Callable[P, R]) -> Callable[P, R]:
    """Return a method that does not keep its object alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: P.args, **options: P.kwargs) -> R:
        bound = reference()
        if bound is None:
            raise RuntimeError("the model is gone")
        return bound(*arguments, **options)

    return call


class Position:
    """How far training has come; it addresses the random streams and the learning rate."""

    def __init__(
        self,
        *,
        epoch: int = 0,
        batch: int = 0,
        update: int = 0,
        pending: int = 0,
        first_epoch: int = 0,
        updates_per_epoch: int = 0,
    ) -> None:
        self.epoch = epoch
        self.batch = batch  # micro-batches done in this epoch
        self.update = update  # updates made, none of them skipped: the index of the next one for the learning rate
        self.pending = pending  # micro-batches in the open accumulation group
        self.first_epoch = first_epoch  # the epoch in which updates began to be counted
        self.updates_per_epoch = updates_per_epoch  # of the last fit; 0 where it is not known

    def advance(self, batches: int, accumulate: int, updates: int) -> None:
        """Count micro-batches that were trained on and the updates made."""
        self.pending = (self.pending + batches) % accumulate
        self.batch += batches
        self.update += updates

    def close_group(self, *, updated: bool) -> None:
        """Count the update of an accumulation group that was not full, unless it was skipped."""
        self.pending = 0
        self.update += updated

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.batch = 0

    def restart_updates(self) -> None:
        """Begin to count updates anew, for another optimizer."""
        self.update = self.pending = 0
        self.first_epoch = self.epoch + (self.batch > 0)  # an epoch that was begun is not gone on with

    def epochs_of_updates(self) -> int:
        """Return how many epochs are done since updates began to be counted."""
        return max(self.epoch - self.first_epoch, 0)

    def recover(self, engine: tuple[int, int]) -> None:
        """After an exception in a fit: take over the updates that the engine made; its open group is forgotten."""
        if self.batch or engine != (self.update, self.pending):
            self.batch += 1  # so that the next fit begins another epoch
        self.update = engine[0]
        self.pending = 0

    def updates(self, batches: int, accumulate: int) -> Sequence[int]:
        """Return the index of the update that each of the next micro-batches belongs to if none is skipped."""
        if accumulate == 1:
            return range(self.update, self.update + batches)
        return [self.update + (self.pending + index) // accumulate for index in range(batches)]


class Runtime:
    """Program and session of a model that is built."""

    def __init__(self, built: Built, session: _burnish.Session) -> None:
        self.built = built
        self.sessions = Sessions(session)
        self._columns: dict[str, list[str]] = {}

    @property
    def session(self) -> _burnish.Session:
        """What holds the model's numbers."""
        return self.sessions.main()

    @cached_property
    def description(self) -> str:
        """What files say of the model and training does not change, as JSON: made once, not for each checkpoint."""
        from ._storage import described

        return json.dumps(described(self.built))

    @cached_property
    def digest(self) -> str:
        """What tells one program from another: its operations, parameters, loss and metrics."""
        return hashlib.sha256(self.built.program.to_json().encode()).hexdigest()

    def stands_at(self, position: Position) -> bool:
        """Say whether the engine has come as far as the position says."""
        state = self.session.optimizer_state()
        engine = int(state["updates"]), int(state["accumulated_batches"])
        return engine == (position.update, position.pending)

    @property
    def trains(self) -> bool:
        """Whether there is a loss, and so an optimizer."""
        return self.built.compiled is not None and self.built.targets is not None

    def trained(self) -> list[str]:
        """Return the paths of the parameters that are trained, in the engine's order."""
        if "trained" not in self._columns:
            self._columns["trained"] = self.session.trained()
        return self._columns["trained"]

    def rectified(self) -> list[str]:
        """Return the layers whose zero activations are counted, in the engine's order."""
        if "rectified" not in self._columns:
            self._columns["rectified"] = self.session.rectified()
        return self._columns["rectified"]

    def averages(self) -> dict[str, Array]:
        """Return the moving averages of the parameters by path; none before the first update."""
        averages = self.session.averages()
        if not averages and not (self.built.compiled and self.built.compiled.optimizer["average"]):
            raise ValueError("no average of the weights is kept: give compile `ema`, or fit the callback EMA")
        return averages

    def weights(self) -> dict[str, Array]:
        """Return parameters and buffers by path, and averages as `average/<path>`."""
        averages = self.session.averages()
        return self.session.state() | {f"{_AVERAGE}{path}": array for path, array in averages.items()}

    def set_weights(self, weights: dict[str, Array]) -> None:
        """Take back what `weights` gave; where no average is kept any more, the parameters become the averages."""
        averages = {path.removeprefix(_AVERAGE): array for path, array in weights.items() if path.startswith(_AVERAGE)}
        arrays = {path: array for path, array in weights.items() if not path.startswith(_AVERAGE)}
        if averages and not self.session.averages():
            arrays |= averages
            averages = {}
        self.session.load_state(arrays)  # with it, averages begin anew
        if averages:
            state = self.session.optimizer_state()
            self.session.load_optimizer_state(state | {f"average.{path}": array for path, array in averages.items()})

    def optimizer_state(self) -> dict[str, Array]:
        """Return the optimizer's arrays; none before training was set up."""
        return self.session.optimizer_state() if self.trains else {}

    def copy(self, device: str, precision: str) -> _burnish.Session:
        """Return a session with the same program and numbers, whose training steps move no parameter."""
        compiled = self.built.compiled
        seed = 0 if compiled is None else compiled.seed
        session = _burnish.Session(self.built.program, device, precision, seed, self.session.state())
        session.optimizer(json.dumps({"name": "sgd", "frozen": self.trained()}))
        return session

    def average(self, decay: float | None) -> None:
        """Begin or end to average the weights."""
        self.session.average(decay)
        self.sessions.forget()
        self.__dict__.pop("description", None)  # it holds the decay

    def drop_open_group(self) -> tuple[int, int]:
        """Forget the gradients of an open accumulation group; return how many updates came before, and its batches."""
        state = self.session.optimizer_state()
        kept = {path: array for path, array in state.items() if not path.startswith("accumulated.")}
        for name in ("accumulated_batches", "accumulated_weight"):
            kept[name] = np.zeros_like(kept[name])
        self.session.load_optimizer_state(kept)
        return int(state["updates"]), int(state["accumulated_batches"])


class Core:
    """What a model keeps for itself. The kinds of model differ in the functions, which they replace.

    Nothing here keeps the model alive, so that its memory is given back as soon as nobody else does.
    """

    def __init__(self, model: Layer, inherited: Callable[[Any], dict[str, Array]]) -> None:
        self.compiled: Compiled | None = None
        self.learning_rate: LearningRate = 0.0
        self.rules: Rules = ()
        self.runtime: Runtime | None = None
        self.run: Run | None = None  # the fit that is running
        self.left_rate: tuple[LearningRate, LearningRate] | None = None  # by the last fit, and what it began with
        self.position = Position()
        self.diagnose = False  # whether a step that is not finite is run again to find out why
        self.arrange: Callable[[Any], Any] = lambda x: x
        self.columns: dict[str, list[str]] = {}  # of tables, by argument, in the order of the first that came
        self.known_inputs: Callable[[], Signature | None] = lambda: None
        self.describe: Callable[[Signature, Signature | None], Built] | None = None
        self._model = weakref.ref(model)
        self._inherited = inherited  # the numbers of trained models inside this one, by their paths here

    def arranged(self, x: Any) -> Any:
        """Return inputs, and the columns of tables among them, in the order that the model has."""
        return self.arrange(in_order("x", x, self.columns))

    def trace(self, inputs: Signature, targets: Signature | None) -> Built:
        """Trace the model for arrays of these shapes."""
        return build(self.model, inputs, targets, self.compiled, self.rules)

    @property
    def model(self) -> Layer:
        """The model, which is there as long as anybody can ask."""
        model = self._model()
        if model is None:
            raise RuntimeError("the model is gone")
        return model

    def ensure(self, inputs: Signature, targets: Signature | None) -> Runtime:
        """Return the runtime for arrays of these shapes, building it anew where it has to be.

        Without targets those of before count, if the loss takes them. Nothing of the model changes if the build fails.
        """
        old = self.runtime
        if old is None:
            self._check_known(inputs)
        else:
            check_signature("x", old.built.inputs, inputs)
            if self._serves(old.built, targets):
                return old
        if targets is not None or old is None:
            self.runtime = self._made(inputs, targets)
        else:
            self.runtime = self._remade(inputs, old.built)
        return self.runtime

    def _made(self, inputs: Signature, targets: Signature | None) -> Runtime:
        """Build a runtime that takes over the numbers of now."""
        old = self.runtime
        built = (self.describe or self.trace)(inputs, targets)
        if targets is not None and self.compiled is not None and built.targets is None:
            raise ValueError("the model was saved before it had seen targets for its loss: call compile first")
        runtime = Runtime(built, _session(built, self._inherited(self.model) if old is None else old.session.state()))
        _carry_optimizer(old, runtime)
        return runtime

    def _remade(self, inputs: Signature, old: Built) -> Runtime:
        """Build a runtime for targets of before; for none if the model is compiled anew with what does not take them.

        A fit that is running has targets of its own: a loss that a callback compiles has to take them.
        """
        try:
            return self._made(inputs, old.targets)
        except Exception:
            if old.targets is None or old.compiled is self.compiled or self.run is not None:
                raise
            return self._made(inputs, None)  # what is wrong is told when targets come

    def fitting(self, runtime: Runtime, arrays: dict[str, Array]) -> _burnish.Session:
        """Return the session that trains on arrays: of the model traced again, if their shapes are other ones."""
        if fits(runtime.built, arrays):
            return runtime.session

        def make() -> _burnish.Session:
            if self.describe is not None:
                raise ValueError(
                    "`x`: a loaded model takes sequences of one length: give bn.data.Ragged one bucket only"
                )
            built = self.trace(inputs_like(runtime.built, arrays), runtime.built.targets)
            check_lengths(runtime.built, built)
            return _session(built, runtime.session.state())

        return runtime.sessions.fitting(arrays, make)

    def average(self, decay: float | None) -> None:
        """Begin or end to average the weights, for this runtime and those that will replace it."""
        if self.compiled is not None:
            self.compiled.optimizer["average"] = decay
        runtime = self.ready()
        runtime.average(decay)

    @contextmanager
    def unchanged_on_error(self) -> Generator[None]:
        """Forget what was built for arguments that turn out to be wrong."""
        runtime, rules, updates_per_epoch = self.runtime, self.rules, self.position.updates_per_epoch
        columns = {**self.columns}
        try:
            yield
        except BaseException:
            self.runtime, self.rules, self.position.updates_per_epoch = runtime, rules, updates_per_epoch
            self.columns = columns
            raise

    def ready(self) -> Runtime:
        """Return the runtime of a model whose input shape is known."""
        known = self.known_inputs() if self.runtime is None else self.runtime.built.inputs
        if known is None:
            raise ValueError(
                "the shape of the model's input is not known yet: begin with bn.Input(shape), or call build or fit"
            )
        return self.ensure(known, None)

    def _serves(self, built: Built, targets: Signature | None) -> bool:
        same = built.compiled is self.compiled and built.rules == self.rules
        return same and (targets is None or built.targets == targets)

    def _check_known(self, inputs: Signature) -> None:
        known = self.known_inputs()
        if known is not None:
            check_signature("x", known, inputs)


def train(
    session: _burnish.Session,
    piece: Piece,
    rates: npt.NDArray[np.float64],
    *,
    epoch: int = 0,
    first_step: int = 0,
    diagnose: bool = False,
) -> _burnish.Records:
    """Train on a piece, or after a signal on its beginning: its exception then waits in `signalled` of the session."""
    return session.train(
        piece.inputs,
        piece.order,
        batch_size=piece.batch_size,
        learning_rates=rates,
        sample_weight=piece.weight,
        epoch=epoch,
        first_step=first_step,
        diagnose=diagnose,
    )


def train_whole(
    session: _burnish.Session, piece: Piece, rates: npt.NDArray[np.float64], *, epoch: int = 0, first_step: int = 0
) -> _burnish.Records:
    """Train on all of a piece; raise what a signal raised meanwhile."""
    records = train(session, piece, rates, epoch=epoch, first_step=first_step)
    session.signalled()
    return records


def _session(built: Built, arrays: dict[str, Array]) -> _burnish.Session:
    """Return a session whose numbers are these where it has their paths, and new ones elsewhere."""
    shapes = {path: tuple(shape) for path, shape, *_ in [*built.program.parameters(), *built.program.buffers()]}
    state = {path: array for path, array in arrays.items() if path in shapes}
    compiled = built.compiled
    seed = 0 if compiled is None else compiled.seed
    state |= {path: own.drawn(path, shapes[path], seed) for path, own in built.initial.items() if path not in state}
    if compiled is None:
        return _burnish.Session(built.program, state=state)
    session = _burnish.Session(built.program, compiled.device, compiled.precision, seed, state)
    if built.targets is not None:
        session.optimizer(compiled.engine_config(built.program, built.frozen()))
    return session


def _carry_optimizer(old: Runtime | None, new: Runtime) -> None:
    if old is not None and old.trains and new.trains and old.built.compiled is new.built.compiled:
        new.session.load_optimizer_state(old.optimizer_state())
