"""JAX: one jitted step whose state is donated; arrays put on the device once, batches gathered inside the step."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax, nn
from jax import numpy as jnp
from jax.flatten_util import ravel_pytree

import workloads as w
from peer import Peer, Run, clocked

BETAS, EPSILON = (0.9, 0.999), 1e-8
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.9
PERTURBED = 256  # copies of a network that run at once


class State(NamedTuple):
    """What a step replaces; `running` are statistics of batches, `total` sums the losses of an epoch."""

    parameters: Any
    first_moment: Any
    second_moment: Any
    updates: Any
    running: Any = ()
    total: Any = np.float32(0)


class Layer(NamedTuple):
    """How a layer's parameters and its running statistics start, and what it does with them."""

    start: Callable[[Any, w.Shape, np.random.Generator], Any]
    apply: Callable[[Any, Any, Any], Any]  # layer, parameters, x
    running: Callable[[w.Shape], Any] = lambda _: ()


def hold_to(threads: int) -> None:
    """XLA sizes its thread pool by the processors that the process may use when it starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def no_parameters(*_: Any) -> tuple[()]:
    """Return the parameters of a layer that has none."""
    return ()


def product(x: Any, kernel: Any, bias: Any) -> Any:
    """Return x · kernel + bias, over one axis of rows: on the CPU two to three times faster than over several."""
    return (x.reshape(-1, x.shape[-1]) @ kernel + bias).reshape(*x.shape[:-1], -1)


def linear(layer: w.Dense, parameters: Any, x: Any) -> Any:
    return nn.relu(product(x, *parameters)) if layer.relu else product(x, *parameters)


def convolve(layer: w.Convolution, parameters: Any, x: Any) -> Any:
    kernel, *bias = parameters
    x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = x + bias[0] if bias else x
    return nn.relu(x) if layer.relu else x


def pool(_layer: w.MaxPool, _parameters: Any, x: Any) -> Any:
    """A reshape and a maximum: on the CPU several times faster than a window that slides."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def last_state(layer: w.LastState, parameters: Any, x: Any) -> Any:
    """The last h of an LSTM; each step's input is multiplied within the step, at batch 128 three times faster."""
    kernel, bias = parameters
    of_input, recurrent = kernel[: x.shape[-1]], kernel[x.shape[-1] :]

    def step(state: Any, x: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(x @ of_input + bias + h @ recurrent, 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return (nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((len(x), layer.units), x.dtype)
    return lax.scan(step, (zeros, zeros), jnp.swapaxes(x, 0, 1))[0][0]


def standardised(x: Any, axis: int | tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Return x of mean 0 and variance 1 along some axes, and what the mean and variance were."""
    mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + NORM_EPSILON), mean, variance


def batch_norm(_layer: w.BatchNorm, parameters: Any, x: Any) -> tuple[Any, tuple[Any, Any]]:
    """Return the value, and the statistics of the batch."""
    scale, offset = parameters
    value, *statistics = standardised(x, (0, 1, 2))
    return value * scale + offset, tuple(map(jnp.ravel, statistics))


def layer_norm(x: Any, scale: Any, offset: Any) -> Any:
    return standardised(x, -1)[0] * scale + offset


def encoder_parameters(layer: w.Encoder, shape: w.Shape, rng: np.random.Generator) -> Any:
    width = shape[-1]
    products = [(width, 3 * width), (width, width), (width, layer.hidden), (layer.hidden, width)]
    return [w.dense(rng, *shape) for shape in products], [norm_parameters(None, shape, rng) for _ in range(2)]


def encode(layer: w.Encoder, parameters: Any, x: Any) -> Any:
    (heads, after, hidden, output), norms = parameters
    queries, keys, values = jnp.split(product(x, *heads).reshape(*x.shape[:2], 3 * layer.heads, -1), 3, axis=2)
    found = nn.dot_product_attention(queries, keys, values).reshape(x.shape)
    x = layer_norm(x + product(found, *after), *norms[0])
    return layer_norm(x + product(nn.relu(product(x, *hidden)), *output), *norms[1])


def norm_parameters(_layer: Any, shape: w.Shape, _rng: np.random.Generator) -> tuple[w.Array, w.Array]:
    return np.ones(shape[-1], np.float32), np.zeros(shape[-1], np.float32)


LAYERS: dict[type, Layer] = {
    w.Dense: Layer(lambda layer, shape, rng: w.dense(rng, shape[-1], layer.units), linear),
    w.Convolution: Layer(
        lambda layer, shape, rng: w.dense(rng, 3, 3, shape[-1], layer.filters)[: 1 + layer.bias], convolve
    ),
    w.BatchNorm: Layer(norm_parameters, batch_norm, lambda shape: norm_parameters(None, shape, None)[::-1]),
    w.Relu: Layer(no_parameters, lambda _layer, _parameters, x: nn.relu(x)),
    w.Encoder: Layer(encoder_parameters, encode),
    w.MaxPool: Layer(no_parameters, pool),
    w.Mean: Layer(no_parameters, lambda _layer, _parameters, x: x.mean(tuple(range(1, x.ndim - 1)))),
    w.Flatten: Layer(no_parameters, lambda _layer, _parameters, x: x.reshape(len(x), -1)),
    w.LastState: Layer(lambda layer, shape, rng: w.dense(rng, shape[-1] + layer.units, 4 * layer.units), last_state),
    w.Embedding: Layer(
        lambda layer, _, rng: w.dense(rng, layer.rows, layer.width)[0], lambda _layer, table, x: table[x]
    ),
}


class JaxPeer(Peer):
    """Adam as Optax defines it, written out."""

    version = jax.__version__

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        hold_to(threads)
        self.rng = np.random.default_rng(0)

    def training(self, workload: w.Training) -> Run:
        records = workload.inputs()
        parameters = [LAYERS[type(layer)].start(layer, shape, self.rng) for layer, shape in records]
        running = [LAYERS[type(layer)].running(shape) for layer, shape in records]
        state = started(parameters)._replace(running=jax.tree.map(jnp.asarray, running))
        step, (x, y) = training_step(workload), map(jax.device_put, workload.arrays())

        def epoch() -> float:
            nonlocal state
            order = self.rng.permutation(len(x)).astype(np.int32).reshape(-1, workload.batch_size)
            state = state._replace(total=np.float32(0))
            for rows in order:
                state = step(state, x, y, rows)
            return float(state.total) / len(order)

        return clocked(lambda epochs: [epoch() for _ in range(epochs)][-1])

    def update(self, workload: w.Update) -> Run:
        state = started([np.full((workload.side,) * 2, 0.5, np.float32) for _ in range(workload.matrices)])
        gradients = jax.tree.map(lambda parameter: jnp.full_like(parameter, 0.01), state.parameters)
        step = jax.jit(adam, donate_argnums=0)

        def run(epochs: int) -> None:
            nonlocal state
            for _ in range(epochs * workload.steps):
                state = step(state, gradients)
            jax.block_until_ready(state)

        return clocked(run)

    def differences(self, workload: w.Differences) -> Run:
        point, restored = ravel_pytree(workload.parameters())
        x, y = map(jax.device_put, workload.arrays())
        layers = w.perceptron(*workload.widths[1:])
        step = workload.step * jnp.maximum(1, jnp.abs(point))

        def slope(place: Any) -> Any:
            move = jnp.where(jnp.arange(len(point)) == place, step, 0)
            upper, lower = (loss_of(layers, restored(moved), (), x, y)[0] for moved in (point + move, point - move))
            return (upper - lower) / (2 * step[place])

        gradient = jax.jit(lambda: lax.map(slope, jnp.arange(len(point)), batch_size=PERTURBED))
        return clocked(lambda epochs: [float(jnp.linalg.norm(gradient())) for _ in range(epochs)][-1])


def started(parameters: Any) -> State:
    """Return the state before the first step."""
    zeros = partial(jax.tree.map, jnp.zeros_like)
    parameters = jax.tree.map(jnp.asarray, parameters)
    return State(parameters, zeros(parameters), zeros(parameters), np.float32(0))


def loss_of(layers: tuple[w.Layer, ...], parameters: Any, running: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return the mean loss, and the running statistics with those of this batch."""
    new = []
    for layer, own, old in zip(layers, parameters, running or [()] * len(layers), strict=True):
        x = LAYERS[type(layer)].apply(layer, own, x)
        x, statistics = x if old else (x, ())
        new.append(jax.tree.map(lambda a, b: NORM_MOMENTUM * a + (1 - NORM_MOMENTUM) * b, old, statistics))
    return -jnp.take_along_axis(nn.log_softmax(x), y[:, None], axis=1).mean(), new


def adam(state: State, gradients: Any) -> State:
    """Return the state after an update."""
    updates = state.updates + 1
    first, second = (1 - beta**updates for beta in BETAS)
    moments = [
        jax.tree.map(lambda old, new, beta=beta: beta * old + (1 - beta) * new, moment, new)
        for beta, moment, new in (
            (BETAS[0], state.first_moment, gradients),
            (BETAS[1], state.second_moment, jax.tree.map(jnp.square, gradients)),
        )
    ]
    parameters = jax.tree.map(
        lambda p, m, v: p - w.LEARNING_RATE * (m / first) / (jnp.sqrt(v / second) + EPSILON),
        state.parameters,
        *moments,
    )
    return state._replace(parameters=parameters, first_moment=moments[0], second_moment=moments[1], updates=updates)


def training_step(workload: w.Training) -> Any:
    """Compile one step."""

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, x: Any, y: Any, rows: Any) -> State:
        graded = jax.value_and_grad(partial(loss_of, workload.layers), has_aux=True)
        (value, running), gradients = graded(state.parameters, state.running, x[rows], y[rows])
        return adam(state, gradients)._replace(running=running, total=state.total + value)

    return step
