"""Random changes of samples, each with its own generator: order, threads and resuming make no difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import integer, named, number
from .._feed.arrays import as_array
from .._structure import flatten, is_sequence, unflatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._feed.arrays import Array, Data

__all__ = ["Augmentation", "augmentations", "augmented", "random_crop", "random_flip", "random_noise", "with_target"]


class Augmentation:
    """A function of samples and a random generator; `random_flip` and the like make them."""

    def __init__(self, function: Callable[..., Any], name: str, *, target: bool = False) -> None:
        self.function, self.name, self.target = function, name, target

    def __call__(self, sample: Any, generator: np.random.Generator) -> Any:
        """Return the changed sample."""
        return self.function(sample, generator)

    def __repr__(self) -> str:
        return self.name


def random_flip(axis: int = 1, probability: float = 0.5) -> Augmentation:
    """Return what turns a sample round along an axis, for some samples.

    Parameters
    ----------
    axis : int, default 1
        The axis of the sample: 1 of an image `(height, width, channels)` is left to right, 0 upside down.
    probability : float in [0, 1], default 0.5
        For what part of the samples.
    """
    axis = integer("axis", axis, -8)
    probability = number("probability", probability, 0, 1)

    def flip(sample: Array, generator: np.random.Generator) -> Array:
        return np.flip(sample, axis) if generator.random() < probability else sample

    return Augmentation(flip, f"random_flip({axis}, {probability})")


def random_crop(padding: int = 4) -> Augmentation:
    """Return what moves an image by up to `padding` pixels each way; what comes in from outside is 0.

    Parameters
    ----------
    padding : int, default 4
        How far along each of the first two axes at most.
    """
    padding = integer("padding", padding, 0)

    def crop(sample: Array, generator: np.random.Generator) -> Array:
        moved = np.zeros_like(sample)
        steps = (generator.integers(0, 2 * padding + 1, 2) - padding).tolist()
        to, source = zip(
            *(_overlap(step, length) for step, length in zip(steps, sample.shape, strict=False)), strict=True
        )
        moved[to] = sample[source]
        return moved

    return Augmentation(crop, f"random_crop({padding})")


def random_noise(stddev: float) -> Augmentation:
    """Return what adds normal noise, in float32 or the sample's own wider type.

    Parameters
    ----------
    stddev : float
        The noise's standard deviation.
    """
    stddev = number("stddev", stddev, 0)

    def noise(sample: Array, generator: np.random.Generator) -> Array:
        dtype = np.float64 if sample.dtype == np.float64 else np.float32
        return sample + dtype(stddev) * generator.standard_normal(sample.shape, dtype)

    return Augmentation(noise, f"random_noise({stddev})")


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    """Return where on an axis values come to lie that move by `-step`, and where they come from."""
    count = max(0, length - abs(step))
    to, source = max(0, -step), max(0, step)
    return slice(to, to + count), slice(source, source + count)


def with_target(function: Callable[..., Any]) -> Augmentation:
    """Return an augmentation of sample and target together, from a function `(x, y, generator) -> (x, y)`."""
    if not callable(function):
        raise TypeError(f"`function` must be a function (x, y, generator) -> (x, y), got {function!r}")
    return Augmentation(function, f"with_target({_name(function)})", target=True)


def augmentations(augment: Any) -> list[Augmentation]:
    """Return what `augment` of `fit` stands for: a function or several."""
    several = [] if augment is None else list(augment) if is_sequence(augment) else [augment]
    for each in several:
        if not callable(each):
            raise TypeError(f"`augment` must be a function (sample, generator) -> sample, or several, got {each!r}")
    return [each if isinstance(each, Augmentation) else Augmentation(each, _name(each)) for each in several]


def augmented(data: Data, rows: Array, augment: Sequence[Augmentation], seed: int, epoch: int) -> Data:
    """Change every sample, with a generator that depends on seed, epoch and the row's number only."""
    samples: list[tuple[Any, Any]] = []
    inputs, targets = ({name: array.copy() for name, array in part.items()} for part in (data.x, data.y))
    key = np.array([seed, epoch], np.uint64)
    for index, row in enumerate(rows.tolist()):
        x = unflatten(data.x_names, {name: array[index] for name, array in inputs.items()})
        y = None if data.y_names is None else unflatten(data.y_names, {k: v[index] for k, v in targets.items()})
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, row, 0]))
        with named(f"`augment`, row {row}"):
            samples.append(_changed(x, y, augment, generator))
    x_arrays = _stacked("x", [x for x, _ in samples], data.x)
    if data.y_names is None or not any(each.target for each in augment):
        return data._replace(x=x_arrays)
    return data._replace(x=x_arrays, y=_stacked("y", [y for _, y in samples], data.y))


def _changed(x: Any, y: Any, augment: Sequence[Augmentation], generator: np.random.Generator) -> tuple[Any, Any]:
    for each in augment:
        if not each.target:
            x = each(x, generator)
            if x is None:
                raise TypeError(f"{each.name} must return the changed sample, got None")
            continue
        both = each.function(x, y, generator)
        if not is_sequence(both) or len(both) != 2:
            raise TypeError(f"{each.name} must return (x, y), got {type(both).__name__}")
        x, y = both
    return x, y


def _stacked(argument: str, samples: list[Any], names: Iterable[str]) -> dict[str, Array]:
    """Put the samples' arrays together again, by name."""
    leaves = [flatten(argument, sample) for sample in samples]
    if any(leaf.keys() != leaves[0].keys() for leaf in leaves) or set(leaves[0]) != set(names):
        raise ValueError(f"`augment` must return samples of {', '.join(names)}, got {', '.join(leaves[0])}")
    try:
        return {name: as_array(np.stack([leaf[name] for leaf in leaves]), name) for name in names}
    except ValueError as error:
        raise ValueError(f"`augment` must return samples of one shape: {error}") from error


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
