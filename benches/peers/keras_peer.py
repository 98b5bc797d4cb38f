"""Keras 3 on JAX: `fit`, compiled."""

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
from keras import layers, ops

import workloads as w
from jax_peer import hold_to
from peer import Peer, Run, clocked

STEPS_PER_CALL = 32


class EncoderLayer(layers.Layer):
    """Attention and a feed-forward network, each with a sum and a normalisation behind it."""

    def __init__(self, heads: int, width: int, hidden: int) -> None:
        super().__init__()
        self.attention = layers.MultiHeadAttention(heads, width // heads)
        self.hidden, self.output_layer = layers.Dense(hidden, activation="relu"), layers.Dense(width)
        self.norms = [layers.LayerNormalization(epsilon=1e-5) for _ in range(2)]

    def build(self, input_shape: Any) -> None:
        self.attention.build(input_shape, input_shape)
        self.hidden.build(input_shape)
        self.output_layer.build(self.hidden.compute_output_shape(input_shape))
        for norm in self.norms:
            norm.build(input_shape)

    def call(self, x: Any) -> Any:
        x = self.norms[0](x + self.attention(x, x))
        return self.norms[1](x + self.output_layer(self.hidden(x)))


def mean(_: w.Mean, shape: w.Shape) -> layers.Layer:
    return layers.GlobalAveragePooling2D() if len(shape) == 3 else layers.GlobalAveragePooling1D()


# A layer, and the shape of a row before it.
LAYERS: dict[type, Callable[[Any, w.Shape], layers.Layer]] = {
    w.Dense: lambda layer, _: layers.Dense(layer.units, activation="relu" if layer.relu else None),
    w.Convolution: lambda layer, _: layers.Conv2D(
        layer.filters, 3, padding="same", activation="relu" if layer.relu else None, use_bias=layer.bias
    ),
    w.BatchNorm: lambda *_: layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
    w.Relu: lambda *_: layers.ReLU(),
    w.Encoder: lambda layer, shape: EncoderLayer(layer.heads, shape[-1], layer.hidden),
    w.MaxPool: lambda *_: layers.MaxPooling2D(2),
    w.Mean: mean,
    w.Flatten: lambda *_: layers.Flatten(),
    w.LastState: lambda layer, _: layers.LSTM(layer.units),
    w.Embedding: lambda layer, _: layers.Embedding(layer.rows, layer.width),
}


class KerasPeer(Peer):
    """`steps_per_execution` calls callbacks less often, without which a step of the smallest network is Keras's own."""

    version = keras.__version__

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        hold_to(threads)
        keras.utils.set_random_seed(0)

    def training(self, workload: w.Training) -> Run:
        keras.backend.clear_session()
        model = keras.Sequential([LAYERS[type(layer)](layer, shape) for layer, shape in workload.inputs()])
        model.compile(
            optimizer=keras.optimizers.Adam(w.LEARNING_RATE),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
            steps_per_execution=min(STEPS_PER_CALL, workload.steps),
        )
        x, y = workload.arrays()

        def train(epochs: int) -> float:
            history = model.fit(x, y, batch_size=workload.batch_size, epochs=epochs, verbose=0)
            return float(history.history["loss"][-1])

        return clocked(train)

    def update(self, workload: w.Update) -> Run:
        """The optimizer's own step without state, compiled as `fit` compiles it."""
        variables = [keras.Variable(np.full((workload.side,) * 2, 0.5, np.float32)) for _ in range(workload.matrices)]
        gradients = [ops.full(variable.shape, 0.01) for variable in variables]
        optimizer = keras.optimizers.Adam(w.LEARNING_RATE)
        optimizer.build(variables)
        state = [[variable.value for variable in group] for group in (variables, optimizer.variables)]
        step = jax.jit(
            lambda values, slots, gradients: optimizer.stateless_apply(slots, gradients, values), donate_argnums=(0, 1)
        )

        def run(epochs: int) -> None:
            nonlocal state
            for _ in range(epochs * workload.steps):
                state = step(*state, gradients)
            jax.block_until_ready(state)

        return clocked(run)
