"""What `compile` was told, checked and resolved."""

from __future__ import annotations

import functools
import json
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _checkpointing
from . import losses as _losses
from . import metrics as _metrics
from . import optimizers as _optimizers
from . import param_groups as _param_groups
from ._device import resolve_device
from ._errors import choice, integer, number
from ._precision import resolve_loss_scale, resolve_precision
from ._structure import Structure, flatten, is_dict, is_sequence, mapped, suffix
from ._value import Value
from .layers.base import ROLES
from .losses import per_sample, show
from .metrics import Metric, Reported, classes_of
from .optimizers.base import checked_learning_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._burnish import Program
    from ._runtime import Core
    from ._symbol import Symbol, Trace
    from .metrics import MetricFunction
    from .optimizers.base import LearningRate

__all__ = ["Compiled", "resolve", "trace_loss"]

# The other columns of `History.steps`.
RESERVED = ("epoch", "finite", "gradient_norm", "learning_rate", "loss", "loss_scale", "step", "update_ratio", "weight")
GRADIENT_METHODS = ("autodiff", "numerical", "numerical_batch")


class Compiled(NamedTuple):
    """Loss, metrics, optimizer and how to run them."""

    loss: Any  # a function, or a tuple or dict of functions by output; None in a model that was loaded
    metrics: Any  # (name, function) pairs, or a dict of them by output
    optimizer: dict[str, Any]  # as the engine reads it
    learning_rate: LearningRate
    precision: str
    device: str
    seed: int

    @property
    def accumulate(self) -> int:
        """How many micro-batches make one update."""
        return self.optimizer["accumulate_gradients"]

    @property
    def lowest_loss_scale(self) -> float | None:
        """What a loss scale that moves by itself does not fall below."""
        scale = self.optimizer["loss_scale"]
        return None if scale is None or scale["backoff"] == 1 else scale["minimum"]

    @property
    def full_batch(self) -> bool:
        """Whether an update needs the whole set as one batch."""
        return _optimizers.BY_NAME[self.optimizer["name"]].full_batch

    def engine_config(self, program: Program, frozen: Sequence[str]) -> str:
        """Return the optimizer's description for the parameters and layers of a program, some of them frozen."""
        config = dict(self.optimizer)
        paths = [path for path, *_ in program.parameters()]
        groups = _param_groups.groups_by_path(config.pop("param_groups"), paths)
        globs = config.pop("checkpoint_activations")
        layers = globs if isinstance(globs, bool) else _checkpointing.chosen_layers(program, globs)
        return json.dumps({**config, "groups": groups, "frozen": list(frozen), "checkpoint_activations": layers})


def resolve(
    loss: Any,
    optimizer: Any,
    learning_rate: Any,
    metrics: Any,
    *,
    weight_decay: float | None,
    clip_norm: float | None,
    clip_value: float | None,
    accumulate_gradients: int,
    grad_method: str,
    precision: str,
    loss_scale: Any,
    ema: float | None,
    param_groups: Any,
    decay_roles: Any,
    checkpoint_activations: Any,
    device: str,
    seed: int,
    core: Core,
) -> Compiled:
    """Check everything that can be checked before the shapes are known."""
    rule = _optimizers.resolve(optimizer)
    device = resolve_device(device)
    gradient_method = choice("grad_method", grad_method, GRADIENT_METHODS)
    precision = resolve_precision(precision, device, gradient_method)
    numbers = dict(rule.hyperparameters)
    if weight_decay is not None:
        numbers["weight_decay"] = number("weight_decay", weight_decay, 0)
    config = {
        "name": rule.name,
        "hyperparameters": numbers,
        "clip_norm": None if clip_norm is None else number("clip_norm", clip_norm, 0, above=True),
        "clip_value": None if clip_value is None else number("clip_value", clip_value, 0, above=True),
        "accumulate_gradients": integer("accumulate_gradients", accumulate_gradients, 1),
        "gradient_method": gradient_method,
        "decay_roles": _roles(decay_roles),
        "average": None if ema is None else number("ema", ema, 0, 1, below=True),
        "param_groups": _param_groups.checked(param_groups),
        "loss_scale": resolve_loss_scale(loss_scale, precision),
        "checkpoint_activations": _checkpointing.resolve(checkpoint_activations, core),
    }
    if rule.full_batch:
        _check_full_batch(config)
    resolved = _resolved_losses(loss)
    return Compiled(
        loss=resolved,
        metrics=_resolved_metrics(metrics, resolved),
        optimizer=config,
        learning_rate=rule.learning_rate if learning_rate is None else checked_learning_rate(learning_rate),
        precision=precision,
        device=device,
        seed=integer("seed", seed, 0, 2**64 - 1),
    )


def trace_loss(
    trace: Trace, compiled: Compiled, form: str, predictions: Structure[Symbol], targets: Structure[Symbol]
) -> list[Reported]:
    """Write `<form>.loss`, `<form>.metric.<name>` and `collected.<name>` into the program; return the metrics."""
    pairs = _pairs(predictions, targets)
    total: Value | None = None
    reported: list[Reported] = []
    for output, (target, prediction) in pairs.items():
        loss = _of_output("loss", compiled.loss, output, pairs)
        if loss is not None:
            value = _checked_loss(loss(target, prediction))
            total = value if total is None else total + value
            if output:
                reported.append(_mean(trace, form, f"{output}_loss", value))
        for name, metric in _of_output("metrics", compiled.metrics, output, pairs) or ():
            full_name = f"{output}_{name}" if output else name
            if isinstance(metric, Metric):
                reported.append(_of_set(trace, form, full_name, metric, target, prediction))
            else:
                reported.append(_mean(trace, form, full_name, _checked_value(name, metric(target, prediction))))
    _check_names([each.name for each in reported])
    if total is None:
        raise ValueError("`loss` must be given for at least one output")
    if trace.penalties:
        penalty = functools.reduce(operator.add, trace.penalties.values())
        _write(trace, f"{form}.penalty", penalty)
        total = total + penalty
    _write(trace, f"{form}.loss", total)
    return reported


def _mean(trace: Trace, form: str, name: str, value: Value) -> Reported:
    """Write a metric that is a mean."""
    _write(trace, f"{form}.metric.{name}", value)
    return Reported(name, {name: name}, {}, 1, None)


def _of_set(  # noqa: PLR0917
    trace: Trace, form: str, name: str, metric: Metric, target: Any, prediction: Symbol
) -> Reported:
    """Write what a metric of the whole set is made of: the columns to be added up, or what is collected to evaluate."""
    classes = classes_of(prediction.shape)
    columns = metric.columns(target, prediction)
    for key, value in columns.items():
        _write(trace, f"{form}.metric.{name}#{key}", _checked_value(name, value))
    collected = {} if columns and not metric.approximate else metric.collected(target, prediction)
    if form == "evaluation":
        for key, value in collected.items():
            _write(trace, f"collected.{name}#{key}", value)
    of_columns = {key: f"{name}#{key}" for key in columns}
    return Reported(name, of_columns, {key: f"collected.{name}#{key}" for key in collected}, classes, metric)


def _check_full_batch(config: dict[str, Any]) -> None:
    """Raise for what has no meaning where an update searches for a lower loss along a line."""
    reasons = {
        "accumulate_gradients": (1, "it evaluates one batch several times: give fit the whole set as one"),
        "loss_scale": (None, "its line search needs the loss as it is (mixed_bfloat16 needs no scale)"),
        "clip_norm": (None, "its line search needs the gradient as it is"),
        "clip_value": (None, "its line search needs the gradient as it is"),
    }
    for argument, (expected, reason) in reasons.items():
        if config[argument] != expected:
            raise ValueError(f"`{argument}` must be {expected} with {config['name']}, got {config[argument]}: {reason}")
    for group in config["param_groups"]:
        if group["learning_rate"] != 1.0 or group["depth_decay"] is not None:
            raise ValueError(
                f"`param_groups`: {group['pattern']!r} must leave the learning rate at 1.0 with {config['name']}: "
                "it steps along one direction of all parameters"
            )


def _roles(roles: Any) -> list[str]:
    """Return the roles that weight decay applies to."""
    if isinstance(roles, str):
        return list(ROLES) if choice("decay_roles", roles, ("all", *ROLES)) == "all" else [roles]
    if not is_sequence(roles):
        raise TypeError(f"`decay_roles` must be 'all' or a sequence of roles, got {roles!r}")
    return [choice("decay_roles", role, ROLES) for role in roles]


def _resolved_losses(loss: Any) -> Any:
    if is_dict(loss) or is_sequence(loss):
        structure: Structure[Any] = loss if is_dict(loss) else tuple(loss)
        return mapped(lambda one: None if one is None else _losses.resolve(one), structure)
    return _losses.resolve(loss)


def _resolved_metrics(metrics: Any, loss: Any) -> Any:
    if is_dict(metrics):
        by_output = loss if is_dict(loss) else dict.fromkeys(metrics, loss)
        return {name: _metric_list(some, by_output.get(name)) for name, some in metrics.items()}
    return _metric_list(metrics, loss)


def _metric_list(metrics: Any, loss: Any) -> tuple[tuple[str, MetricFunction], ...]:
    several = metrics if is_sequence(metrics) else [] if metrics is None else [metrics]
    named = tuple(_metrics.resolve(metric, loss) for metric in several)
    _check_names([name for name, _ in named])
    return named


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1 or name in RESERVED:
            raise ValueError(f"`metrics`: the name {name!r} is taken twice; give the functions different names")


def _pairs(predictions: Structure[Symbol], targets: Structure[Symbol]) -> dict[str, tuple[Any, Symbol]]:
    """Return target and prediction by output; one output takes the targets as they came."""
    if not isinstance(predictions, (dict, tuple)):
        return {"": (targets, predictions)}
    by_output = {suffix(name): leaf for name, leaf in flatten("prediction", predictions).items()}
    given = {suffix(name): leaf for name, leaf in flatten("y", targets).items()}
    if set(given) != set(by_output):
        raise ValueError(
            f"`y` must hold one array for each output ({', '.join(by_output)}), got {', '.join(given) or 'one'}"
        )
    return {output: (given[output], prediction) for output, prediction in by_output.items()}


def _of_output(argument: str, given: Any, output: str, outputs: dict[str, Any]) -> Any:
    """Return what was given for one output; what is no dict (or tuple of losses) holds for all."""
    if argument == "loss" and is_sequence(given):
        if len(given) != len(outputs):
            raise ValueError(f"`loss` must hold one loss for each of {len(outputs)} outputs, got {len(given)}")
        return given[list(outputs).index(output)]
    if not is_dict(given):
        return given
    for name in given:
        if name not in outputs:
            raise ValueError(f"`{argument}`: the model has no output {name!r}; outputs: {', '.join(outputs) or 'one'}")
    return given.get(output)


def _checked_value(what: str, value: Any) -> Value:
    if not isinstance(value, Value):
        raise TypeError(f"`{what}` must return a value per sample made of bn.ops, got {type(value).__name__}")
    if not value.shape or value.shape[0] is not None or None in value.shape[1:]:
        raise ValueError(f"`{what}` must return a value per sample, shape (batch, …), got {show(value.shape)}")
    return per_sample(value if value.kind == "float" else value * 1.0)


def _checked_loss(value: Any) -> Value:
    if isinstance(value, Value) and value.kind != "float":
        raise TypeError(f"`loss` must return floats, through which gradients pass, got {value.kind} values")
    return _checked_value("loss", value)


def _write(trace: Trace, name: str, value: Value) -> None:
    trace.program.output(name, value.index)  # type: ignore[attr-defined]
