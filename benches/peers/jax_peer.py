"""JAX: one jitted step whose state is donated; arrays put on the device once, batches gathered inside the step."""

import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from workloads import LEARNING_RATE, Array, Workload

BETAS, EPSILON = (0.9, 0.999), 1e-8


class State(NamedTuple):
    """What a step replaces; `total` sums the losses of an epoch."""

    parameters: list[tuple[Any, Any]]
    first_moment: list[tuple[Any, Any]]
    second_moment: list[tuple[Any, Any]]
    updates: Any
    total: Any


def hold_to(threads: int) -> None:
    """XLA sizes its thread pool by the processors that the process may use when it starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class JaxPeer:
    """Adam as Optax defines it, written out."""

    def __init__(self, threads: int) -> None:
        hold_to(threads)
        import jax

        jax.config.update("jax_platforms", "cpu")
        self.jax, self.version = jax, jax.__version__
        self.rng = np.random.default_rng(0)

    def build(self, workload: Workload) -> bool:
        zeros = partial(self.jax.tree.map, self.jax.numpy.zeros_like)
        parameters = initial_parameters(workload, self.rng)
        parameters = self.jax.tree.map(self.jax.numpy.asarray, parameters)
        self.state = State(parameters, zeros(parameters), zeros(parameters), np.float32(0), np.float32(0))
        self.step = make_step(workload, self.pool)
        self.x, self.y = map(self.jax.device_put, workload.arrays())
        self.batch_size = workload.batch_size
        return True

    def pool(self, x: Any) -> Any:
        """2x2 max pooling as Flax does it."""
        window, largest = (1, 2, 2, 1), self.jax.lax.max
        return self.jax.lax.reduce_window(x, -np.inf, largest, window, window, "VALID")

    def train(self, epochs: int) -> float:
        return [self._epoch() for _ in range(epochs)][-1]

    def _epoch(self) -> float:
        order = self.rng.permutation(len(self.x)).astype(np.int32).reshape(-1, self.batch_size)
        state = self.state._replace(total=np.float32(0))
        for rows in order:
            state = self.step(state, self.x, self.y, rows)
        self.state = self.jax.block_until_ready(state)
        return float(state.total) / len(order)


class JaxReshapePeer(JaxPeer):
    """Pooling by hand, as a reshape and a maximum: on the CPU several times faster than the usual one."""

    def build(self, workload: Workload) -> bool:
        return bool(workload.convolutions) and super().build(workload)

    def pool(self, x: Any) -> Any:
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def initial_parameters(workload: Workload, rng: np.random.Generator) -> list[tuple[Array, Array]]:
    """He-initialised kernels and zero biases, convolutions first."""

    def layer(*shape: int) -> tuple[Array, Array]:
        scale = np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        return scale * rng.standard_normal(shape, dtype=np.float32), np.zeros(shape[-1], np.float32)

    channels = (workload.shape[-1], *workload.convolutions)
    widths = (workload.features, *workload.hidden, workload.classes)
    first = [layer(3, 3, before, after) for before, after in pairwise(channels)]
    if workload.units:
        first = [layer(channels[0] + workload.units, 4 * workload.units)]
    return first + [layer(before, after) for before, after in pairwise(widths)]


def last_state(x: Any, kernel: Any, bias: Any) -> Any:
    """The last h of an LSTM; what does not wait for a step before is one product."""
    from jax import lax, nn
    from jax import numpy as jnp

    units, features = kernel.shape[1] // 4, x.shape[-1]

    def step(state: Any, z: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(z + h @ kernel[features:], 4, axis=-1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return (nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((len(x), units), x.dtype)
    return lax.scan(step, (zeros, zeros), jnp.swapaxes(x @ kernel[:features] + bias, 0, 1))[0][0]


def make_step(workload: Workload, pool: Callable[[Any], Any]) -> Any:
    """Compile one Adam step."""
    import jax
    from jax import numpy as jnp

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        before = len(workload.convolutions) + bool(workload.units)
        convolutions, dense = parameters[: len(workload.convolutions)], parameters[before:]
        for kernel, bias in convolutions:
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = pool(jax.nn.relu(x + bias))
        x = last_state(x, *parameters[0]) if workload.units else x.reshape(len(x), -1)
        for kernel, bias in dense[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
        logits = x @ dense[-1][0] + dense[-1][1]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, x: Any, y: Any, rows: Any) -> State:
        value, gradients = jax.value_and_grad(loss)(state.parameters, x[rows], y[rows])
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
            lambda p, m, v: p - LEARNING_RATE * (m / first) / (jnp.sqrt(v / second) + EPSILON),
            state.parameters,
            *moments,
        )
        return State(parameters, *moments, updates, state.total + value)

    return step
