"""Embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import initializers, ops, regularizers
from .._errors import integer
from .base import OneInput

if TYPE_CHECKING:
    from .._value import Value

__all__ = ["Embedding"]


class Embedding(OneInput):
    """A learnt vector for each integer below `input_dim`: `(batch, …) -> (batch, …, output_dim)`.

    Parameters
    ----------
    input_dim : int
        The number of vectors; the data is checked to lie in [0, input_dim).
    output_dim : int
        The length of each vector.
    embeddings_initializer : str or Initializer
        How the parameter `embeddings (input_dim, output_dim)` starts; "uniform" is Keras's, in [-0.05, 0.05).
    embeddings_regularizer : str or function, optional
        A penalty on their size, added to the loss; see `bn.regularizers`.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.input_dim = integer("input_dim", input_dim, 1)
        self.output_dim = integer("output_dim", output_dim, 1)
        self.embeddings_initializer = initializers.resolve(embeddings_initializer)
        self.embeddings_regularizer = regularizers.resolve("embeddings_regularizer", embeddings_regularizer)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        shape = (self.input_dim, self.output_dim)
        initializer, penalty = self.embeddings_initializer, self.embeddings_regularizer
        table = self.parameter("embeddings", shape, initializer, "embedding", penalty)
        return ops.take(table, x, axis=0)
