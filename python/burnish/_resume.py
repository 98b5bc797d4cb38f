"""Going on from a checkpoint: which file, whether it fits, and putting everything back."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import integer
from ._runtime import Position
from ._snapshot import SUFFIX, Stored, checkpoints_in, read
from ._structure import is_dict
from .optimizers.base import plain_learning_rate, restored_learning_rate
from .schedules.compose import factored, scaled

if TYPE_CHECKING:
    from ._feed.sources import Source
    from ._fit import Run
    from ._runtime import Core
    from .optimizers.base import LearningRate

__all__ = ["adopt_rules", "check", "find", "rates_of", "restore", "restore_model", "settings_of"]

# What changes no bit of the result.
_FREE = {"checkpoint_activations"}


def find(path: Any) -> Stored | None:
    """Return the checkpoint in a file, or the newest whole one in a directory; None if there is none yet."""
    try:
        place = Path(os.fsdecode(path))
    except TypeError:
        raise TypeError(f"`resume_from` must be a path, got {path!r}") from None
    if place.is_file() or place.suffix == SUFFIX:
        return read(place)
    damage: list[str] = []
    for file in reversed(checkpoints_in(place) if place.is_dir() else []):
        try:
            stored = read(file)
        except (OSError, ValueError) as error:
            damage.append(f"{file.name} cannot be used ({error})")
            continue
        if damage:
            warnings.warn(f"{'; '.join(damage)}: going on from {file.name}", RuntimeWarning, stacklevel=4)
        return stored
    if damage:
        raise ValueError(f"`resume_from`: no checkpoint in {str(place)!r} is whole: {'; '.join(damage)}")
    return None


def settings_of(core: Core, source: Source, initial_epoch: int) -> dict[str, Any]:
    """Return what a resumed run must have in common with this one: always ("run"), and within an epoch ("data")."""
    compiled = core.compiled
    run: dict[str, Any] = {"initial_epoch": initial_epoch}
    if compiled is not None:
        optimizer = {key: value for key, value in compiled.optimizer.items() if key not in _FREE}
        run |= {"optimizer": optimizer, "precision": compiled.precision, "seed": compiled.seed}
    return json.loads(json.dumps({"run": run, "data": source.description()}))


def adopt_rules(core: Core, stored: Stored) -> None:
    """Freeze what was frozen when the checkpoint was written."""
    rules = tuple((str(pattern), bool(frozen)) for pattern, frozen in stored.model["rules"])
    if rules[: len(core.rules)] != core.rules:
        raise ValueError(
            f"`resume_from`: the calls of freeze and unfreeze were {_rules(rules)}, are {_rules(core.rules)}"
        )
    core.rules = rules


def check(core: Core, settings: dict[str, Any], stored: Stored) -> None:
    """Raise, with all the reasons, if a run with these settings would not go on as the stored one."""
    reasons = _program_differences(core, stored) + _differences(stored.run["fixed"]["settings"]["run"], settings["run"])
    if _position(stored).batch:
        data = _differences(stored.run["fixed"]["settings"]["data"], settings["data"])
        reasons += [f"{reason}, which may change between two epochs only" for reason in data]
    if reasons:
        raise ValueError(f"`resume_from`: {stored.path.name} is of another run: {'; '.join(reasons)}")


def restore_model(core: Core, stored: Stored) -> None:
    """Put weights, buffers, the optimizer's state and the position back."""
    session = core.ready().session
    session.load_state(stored.state)
    session.load_optimizer_state(stored.optimizer)
    known = {"updates_per_epoch": core.position.updates_per_epoch}  # of this fit's data
    vars(core.position).update({**vars(_position(stored)), **known})


def restore(run: Run, stored: Stored) -> list[str]:
    """Put everything back, last of all, so that it is as it was whatever hooks did; return what is to be told."""
    document = stored.run
    notes = run.callbacks.load_state(document["callbacks"])
    notes += _restore_learning_rate(run, document["now"]["learning_rate"])
    restore_model(run.core, stored)
    if any(name.startswith("average.") for name in stored.optimizer) and not run.runtime.session.averages():
        raise ValueError("`resume_from`: the run averages its weights: give the callback EMA again")
    run.load_state(document)
    notes += _differences(document["fixed"]["settings"]["data"], run.settings["data"])
    device = run.runtime.session.device
    before = document["fixed"]["device"]
    if before != device:
        notes.append(f"the run was on device {before!r} and is on {device!r}: the last bits may differ")
    if run.model.stop_training:
        notes.append(f"the run was stopped in epoch {run.epoch}, nothing is left to do")
    return notes


def rates_of(run: Run) -> dict[str, Any]:
    """Return the learning rates that a run began with and has now, for `restore`."""
    first, now = _described(run.first_rate), _described(run.core.learning_rate)
    if _is_function(now):
        now["replaced"] = not _same_function(run.core.learning_rate, run.first_rate)
    return {"first": first, "now": now}


def _restore_learning_rate(run: Run, stored: dict[str, Any]) -> list[str]:
    """Take the rate that callbacks had made, unless the fit was begun with another one than the stored run."""
    core, now = run.core, stored["now"]
    if _described(run.first_rate) == stored["first"]:
        if not _is_function(now):
            core.learning_rate = restored_learning_rate(now)
        elif not now["replaced"]:
            core.learning_rate = _times(now["factor"], run.first_rate)
        elif _is_function(_described(core.learning_rate)) and not _same_function(core.learning_rate, run.first_rate):
            core.learning_rate = _times(now["factor"], core.learning_rate)
        else:
            warnings.warn(
                "`resume_from`: a callback had set the learning rate to a function, which a checkpoint cannot hold: "
                "the run goes on with the rate it began with, unless a callback sets another one; set a schedule of "
                "bn.schedules, or set the function in `on_train_begin`",
                RuntimeWarning,
                stacklevel=8,
            )
        return []
    rate = plain_learning_rate(core.learning_rate)
    return [f"the learning rate is another one from here on: {'a function' if rate is None else rate}"]


def _described(learning_rate: LearningRate) -> Any:
    """Return a learning rate as JSON can hold it; of one that holds a function, the factor before it."""
    plain = plain_learning_rate(learning_rate)
    return {"factor": factored(learning_rate)[0]} if plain is None else plain


def _is_function(described: Any) -> bool:
    return is_dict(described) and "name" not in described


def _same_function(one: LearningRate, other: LearningRate) -> bool:
    return factored(one)[1] == factored(other)[1]


def _times(factor: float, learning_rate: LearningRate) -> LearningRate:
    """Return a rate with this factor instead of its own: products of its parts would differ in the last bits."""
    own, schedule = factored(learning_rate)
    return learning_rate if own == factor else scaled(schedule, factor)


def _position(stored: Stored) -> Position:
    values = {name: integer(name, value, 0) for name, value in stored.model["position"].items()}
    return Position(**values)


def _program_differences(core: Core, stored: Stored) -> list[str]:
    runtime = core.ready()
    program = runtime.built.program
    shapes = {path: tuple(shape) for path, shape, *_ in [*program.parameters(), *program.buffers()]}
    held = {path: array.shape for path, array in stored.state.items()}
    reasons = [f"{path!r} is missing in it" for path in shapes if path not in held]
    reasons += [f"{path!r} is extra in it" for path in held if path not in shapes]
    both = [path for path in shapes if path in held and shapes[path] != held[path]]
    reasons += [f"{path!r} has shape {held[path]} in it, {shapes[path]} in the model" for path in both]
    if not reasons and runtime.digest != stored.run["fixed"]["digest"]:
        reasons.append("the program differs (another loss, metric or activation, or another number in a layer)")
    return reasons


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Say what was and what is, for all that differs."""
    if is_dict(old) and is_dict(new):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(f"{name}.{key}" if name else key, old.get(key), new.get(key)) for key in keys]
        return [difference for key, was, now in pairs for difference in _differences(was, now, key)]
    return [] if old == new else [f"`{name}` was {old!r}, is {new!r}"]


def _rules(rules: Any) -> str:
    return ", ".join(f"{'freeze' if frozen else 'unfreeze'}({pattern!r})" for pattern, frozen in rules) or "none"
