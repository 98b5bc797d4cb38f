"""Ailments of the training itself, read off a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._report import Finding, Remedy

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ._figures import Figures

__all__ = ["TRAINING"]

HEALTHY_NORM = (0.1, 10.0)
HEALTHY_RATIO = (1e-3, 1e-2)


def nothing_trains(figures: Figures) -> Finding | None:
    """No parameter is ever moved: all are frozen, or the learning rate is 0."""
    ratios = figures.updates("update_ratio")
    finite = figures.column("finite").astype(bool)
    if not figures.loss.size or not finite.any() or (ratios.size and ratios.max() > 0):
        return None
    rates = figures.column("learning_rate")
    zero = not rates.any()
    why = "the learning rate is 0" if zero else "every parameter is frozen"
    if not zero and figures.history.parameters:
        return None
    thaw = Remedy("Train the parameters again", 'model.unfreeze("*")')
    raise_rate = Remedy("Give a learning rate above 0", "model.compile(..., learning_rate=1e-3)")
    remedies = (raise_rate,) if zero else (thaw,)
    text = f"no update moved a parameter: {why}"
    return Finding("nothing_trains", "error", text, {"updates": int(finite.size)}, remedies, *figures.place(0))


def loss_not_falling(figures: Figures) -> Finding | None:
    """The mean loss of the last steps is not below that of the first by more than its noise and 1 %."""
    course = figures.course
    if figures.loss.size < 10 or not np.isfinite(course.first) or not course.stuck or _solved(figures):
        return None
    ratios = figures.updates("update_ratio")
    ratio = float(np.median(ratios)) if ratios.size else 0.0
    text = (
        f"the loss went from {course.first:.4g} to {course.last:.4g} in {figures.loss.size} steps, which is no fall "
        f"beyond its noise of {course.noise:.2g}"
    )
    numbers: dict[str, float | str] = {"first": course.first, "last": course.last, "noise": course.noise}
    numbers["update_ratio"] = ratio
    find = Remedy("Find a learning rate", "print(bn.tuning.find_learning_rate(model, x, y))")
    scale = Remedy("Bring the inputs to mean 0 and deviation 1", "x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-7)")
    look = Remedy("See whether a few rows can be learnt by heart: else data or loss is wrong", _FEW_ROWS)
    return Finding("loss_not_falling", "error", text, numbers, (find, scale, look), *figures.place(0))


_FEW_ROWS = "model.fit(x[:16], y[:16], epochs=200)"


def _solved(figures: Figures) -> bool:
    """Say whether there was nothing left to fall: the loss began near 0, or the training accuracy near 1."""
    accuracy = figures.curve("accuracy")
    return abs(figures.course.first) < 1e-3 or (accuracy.size > 0 and accuracy[-1] >= 0.95)


def oscillation(figures: Figures) -> Finding | None:
    """The loss goes up and down by more than a tenth of where it began, beyond the noise of its batches."""
    loss = figures.loss[np.isfinite(figures.loss)]
    if loss.size < 12:
        return None
    scale = max(abs(figures.course.first), float(np.median(np.abs(loss))))
    swings, size, first = _swings(loss, scale, noisy=figures.steps_an_epoch > 1)
    if swings < 3:
        return None
    text = (
        f"the loss rose {swings} times by more than its batches' noise, {size / max(scale, 1e-30):.0%} of its level "
        f"each time: steps overshoot the minimum"
    )
    remedies = (
        _lower(figures),
        Remedy("Lower the momentum", "model.compile(..., optimizer=bn.optimizers.SGD(momentum=0.5))"),
        Remedy("Take larger batches, whose gradients are less noisy", "model.fit(..., batch_size=4 * batch_size)"),
        Remedy("Clip the gradients", "model.compile(..., clip_norm=1.0)"),
    )
    numbers: dict[str, float | str] = {"rises": swings, "rise": size, "level": scale}
    return Finding("oscillation", "warning", text, numbers, remedies, *figures.place(min(first, figures.loss.size - 1)))


def _swings(loss: npt.NDArray[Any], scale: float, *, noisy: bool) -> tuple[int, float, int]:
    """Return how often the loss rose, by how much in the median, and where first: over blocks, or from step to step."""
    found = (0, 0.0, 0)
    for width in {max(1, loss.size // 40), max(1, loss.size // 16), 1}:
        count = loss.size // width
        blocks = loss[: count * width].reshape(count, width)
        means = blocks.mean(axis=1)
        # A block's own spread tells its noise; of single steps, that the loss alternates tells what is no noise.
        own = blocks.std(axis=1, ddof=1) / np.sqrt(width) if width > 1 else np.zeros(count)
        error = np.maximum(own, np.sqrt(np.mean(own**2)))
        rises = np.diff(means)
        beyond = rises > np.maximum(0.1 * scale, 4.0 * np.hypot(error[1:], error[:-1]))
        if width == 1 and noisy and not _alternates(means, scale):
            continue
        places = np.flatnonzero(beyond)
        if places.size > found[0]:
            found = (int(places.size), float(np.median(rises[places])), int(places[0] + 1) * width)
    return found


def _alternates(loss: npt.NDArray[Any], scale: float) -> bool:
    """Say whether neighbouring steps lie on different sides of the trend, as no noise of batches does."""
    window = min(9, loss.size // 2 * 2 - 1)
    trend = np.convolve(np.pad(loss, window // 2, mode="edge"), np.full(window, 1.0 / window), mode="valid")
    rest = loss - trend
    power = float(np.mean(rest**2))
    if power == 0.0 or np.sqrt(power) < 0.1 * scale:
        return False
    correlation = float(np.mean(rest[1:] * rest[:-1])) / power
    return correlation < -0.5


def exploding_gradients(figures: Figures) -> Finding | None:
    """Gradient norms above 10 with a loss that does not settle, above 100 always, or growing tenfold."""
    norms = figures.updates("gradient_norm")
    if norms.size < 3:
        return None
    count = max(1, min(20, norms.size // 5))
    first, last, middle = (float(np.median(part)) for part in (norms[:count], norms[-count:], norms))
    grows = last > 10.0 * first and last > HEALTHY_NORM[1]
    suffers = middle > HEALTHY_NORM[1] and figures.course.slow
    if not (middle > 10.0 * HEALTHY_NORM[1] or grows or suffers):
        return None
    place = int(np.argmax(figures.column("gradient_norm") > HEALTHY_NORM[1]))
    text = (
        f"the gradient's norm is {middle:.3g} in the median and {norms.max():.3g} at most "
        f"({first:.3g} at first, {last:.3g} at last); 0.1 to 10 is healthy"
    )
    remedies = (
        Remedy("Clip the gradients", "model.compile(..., clip_norm=1.0)"),
        _lower(figures),
        Remedy("Warm the learning rate up", f"model.compile(..., learning_rate={_WARMUP})"),
        Remedy("Normalise between layers", "bn.layers.BatchNorm()  # after each Dense or Conv2D"),
        Remedy("Bring inputs and targets to mean 0 and deviation 1", "y = (y - y.mean()) / y.std()"),
    )
    numbers: dict[str, float | str] = {"median": middle, "most": float(norms.max()), "first": first, "last": last}
    return Finding("exploding_gradients", "error", text, numbers, remedies, *figures.place(place))


_WARMUP = "lambda step: 1e-3 * min(1.0, (step + 1) / 1000)"


def vanishing_gradients(figures: Figures) -> Finding | None:
    """Early layers get less than a thousandth of the gradient of late ones, or all get almost none; the loss stays."""
    if not figures.course.slow or _solved(figures):
        return None
    norms = {path: norm for path, norm in figures.kernels("gradient_norm").items() if norm > 0}
    if not norms:
        return None
    values = np.array(list(norms.values()))
    least, most = int(values.argmin()), int(values.argmax())
    uneven = values[least] < 1e-3 * values[most] and least < most
    if not uneven and values[most] > 1e-4:
        return None
    paths = list(norms)
    text = (
        f"the gradient of {paths[least]} has a norm of {values[least]:.2g}, that of {paths[most]} one of "
        f"{values[most]:.2g}: early layers learn next to nothing"
        if uneven
        else f"the largest gradient of a layer, that of {paths[most]}, has a norm of {values[most]:.2g}; 0.1 is healthy"
    )
    remedies = (
        Remedy("Use relu or another activation that does not flatten", 'bn.layers.Dense(units, activation="relu")'),
        Remedy("Normalise between layers", "bn.layers.BatchNorm()  # after each Dense or Conv2D"),
        Remedy("Let layers be skipped", "x = x + layer(x)"),
        Remedy("Start with larger weights", 'bn.layers.Dense(units, kernel_initializer="he_normal")'),
    )
    numbers: dict[str, float | str] = {"least": float(values[least]), "most": float(values[most])}
    return Finding("vanishing_gradients", "error", text, numbers, remedies, *figures.place(0))


def no_gradient(figures: Figures) -> Finding | None:
    """A kernel whose gradient is exactly 0 in a whole epoch: it cannot learn."""
    zero = [path for path, norm in figures.kernels("gradient_norm").items() if norm == 0]
    if not zero:
        return None
    text = (
        f"{', '.join(zero[:3])}{' and more' * (len(zero) > 3)} got a gradient of exactly 0 in the whole first epoch: "
        "the loss does not depend on what they do"
    )
    remedies = (
        Remedy("Start from random weights, not from 0", 'bn.layers.Dense(units, kernel_initializer="glorot_uniform")'),
        Remedy("See that relu does not come last and biases are not far below 0", "model.summary()"),
        Remedy("Freeze what is not to be trained", f'model.freeze("{zero[0]}")'),
    )
    numbers: dict[str, float | str] = {"kernels": len(zero), "first": zero[0]}
    return Finding("no_gradient", "error", text, numbers, remedies, *figures.place(0))


def updates_too_large(figures: Figures) -> Finding | None:
    """Updates above a hundredth of the parameters with a loss that stays or jumps; above a half always."""
    ratios = figures.updates("update_ratio")
    kernels = figures.kernels("update_ratio")
    if ratios.size < 3:
        return None
    middle = float(np.median(ratios))
    kernel = max(kernels.values(), default=middle)
    suffers = figures.course.stuck or _overshot(figures) or oscillation(figures) is not None
    bad = middle > HEALTHY_RATIO[1] and suffers
    if (not bad and middle < 0.5) or _solved(figures):
        return None
    text = (
        f"an update changes the parameters by {middle:.2g} of their size (the fastest kernel by {kernel:.2g}); "
        "0.001 to 0.01 is healthy"
    )
    remedies = (
        _lower(figures),
        Remedy("Warm the learning rate up", f"model.compile(..., learning_rate={_WARMUP})"),
        Remedy("Clip the gradients", "model.compile(..., clip_norm=1.0)"),
    )
    numbers: dict[str, float | str] = {"median": middle, "fastest_kernel": kernel}
    return Finding("updates_too_large", "warning", text, numbers, remedies, *figures.place(0))


def _overshot(figures: Figures) -> bool:
    """Say whether the first ten updates moved a tenth of the parameters each, and the loss trebled."""
    ratios = figures.updates("update_ratio")[:10]
    loss = figures.loss[:40]
    return bool(np.median(ratios) > 0.1 and np.nanmax(loss) > 3.0 * loss[0] > 0.0)


def updates_too_small(figures: Figures) -> Finding | None:
    """Updates below a thousandth of the parameters while less than a fifth of the loss is gone."""
    ratios = figures.updates("update_ratio")
    if ratios.size < 10 or not figures.course.slow or _solved(figures) or not ratios.any():
        return None
    middle = float(np.median(ratios))
    if middle >= 0.3 * HEALTHY_RATIO[0]:
        return None
    rate = figures.column("learning_rate")
    higher = float(np.median(rate)) * min(3e-3 / max(middle, 1e-12), 1e3)
    text = (
        f"an update changes the parameters by {middle:.2g} of their size, and {max(figures.course.fall, 0.0):.1%} of "
        f"the loss is gone after {figures.loss.size} steps; 0.001 to 0.01 is healthy"
    )
    remedies = (
        Remedy("Raise the learning rate", f"model.compile(..., learning_rate={higher:.1g})"),
        Remedy("Find one", "print(bn.tuning.find_learning_rate(model, x, y))"),
        Remedy("Use an optimizer that scales its steps", 'model.compile(..., optimizer="adamw")'),
    )
    numbers: dict[str, float | str] = {"median": middle, "fall": figures.course.fall}
    return Finding("updates_too_small", "warning", text, numbers, remedies, *figures.place(0))


def dead_units(figures: Figures) -> Finding | None:
    """More than half the units of a rectifying layer answer to no sample of a batch."""
    least = 0.5 if figures.rows >= 32 else 0.8 if figures.rows >= 8 else 0.95  # few rows leave some units out
    dead = {layer: series["dead"] for layer, series in figures.history.activations.items() if series.get("dead")}
    worst = max(dead, key=lambda layer: dead[layer][-1], default=None)
    if worst is None or not dead[worst][-1] > least:
        return None
    epoch = int(np.argmax(np.array(dead[worst]) > least))
    text = f"{dead[worst][-1]:.0%} of the units of {worst!r} were 0 for a whole batch; {least:.0%} is the most"
    remedies = (
        _lower(figures),
        Remedy("Use an activation that always has a slope", 'bn.layers.Dense(units, activation="leaky_relu")'),
        Remedy("Start biases at 0 and kernels for relu", 'bn.layers.Dense(units, kernel_initializer="he_normal")'),
        Remedy("Bring the inputs to mean 0 and deviation 1", "x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-7)"),
    )
    numbers: dict[str, float | str] = {"dead": dead[worst][-1], "layer": worst}
    place = figures.history.epoch[epoch] if epoch < len(figures.history.epoch) else None
    return Finding("dead_units", "warning", text, numbers, remedies, place)


def overfitting(figures: Figures) -> Finding | None:
    """A gap of training and validation of 5 % or more: of the accuracy, else of the loss in parts of where it began."""
    gap = _gap(figures)
    if gap is None:
        return None
    name, values, best = gap
    last = float(np.mean(values[-max(1, values.size // 5) :]))
    if not last >= 0.05:
        return None
    severity = "warning" if last > 0.2 else "note"
    epoch = figures.history.epoch[int(np.argmax(values >= 0.05))]
    text = (
        f"the training {name} is {last:.0%} better than that of validation "
        f"(below 5 % is healthy, above 20 % is overfitting); validation was best in epoch {best + 1}"
    )
    remedies = (
        Remedy("Stop at the best epoch", _STOP),
        Remedy("Drop some activations", "bn.layers.Dropout(0.3)  # before the last layers"),
        Remedy("Let weights decay", 'model.compile(..., optimizer="adamw", weight_decay=0.05)'),
        Remedy("Make the model smaller, or bring more rows", "model.summary()"),
    )
    return Finding("overfitting", severity, text, {"gap": last, "best_epoch": best}, remedies, epoch)


_STOP = "model.fit(..., callbacks=[bn.callbacks.EarlyStopping(patience=5, restore_best_weights=True)])"


def _gap(figures: Figures) -> tuple[str, npt.NDArray[Any], int] | None:
    """Return what is compared, the gap of every epoch, and the epoch that was best in validation."""
    for name, sign in (("accuracy", 1.0), ("loss", -1.0)):
        own, other = figures.curve(name), figures.curve(f"val_{name}")
        count = min(own.size, other.size)
        if count >= 2 and np.isfinite(own[:count]).all() and np.isfinite(other[:count]).all():
            scale = 1.0 if sign > 0 else max(abs(own[0]), abs(other[0]), abs(figures.course.first), 1e-30)
            best = int(np.argmax(sign * other[:count]))
            return name, sign * (own[:count] - other[:count]) / scale, figures.history.epoch[best]
    return None


def _lower(figures: Figures) -> Remedy:
    rates = figures.column("learning_rate")
    rate = float(np.median(rates)) if rates.size else 1e-3
    return Remedy("Lower the learning rate", f"model.compile(..., learning_rate={rate / 10.0:.1g})")


TRAINING: tuple[Callable[[Figures], Finding | None], ...] = (
    nothing_trains,
    loss_not_falling,
    oscillation,
    exploding_gradients,
    vanishing_gradients,
    no_gradient,
    updates_too_large,
    updates_too_small,
    dead_units,
    overfitting,
)
