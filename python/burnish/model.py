"""The model: a layer that can be compiled, trained, asked and saved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from . import _compile, _freeze, _storage, _training
from ._errors import choice, hinted
from ._fit import close_group
from ._node import has_nodes
from ._runtime import Core
from ._summary import summary_table
from ._symbol import current_trace
from .layers.base import Layer, layers_and_paths
from .optimizers.base import checked_learning_rate, learning_rate_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from ._feed.arrays import Array
    from ._precision import LossScale
    from ._torch import Names
    from .history import History
    from .optimizers.base import LearningRate

__all__ = ["Model", "core_of"]


class Model(Layer):
    """A network from arrays to arrays. Three ways to make one: `Sequential`, `Model(inputs, outputs)`, or a subclass.

    Parameters
    ----------
    inputs : value of `Input`, or a list or dict of them
        Where the functional form begins.
    outputs : value made from them, or a list or dict of such values
        Where it ends.
    name : str, optional
        The model's name when it is a layer of another one.

    Notes
    -----
    A model inside a model is a layer. What it has learnt is copied into the outer model when that one is built; from
    then on each has its own numbers. To copy a model, save it and load it: the copy runs without the code.

    Examples
    --------
    >>> import burnish as bn
    >>> class Twin(bn.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.left, self.right = bn.layers.Dense(4), bn.layers.Dense(4)
    ...     def call(self, x):
    ...         return self.left(x) * self.right(x)
    >>> sorted(Twin().build((None, 3)).parameters())
    ['left.bias', 'left.kernel', 'right.bias', 'right.kernel']
    """

    history: History | None = None
    stop_training = False

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        """Make a functional model when the base class is called with inputs."""
        if cls is Model and (arguments or "inputs" in options):
            from .functional import Functional

            return object.__new__(Functional)
        return object.__new__(cls)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be copied or pickled; there is `save`."""
        raise TypeError("a model cannot be copied or pickled: save it, and bn.load what was saved")

    def __call__(self, *inputs: Any, training: bool | None = None) -> Any:
        """Use the model as a layer of another one; for arrays there is `predict`."""
        if current_trace() is None and not has_nodes(inputs):
            raise TypeError(
                "a model takes arrays in predict, evaluate and fit; calling it makes it a layer of another one"
            )
        return super().__call__(*inputs, training=training)

    @hinted
    def compile(
        self,
        loss: Any,
        optimizer: Any = "adam",
        learning_rate: LearningRate | None = None,
        metrics: Any = (),
        *,
        weight_decay: float | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate_gradients: int = 1,
        grad_method: str = "autodiff",
        precision: str = "float32",
        loss_scale: float | str | LossScale | None = "dynamic",
        ema: float | None = None,
        param_groups: Any = (),
        decay_roles: Any = ("kernel", "embedding"),
        checkpoint_activations: bool | str | Sequence[str] = False,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        """Say what to minimise and how. The weights stay; the optimizer starts anew.

        Parameters
        ----------
        loss : str, Loss or function, or a list or dict of them
            A name of `bn.losses`, or any function `(target, prediction) -> value per sample`; for several outputs one
            each (None: no loss), whose sum is minimised.
        optimizer : str or Optimizer
            A name or an object of `bn.optimizers`.
        learning_rate : float, Schedule or function of int, optional
            Instead of the optimizer's: a number, one of `bn.schedules`, or any function of the index 0, 1, … of the
            update about to be made.
        metrics : list of str or function, or a dict of such lists
            Names of `bn.metrics`, or functions like losses; exact over the whole set. Sample weights apply to them.
        weight_decay : float, optional
            Instead of the optimizer's; applies to kernels and embeddings.
        clip_norm, clip_value : float, optional
            The greatest norm of all gradients together; the greatest size of each element. Value first, then norm.
        accumulate_gradients : int, default 1
            How many batches make one update, weighted by their samples; an epoch's last group may be smaller.
        grad_method : {"autodiff", "numerical", "numerical_batch"}
            Reverse mode, or central (2N) or one-sided (N + 1) differences.
        precision : {"float32", "float64", "mixed_float16", "mixed_bfloat16"}
            What to compute in. The mixed ones multiply matrices in 16 bits and hold what these give in 16 bits;
            parameters, optimizer, sums, norms, softmax and losses stay in float32. Faster on GPUs, slower on CPUs, less
            memory on both: see docs/precision.md. Predictions come as float32.
        loss_scale : "dynamic", float, LossScale or None, default "dynamic"
            The factor of the loss that keeps small gradients from vanishing in float16. "dynamic": `LossScale()` for
            "mixed_float16", none otherwise; a number stays; a `LossScale` moves as it says. What is reported and
            clipped is the gradient without it.
        ema : float in [0, 1), optional
            Keep an exponential moving average of the weights: avg = ema · avg + (1 - ema) · p after each update, a copy
            after the first. Validation, `evaluate` and `predict` use it, `parameters(average=True)` returns it. A value
            like 0.999 averages over the last thousand updates.
        param_groups : ParamGroup or sequence of ParamGroup, optional
            Parameters with a learning rate, weight decay or clipping of their own.
        decay_roles : "all" or a sequence of {"kernel", "embedding", "bias", "scale"}
            What weight decay applies to.
        checkpoint_activations : bool, or glob or list of globs over layers' paths, default False
            Compute activations again in the backward pass instead of keeping them: less memory, at most the time of
            another forward pass, the same gradients bit for bit. True: in as many parts as need the least memory.
            Globs: each layer that matches, with the layers inside it, is a part. Finite differences keep none anyway.
        device : str, default "cpu"
            One of `bn.devices()`, or "auto".
        seed : int, default 0
            Decides initial weights (of a model not built yet), shuffles and dropout.
        """
        core = core_of(self)
        compiled = _compile.resolve(
            loss,
            optimizer,
            learning_rate,
            metrics,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            clip_value=clip_value,
            accumulate_gradients=accumulate_gradients,
            grad_method=grad_method,
            precision=precision,
            loss_scale=loss_scale,
            ema=ema,
            param_groups=param_groups,
            decay_roles=decay_roles,
            checkpoint_activations=checkpoint_activations,
            device=device,
            seed=seed,
            core=core,
        )
        core.compiled, core.learning_rate = compiled, compiled.learning_rate
        core.position.restart_updates()

    @hinted
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int = 32,
        epochs: int = 1,
        validation_data: Any = None,
        validation_split: float = 0.0,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        callbacks: Any = (),
        verbose: Any = "auto",
        initial_epoch: int = 0,
        resume_from: str | PathLike[str] | None = None,
        validation_batch_size: int | None = None,
        check_data: bool = True,
        augment: Any = None,
    ) -> History:
        """Train, and return the history (which `self.history` holds already while the fit runs).

        Parameters
        ----------
        x, y : array_like, or dict or tuple of them
            Rows of samples and targets: anything `numpy.asarray` takes, of any float up to 64 bits, integers or
            booleans, in any memory layout, and tables of pandas, polars, pyarrow or Arrow. Arrays are read where they
            lie, row by row; changing them during the fit gives undefined numbers. Large memory-mapped ones are read
            from their file ahead of their use. Instead, `x` may be a dataset of `bn.data`, or an iterable of batches
            `(x, y)` or `(x, y, sample_weight)` that is read once an epoch. See docs/data.md.
        batch_size : int, default 32
            Rows of one batch; the last one may be smaller.
        epochs : int, default 1
            The epoch to stop before: those from `initial_epoch` to `epochs - 1` are trained.
        validation_data : tuple (x, y) or (x, y, sample_weight), a dataset, or an iterable of batches, optional
            What to evaluate on after each epoch.
        validation_split : float in [0, 1), default 0
            The part of the rows, the last ones, to hold out for that.
        shuffle : bool, default True
            Whether each epoch has its own order, a function of the seed and the epoch.
        sample_weight : array_like of shape (rows,), optional
            The weight of each row in losses and metrics.
        class_weight : dict of int to float, optional
            A factor for the weight of each row by its label; `y` holds labels or one-hot or soft rows.
        callbacks : Callback or list of Callback
            See `bn.callbacks`.
        verbose : {"auto", 0, 1, 2}
            0: silent; 1 and "auto": a progress bar on a terminal, else as 2; 2: a line an epoch.
        initial_epoch : int, default 0
            The number of the first epoch.
        resume_from : path, optional
            A directory that `bn.callbacks.Checkpoint` writes to, or one of its files. The run goes on from its newest
            whole checkpoint and ends with the same bits as if it had never been interrupted, if everything else is
            the same; `epochs` counts from the run's start. An empty directory starts it. See docs/checkpoints.md.
        validation_batch_size : int, optional
            Rows at once in validation (default 256); memory only.
        check_data : bool, default True
            Whether the data is searched for NaN, infinity and what single precision cannot hold (unless `precision` is
            "float64"), and labels for being classes, before the first step; datasets and iterables in the first epoch,
            as they are read.
        augment : function or list of function, optional
            Random changes of training samples, as `bn.data.random_flip()`: `(sample, generator) -> sample`, where the
            NumPy generator is one of that sample and epoch. Validation data stays as it is.

        Raises
        ------
        ValueError, TypeError
            Before the first step, if anything does not fit, a checkpoint of another run included; the model is then
            as before.
        KeyboardInterrupt
            Within a second of Ctrl-C; the model has made its last whole update and can be used, saved and trained on.
        """
        return _training.fit(
            self,
            core_of(self),
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            validation_data=validation_data,
            validation_split=validation_split,
            shuffle=shuffle,
            sample_weight=sample_weight,
            class_weight=class_weight,
            callbacks=callbacks,
            verbose=verbose,
            initial_epoch=initial_epoch,
            resume_from=resume_from,
            validation_batch_size=validation_batch_size,
            check_data=check_data,
            augment=augment,
        )

    @hinted
    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Mapping[int, float] | None = None
    ) -> dict[str, float]:
        """Train on one batch; return its loss and metrics, as they were before the update."""
        return _training.train_on_batch(core_of(self), x, y, sample_weight, class_weight)

    @hinted
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        sample_weight: Any = None,
        callbacks: Any = (),
        check_data: bool = True,
    ) -> dict[str, Any]:
        """Return loss and metrics over a whole set (arrays, a dataset or batches), the same for every batch size."""
        return _training.evaluate(
            self, core_of(self), x, y, batch_size, sample_weight, callbacks, check_data=check_data
        )

    @hinted
    def predict(self, x: Any, *, batch_size: int | None = None, callbacks: Any = (), check_data: bool = True) -> Any:
        """Return the outputs for arrays (a dataset, or an iterable of them): an array, or a tuple or dict of arrays."""
        return _training.predict(self, core_of(self), x, batch_size, callbacks, check_data=check_data)

    def build(self, input_shape: Any) -> Model:
        """Create the weights before any data is seen, and return the model.

        `input_shape` is a shape such as `(None, 784)`, the batch first; for several inputs a tuple or dict of them.
        """
        from ._shapes import signature_from_shapes

        core = core_of(self)
        core.ensure(signature_from_shapes(core.arrange, input_shape), None)
        return self

    def parameters(self, *, buffers: bool = False, average: bool = False) -> dict[str, Array]:
        """Return copies of the parameters by path; with `buffers`, of running statistics and the like, too.

        With `average`, their moving averages (see `ema` of `compile`); before the first update they are the parameters.
        """
        runtime = core_of(self).ready()
        state = runtime.session.state()
        if average:
            state |= runtime.averages()
        wanted = {path for path, *_ in runtime.built.program.parameters()}
        return {path: array for path, array in state.items() if buffers or path in wanted}

    def set_parameters(self, arrays: Mapping[str, Any]) -> None:
        """Set some parameters and buffers by path; nothing changes if one of them does not fit.

        Their moving averages (see `ema` of `compile`) begin anew from them.
        """
        _storage.set_parameters(core_of(self).ready(), arrays)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update; set it to a number, a schedule or a function of the update's index."""
        core = core_of(self)
        return learning_rate_at(core.learning_rate, core.position)

    @learning_rate.setter
    def learning_rate(self, value: LearningRate) -> None:
        core_of(self).learning_rate = checked_learning_rate(value)

    @property
    def device(self) -> str:
        """Where the model runs."""
        compiled = core_of(self).compiled
        return "cpu" if compiled is None else compiled.device

    def freeze(self, pattern: str = "*") -> None:
        """Keep parameters as they are: those whose path, or a layer above them, matches a glob. Takes effect at once.

        A frozen BatchNorm keeps its statistics as well and uses them in training.
        """
        self._set_rule(pattern, frozen=True)

    def unfreeze(self, pattern: str = "*") -> None:
        """Train these parameters again; the last of `freeze` and `unfreeze` that matches decides."""
        self._set_rule(pattern, frozen=False)

    def __repr__(self) -> str:
        runtime = core_of(self).runtime
        if runtime is None:
            return f"<{type(self).__name__} {self.default_name!r}, not built yet>"
        count = sum(math.prod(shape) for _, shape, _ in runtime.built.program.parameters())
        return f"<{type(self).__name__} {self.default_name!r} of {count:,} parameters>"

    def summary(self) -> None:
        """Print a table of the layers: output shape, parameters, how many of them are trained, and what a sample costs.

        FLOPs are those of a prediction; a multiply-add counts as two, and each element that a function gives as one,
        whatever the function. Activations are the bytes of what operations of the layer make in training: their values
        (views not counted, those of mixed precision as 32 bits) and what they save for the backward pass, such as
        dropout's masks and the gates of recurrent layers. What is kept is a little less: values that no gradient reads
        are freed.
        What a layer does besides calling the layers inside it has a line of its own; what a shared layer costs is the
        sum over its uses. See docs/models.md.
        """
        print(summary_table(core_of(self).ready().built))

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to one safetensors file, whole or not at all; see `bn.load`."""
        core = core_of(self)
        _storage.save(core, core.ready(), path)

    def save_weights(self, path: str | PathLike[str]) -> None:
        """Write parameters and buffers to a plain safetensors file, under their paths.

        Where moving averages are kept (see `ema` of `compile`), they are written instead of the parameters, so that a
        model which loads them predicts the same; `save` keeps both.
        """
        _storage.save_weights(core_of(self).ready(), path)

    def export(self, path: str | PathLike[str], format: str = "onnx") -> None:  # noqa: A002  Keras's name
        """Write what `predict` computes to a file for other runtimes; see docs/exporting.md.

        Inputs and outputs have the names that they have here ("x", "x.<key>"; "prediction", "prediction.<key>") and a
        free batch. Needs onnx (`pip install 'burnish[onnx]'`).

        Parameters
        ----------
        path : path
            The file to write.
        format : {"onnx"}
            ONNX with float32 numbers and int64 indices, whatever the model computes in.

        Raises
        ------
        ValueError
            If the model uses an operation that the format has no counterpart of.
        """
        from . import _onnx

        choice("format", format, ("onnx",))
        _onnx.export(core_of(self).ready(), path, self.default_name)

    def load_weights(
        self,
        path: str | PathLike[str],
        strict: bool = True,  # noqa: FBT001, FBT002  Keras's form
        *,
        layout: str = "burnish",
        names: Names | None = None,
    ) -> _storage.Difference:
        """Read parameters and buffers from a safetensors file.

        Moving averages (see `ema` of `compile`) begin anew from them.
        Without `strict`, those that fit are taken. Returns which paths were missing, unexpected or misshapen; with
        `strict`, any of them is a ValueError and the model is as before.

        Parameters
        ----------
        path : path
            The file.
        strict : bool, default True
            Whether all must be there and fit.
        layout : {"burnish", "torch"}
            Whose names and layouts the file has. "torch": a `state_dict` that safetensors saved; kernels are turned
            round, statistics renamed, and features behind flattened images put in order. See docs/exporting.md.
        names : dict or function, optional
            Where PyTorch's modules are here: a dict of a module's name -> a layer's path (None: leave it out), the
            longest name that fits counts; or a function of an array's whole name. Without it they have the same names.
        """
        return _storage.load_weights(core_of(self).ready(), path, strict=strict, layout=layout, names=names)

    def _set_rule(self, pattern: str, *, frozen: bool) -> None:
        core = core_of(self)
        runtime = core.ready()
        program = runtime.built.program
        _freeze.check(pattern, [path for path, *_ in [*program.parameters(), *program.buffers()]])
        if core.run is None:
            close_group(core, runtime)
        else:
            core.run.close_group(runtime)
        old, core.rules = core.rules, (*core.rules, (pattern, frozen))
        try:
            core.ready()
        except BaseException:
            core.rules = old
            raise


def core_of(model: Model) -> Core:
    """Return what a model keeps for itself, made when first asked for: a subclass need not call super().__init__."""
    if not isinstance(model, Model):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`model` must be a model, got {type(model).__name__}")
    kept = vars(model)
    if "_core" not in kept:
        kept["_core"] = Core(model, _inherited)
    return kept["_core"]


def _inherited(model: Model) -> dict[str, Array]:
    """Return the numbers that layers bring along, and those of trained models inside a model, by their paths there."""
    several = layers_and_paths(model)
    arrays = {f"{path}.{name}": array for layer, path in several for name, array in layer.initial_arrays().items()}
    for layer, path in several:
        runtime = core_of(layer).runtime if isinstance(layer, Model) and layer is not model else None
        if runtime is not None:
            arrays |= {f"{path}.{name}": array for name, array in runtime.session.state().items()}
    return arrays
