"""Parameters that are trained otherwise than the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import boolean, nearest, number
from ._freeze import matches

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ParamGroup", "groups_by_path"]


class ParamGroup:
    """What is different for the parameters whose path, or a layer above them, matches a glob.

    Parameters
    ----------
    pattern : str
        A glob over paths: "head", "encoder.*", "*.kernel". Of several groups that match, the last one decides.
    learning_rate : float, default 1
        What the learning rate of every update is multiplied by; 0 keeps the parameters as they are (see
        `Model.freeze`, which costs nothing).
    weight_decay : float, optional
        Instead of the optimizer's; biases and scales stay without, unless `decay_roles="all"`.
    clip : bool, default True
        Whether the gradients are clipped; those that are not are left out of the norm that `clip_norm` limits.
    depth_decay : float above 0, optional
        Discriminative rates by depth: the last layer that matches has `learning_rate`, each layer before it
        `depth_decay` times that of the next one (Howard and Ruder 2018 take 1/2.6). Layers count in the order in which
        the model uses them.

    Examples
    --------
    >>> import burnish as bn
    >>> groups = [bn.ParamGroup("*", depth_decay=0.5), bn.ParamGroup("head", learning_rate=10.0, weight_decay=0.0)]
    """

    def __init__(
        self,
        pattern: str,
        learning_rate: float = 1.0,
        weight_decay: float | None = None,
        *,
        clip: bool = True,
        depth_decay: float | None = None,
    ) -> None:
        if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"`pattern` must be a glob over paths, got {pattern!r}")
        self.pattern = pattern
        self.learning_rate = number("learning_rate", learning_rate, 0)
        self.weight_decay = None if weight_decay is None else number("weight_decay", weight_decay, 0)
        self.clip = boolean("clip", clip)
        self.depth_decay = None if depth_decay is None else number("depth_decay", depth_decay, 0, above=True)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={value}" for name, value in vars(self).items() if name != "pattern")
        return f"ParamGroup({self.pattern!r}, {numbers})"


def checked(groups: Any) -> list[dict[str, Any]]:
    """Return the groups as plain data."""
    several = [groups] if isinstance(groups, ParamGroup) else groups
    try:
        several = list(several)
    except TypeError:
        several = [several]
    for group in several:
        if not isinstance(group, ParamGroup):
            raise TypeError(f"`param_groups` must hold bn.ParamGroup objects, got {group!r}")
    return [vars(group) for group in several]


def groups_by_path(groups: Sequence[dict[str, Any]], paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the groups as the engine reads them, with the paths that each decides for."""
    resolved: list[dict[str, Any]] = []
    for group in groups:
        matching = [path for path in paths if matches(group["pattern"], path)]
        if not matching:
            raise ValueError(
                f"`param_groups`: {group['pattern']!r} matches no parameter; {nearest(group['pattern'], paths)}"
            )
        layers = _by_layer(matching)
        for place, members in enumerate(layers):
            factor = 1.0 if group["depth_decay"] is None else group["depth_decay"] ** (len(layers) - 1 - place)
            resolved.append(
                {
                    "paths": members,
                    "learning_rate": group["learning_rate"] * factor,
                    "weight_decay": group["weight_decay"],
                    "clip": group["clip"],
                }
            )
    return resolved


def _by_layer(paths: Sequence[str]) -> list[list[str]]:
    """Return the paths of each layer, in the order in which the model uses them."""
    layers: dict[str, list[str]] = {}
    for path in paths:
        layers.setdefault(path.rpartition(".")[0], []).append(path)
    return list(layers.values())
