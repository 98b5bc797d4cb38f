"""NaN and infinity: where they arose, and what keeps them away."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._report import Finding, Remedy

if TYPE_CHECKING:
    from ._figures import Figures

__all__ = ["Diagnosis", "not_finite"]


class Diagnosis(NamedTuple):
    """The first value of a micro-batch that is not finite, as the engine found it by running that batch again."""

    epoch: int
    step: int
    origin: str  # "input", "parameter", "activation", "loss" or "gradient"
    name: str  # the input's, the parameter's path, or the operation's
    layer: str
    bad: int
    elements: int
    row: int | None

    def __str__(self) -> str:
        layer = f" of layer {self.layer!r}" if self.layer else ""
        row = "" if self.row is None else f", first at row {self.row} of the data"
        return f"{self._what(layer)}; {self.bad} of {self.elements} numbers are not finite{row}"

    def _what(self, layer: str) -> str:
        return {
            "input": f"the data came first: `{self.name}`",
            "parameter": f"a parameter came first: {self.name!r}",
            "activation": f"an activation came first: operation `{self.name}`{layer}",
            "loss": f"the loss came first: operation `{self.name}`{layer or ' of the loss'}",
            "gradient": f"the loss is finite, its gradient is not: the gradient of `{self.name}`"
            f"{layer or ' of the loss'} came first",
        }[self.origin]


_LOWER = Remedy("Lower the learning rate", "model.compile(..., learning_rate={:.1g})")
_CLIP = Remedy("Clip the gradients", "model.compile(..., clip_norm=1.0)")
_CLEAN = (
    Remedy("Drop the rows that are not finite", "keep = np.isfinite(x).all(axis=1); x, y = x[keep], y[keep]"),
    Remedy("Fill them", "x = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)"),
    Remedy("Let fit look for them", "model.fit(x, y, check_data=True)"),
)
_DOMAIN = {
    "log": Remedy("Keep the logarithm away from 0", "bn.ops.log(bn.ops.maximum(x, 1e-7))"),
    "sqrt": Remedy("Keep the root away from 0, where its slope is infinite", "bn.ops.sqrt(x + 1e-12)"),
    "power": Remedy("Keep the base away from 0", "bn.ops.power(bn.ops.maximum(x, 1e-7), p)"),
    "divide": Remedy("Keep the divisor away from 0", "x / (y + 1e-7)"),
    "exp": Remedy("Bound the exponent", "bn.ops.exp(bn.ops.minimum(x, 80.0))"),
}
_LOGITS = Remedy(
    "Give the loss logits instead of probabilities: it then cannot overflow",
    'model.compile(loss="cross_entropy")  # and no softmax at the end',
)


def not_finite(figures: Figures, diagnosis: Diagnosis | None) -> Finding | None:
    """Return what is known of the first step that was not finite, if there was one."""
    finite = figures.column("finite").astype(bool) & np.isfinite(figures.loss)
    scale = figures.column("loss_scale")
    if scale.size and diagnosis is None:
        # A scale that grows until gradients overflow finds its height that way.
        finite |= np.isfinite(figures.loss) & (scale > 1.0)
    bad = np.flatnonzero(~finite)
    if not bad.size:
        return None
    epoch, step = figures.place(int(bad[0]))
    numbers: dict[str, float | str] = {"steps": int(bad.size), "of": int(finite.size)}
    told = f"{bad.size} of {finite.size} updates had a number that is not finite and were not made"
    if diagnosis is None:
        text = f"{told}; give callbacks=[bn.Doctor()] to fit, and it is found where it comes from"
    else:
        numbers |= {**diagnosis._asdict(), "row": -1 if diagnosis.row is None else diagnosis.row}
        text = f"{told}. In the first one {diagnosis}"
    if _grew(figures, int(bad[0])):
        text += "; loss or gradients had grown tenfold before: the training diverged"
    remedies = _remedies(diagnosis, _rate_before(figures, int(bad[0])), grew=_grew(figures, int(bad[0])))
    return Finding("not_finite", "error", text, numbers, remedies, epoch, step)


def _rate_before(figures: Figures, index: int) -> float:
    rates = figures.column("learning_rate")
    return float(rates[index]) if rates.size else 1e-3


def _grew(figures: Figures, index: int) -> bool:
    """Say whether gradients or the loss had grown tenfold before."""

    def grown(values: np.ndarray) -> bool:
        known = values[:index][np.isfinite(values[:index])]
        return known.size > 1 and float(known[-3:].max()) > 10.0 * max(float(known[0]), 1e-12)

    return grown(figures.column("gradient_norm")) or grown(np.abs(figures.loss))


def _remedies(diagnosis: Diagnosis | None, rate: float, *, grew: bool) -> tuple[Remedy, ...]:
    lower = Remedy(_LOWER.text, _LOWER.code.format(rate / 10.0))
    if diagnosis is None or grew:
        return (lower, _CLIP, *(_domain(diagnosis) if diagnosis else _CLEAN[:1]))
    if diagnosis.origin == "input":
        return _CLEAN
    if diagnosis.origin == "parameter":
        return (Remedy("Load weights that are finite", "model.load_weights(path)"), lower, _CLIP)
    return (*_domain(diagnosis), _CLIP, lower)


def _domain(diagnosis: Diagnosis) -> tuple[Remedy, ...]:
    known = _DOMAIN.get(diagnosis.name)
    found = () if known is None else (known,)
    return (*found, _LOGITS) if diagnosis.origin == "loss" else found
