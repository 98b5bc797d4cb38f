"""Time gradients by finite differences against a plain loop of forward passes in NumPy, and print the ratios.

    python benches/finite_differences.py [--rounds 5] [--seconds 1.0]

The loop perturbs one parameter in place, runs the network forward on the batch of 32 and takes the mean loss, twice a
parameter, all in float32. Of large networks it runs as many parameters as fit in `--seconds`, picked at random, and the
time of all is extrapolated: each costs the same. Numbers are fair only on a machine that does nothing else.
"""

import argparse
import os
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import burnish as bn

Array = NDArray[np.float32]
BATCH = 32
STEP = np.float32(1e-2)


class Network(NamedTuple):
    """Widths from the input to the output, what follows each hidden layer, and the loss."""

    widths: tuple[int, ...]
    activation: str = "relu"
    loss: str = "cross_entropy"

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.widths))} {self.activation}, {self.loss}"


NETWORKS = (
    Network((24, 32, 6)),
    Network((64, 128, 10)),
    Network((784, 128, 10)),
    Network((24, 24, 12, 6)),
    Network((64, 96, 40, 10)),
    Network((784, 120, 64, 10)),
    Network((24, 32, 6), "tanh", "mse"),
    Network((64, 128, 10), "tanh", "mse"),
    Network((784, 128, 10), "tanh", "mse"),
)


class Plain:
    """The same network in NumPy: every array is allocated once."""

    def __init__(self, parameters: dict[str, Array], x: Array, y: NDArray[np.generic], network: Network) -> None:
        copies = {path: array.copy() for path, array in parameters.items()}
        self.parameters = list(copies.values())
        self.kernels, self.biases = (
            [array for path, array in copies.items() if path.endswith(end)] for end in (".kernel", ".bias")
        )
        self.x, self.y, self.network = x, y, network
        self.outputs = [np.empty((len(x), bias.size), np.float32) for bias in self.biases]
        self.samples = np.arange(len(x))

    def forward(self) -> float:
        """The mean loss."""
        value = self.x
        layers = zip(self.kernels, self.biases, self.outputs, strict=True)
        for place, (kernel, bias, out) in enumerate(layers):
            np.matmul(value, kernel, out=out)
            np.add(out, bias, out=out)
            if place + 1 < len(self.outputs):
                if self.network.activation == "relu":
                    np.maximum(out, 0, out=out)
                else:
                    np.tanh(out, out=out)
            value = out
        return self.mean_loss(value)

    def mean_loss(self, out: Array) -> float:
        """The mean loss of the outputs, which are used up."""
        if self.network.loss == "mse":
            out -= self.y
            np.multiply(out, out, out=out)
            return float(out.mean())
        out -= out.max(axis=1, keepdims=True)
        picked = out[self.samples, self.y]
        np.exp(out, out=out)
        return float((np.log(out.sum(axis=1)) - picked).mean())

    def slope(self, parameter: Array, place: int) -> float:
        """The central difference of one element."""
        flat = parameter.reshape(-1)
        value = flat[place]
        step = STEP * max(np.float32(1), abs(value))
        flat[place] = above = value + step
        upper = self.forward()
        flat[place] = below = value - step
        lower = self.forward()
        flat[place] = value
        return (upper - lower) / float(above - below)

    def places(self) -> list[tuple[int, int]]:
        """Parameter and place of every element, in an order whose every beginning is a fair sample."""
        every = [(number, place) for number, array in enumerate(self.parameters) for place in range(array.size)]
        return [every[index] for index in np.random.default_rng(1).permutation(len(every))]

    def gradient(self, places: list[tuple[int, int]], limit: float) -> tuple[float, int]:
        """The seconds of a whole gradient, from the elements that were done within a limit, and their number."""
        start, done = perf_counter(), 0
        for number, place in places:
            self.slope(self.parameters[number], place)
            done += 1
            if perf_counter() - start > limit:
                break
        return (perf_counter() - start) * len(places) / done, done


def model_of(network: Network, x: Array, y: NDArray[np.generic]) -> bn.Sequential:
    """The network, built."""
    *hidden, last = network.widths[1:]
    layers = [bn.layers.Dense(width, activation=network.activation) for width in hidden]
    model = bn.Sequential([*layers, bn.layers.Dense(last)])
    model.compile(loss=network.loss)
    bn.gradients(model, x, y)
    return model


def timed(work: Callable[[], object]) -> float:
    """The seconds that some work takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def check(plain: Plain, places: list[tuple[int, int]], found: list[Array]) -> None:
    """Fail unless both give the same slopes, but for the rounding of losses in float32."""
    expected = [plain.slope(plain.parameters[number], place) for number, place in places]
    np.testing.assert_allclose([found[number].flat[place] for number, place in places], expected, atol=5e-4)


def measure(network: Network, rounds: int, seconds: float) -> str:
    """A line of the table."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((BATCH, network.widths[0]), dtype=np.float32)
    if network.loss == "mse":
        y: NDArray[np.generic] = generator.standard_normal((BATCH, network.widths[-1]), dtype=np.float32)
    else:
        y = generator.integers(0, network.widths[-1], BATCH)
    model = model_of(network, x, y)
    plain = Plain(model.parameters(), x, y, network)
    places = plain.places()
    check(plain, places[:200], list(bn.gradients(model, x, y, method="numerical").values()))
    times: list[tuple[float, float, float]] = []
    done = len(places)
    for _ in range(rounds):
        loop, ran = plain.gradient(places, seconds)
        central = timed(lambda: bn.gradients(model, x, y, method="numerical"))
        one_sided = timed(lambda: bn.gradients(model, x, y, method="numerical_batch"))
        times.append((loop, central, one_sided))
        done = min(done, ran)
    loop, central, one_sided = (1e3 * median(column) for column in zip(*times, strict=True))
    ratio = median(loop / central for loop, central, _ in times)
    half = median(one_sided / central for _, central, one_sided in times)
    note = "" if done == len(places) else f" ({done:,} run)"
    return (
        f"| {network} | {len(places):,} | {loop:,.0f}{note} | {central:,.2f} | {one_sided:,.2f} "
        f"| {ratio:,.0f} | {half:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="the longest time of one NumPy loop")
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, NumPy {np.__version__}, batch {BATCH}, float32; medians of {options.rounds} rounds\n"
    )
    print(
        "| network | parameters | NumPy loop, ms | numerical, ms | numerical_batch, ms "
        "| loop / numerical | batch / numerical |"
    )
    print("|---|---|---|---|---|---|---|")
    for network in NETWORKS:
        print(measure(network, options.rounds, options.seconds), flush=True)


if __name__ == "__main__":
    main()
