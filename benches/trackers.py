"""What trackers cost a fit: the same fit without one and with one that works, raises, is slow or hangs, interleaved.

    python benches/trackers.py [--rounds N] [--seconds S] [--rows N]

Prints of each the median time, its ratio to the fit without a tracker, and the part of its time that the training
thread spends in the tracker, which other processes disturb less. TensorBoard is measured where tensorboardX is.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import burnish as bn


class Healthy(bn.callbacks.Tracker):
    """Does nothing with what it gets."""


class Raises(bn.callbacks.Tracker):
    """Fails at every epoch."""

    def log(self, *_: object) -> None:
        raise ConnectionError("no network")


class Slow(bn.callbacks.Tracker):
    """Takes longer than an epoch."""

    def log(self, *_: object) -> None:
        time.sleep(0.3)


class HangsAtFirst(bn.callbacks.Tracker):
    """Does not answer for 30 s when it begins."""

    def start(self, *_: object) -> None:
        time.sleep(30)


class HangsLater(bn.callbacks.Tracker):
    """Does not answer for 30 s at the third epoch."""

    def log(self, epoch: int, *_: object) -> None:
        if epoch == 2:
            time.sleep(30)


class HangsAtTheEnd(bn.callbacks.Tracker):
    """Does not answer for 30 s when the fit ends."""

    def finish(self, *_: object) -> None:
        time.sleep(30)


def kinds(folder: Path) -> dict[str, Callable[[], list[bn.callbacks.Callback]]]:
    several = (Healthy, Raises, Slow, HangsAtFirst, HangsLater, HangsAtTheEnd)
    made: dict[str, Callable[[], list[bn.callbacks.Callback]]] = {"none": list}
    for kind in several:
        made[kind.__name__] = lambda kind=kind: [kind(folder / "figures.jsonl", timeout=0)]
    if importlib.util.find_spec("tensorboardX"):
        made["TensorBoard"] = lambda: [bn.callbacks.TensorBoard(folder / "logs", timeout=0)]
    return made


HOOKS = ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end")


def timed(callback: bn.callbacks.Callback, spent: list[float]) -> bn.callbacks.Callback:
    """Have the callback's hooks note how long they take."""

    def noting(hook: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            began = time.perf_counter()
            hook(*arguments)
            spent.append(time.perf_counter() - began)

        return call

    for name in HOOKS:
        setattr(callback, name, noting(getattr(callback, name)))
    return callback


def seconds(callbacks: list[bn.callbacks.Callback], epochs: int, x: np.ndarray, y: np.ndarray) -> float:
    model = bn.Sequential([bn.layers.Dense(128, activation="relu"), bn.layers.Dense(10)])
    model.compile("cross_entropy", "adam")
    model.build((None, x.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of a fit, about")
    parser.add_argument("--rows", type=int, default=65536, metavar="N", help="how many make up an epoch")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(options.rows, 64)).astype(np.float32), rng.integers(0, 10, options.rows)
    seconds([], 5, x, y)  # what is slow only once
    epochs = max(round(40 * options.seconds / seconds([], 40, x, y)), 3)
    with tempfile.TemporaryDirectory() as folder:
        makers = kinds(Path(folder))
        times: dict[str, list[float]] = {name: [] for name in makers}
        shares: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(options.rounds):
            for name, make in makers.items():
                spent: list[float] = []
                times[name].append(seconds([timed(one, spent) for one in make()], epochs, x, y))
                shares[name].append(sum(spent) / times[name][-1])
    print(f"{epochs} epochs, {options.rounds} rounds")
    for name, measured in times.items():
        ratios = [one / bare for one, bare in zip(measured, times["none"], strict=True)]
        share = statistics.median(shares[name])
        print(f"{name:14} {statistics.median(measured):7.3f} s  {statistics.median(ratios):6.3f}  {100 * share:6.3f} %")


if __name__ == "__main__":
    main()
