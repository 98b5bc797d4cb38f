"""Attention, and how it is told where things stand."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import initializers, ops, regularizers
from .._errors import boolean, integer, number
from ..losses import show
from ._window import check_sequence
from .base import Layer, OneInput

if TYPE_CHECKING:
    from .._value import Shape, Value

__all__ = ["MultiHeadAttention", "PositionalEncoding"]

_FAR = 1000.0  # e^-1000 is 0 in every precision


class MultiHeadAttention(Layer):
    """softmax(Q · Kᵀ / sqrt(key_dim)) · V in several heads, projected back (Vaswani et al. 2017).

    Called with `query (batch, time, features)`, and `value`, `key (batch, places, …)` unless the query attends to
    itself: `-> (batch, time, output_shape)`.

    Parameters
    ----------
    num_heads : int
        The number of heads.
    key_dim : int, optional
        The features of a head's queries and keys; by default the query's, split among the heads.
    value_dim : int, optional
        The features of a head's values (default: `key_dim`).
    dropout : float in [0, 1), default 0
        In training, what part of the attention weights is set to 0.
    use_bias : bool, default True
        Whether the four projections have a bias.
    output_shape : int, optional
        The features of the result (default: those of the query).
    kernel_initializer, bias_initializer : str or Initializer
        How `query_kernel (features, num_heads · key_dim)`, `key_kernel`, `value_kernel` and
        `output_kernel (num_heads · value_dim, output_shape)`, and their biases, start.
    kernel_regularizer, bias_regularizer : str or function, optional
        Penalties on their size, added to the loss; see `bn.regularizers`.
    use_causal_mask : bool, default False
        The default of the argument of the call, for use in a `Sequential`.

    Examples
    --------
    >>> import burnish as bn
    >>> tokens = bn.Input((12,))
    >>> x = bn.layers.Embedding(100, 16)(tokens)
    >>> y = bn.layers.MultiHeadAttention(4, key_dim=8)(x, key_mask=tokens != 0, use_causal_mask=True)
    >>> y.shape
    (None, 12, 16)
    """

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        num_heads: int,
        key_dim: int | None = None,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,  # noqa: FBT001, FBT002
        output_shape: int | None = None,
        *,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        use_causal_mask: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.num_heads = integer("num_heads", num_heads, 1)
        self.key_dim = None if key_dim is None else integer("key_dim", key_dim, 1)
        self.value_dim = None if value_dim is None else integer("value_dim", value_dim, 1)
        self.dropout = number("dropout", dropout, 0, 1, below=True)
        self.use_bias = boolean("use_bias", use_bias)
        self.output_shape = None if output_shape is None else integer("output_shape", output_shape, 1)
        self.kernel_initializer = initializers.resolve(kernel_initializer)
        self.bias_initializer = initializers.resolve(bias_initializer)
        self.kernel_regularizer = regularizers.resolve("kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = regularizers.resolve("bias_regularizer", bias_regularizer)
        self.use_causal_mask = boolean("use_causal_mask", use_causal_mask)

    def call(
        self,
        query: Any,
        value: Any = None,
        key: Any = None,
        *,
        key_mask: Any = None,
        attention_mask: Any = None,
        use_causal_mask: bool | None = None,
        return_attention_scores: bool = False,
        training: bool = False,
    ) -> Any:
        """Compute the layer's value.

        Parameters
        ----------
        query, value, key
            What asks, what is asked for (default: the query), and what it is found by (default: the value).
        key_mask : value or array, optional
            `(batch, places)`, true (or not 0) where there is something and false at padding.
        attention_mask : value or array, optional
            `(time, places)`, `(batch, time, places)` or `(batch, num_heads, time, places)`, true where the query may
            look.
        use_causal_mask : bool, optional
            Whether each step sees only itself and what comes before it.
        return_attention_scores : bool, default False
            Whether to return the weights `(batch, num_heads, time, places)` too.
        training : bool
            Which form is written; the weights are dropped in training.

        Notes
        -----
        A query that may look nowhere gets the mean of all values, and no NaN.
        """
        value = query if value is None else value
        key = value if key is None else key
        for one in (query, value, key):
            check_sequence(self.default_name, one.shape)
        width = self._key_width(query.shape[-1])
        q = self._projected("query", query, self.num_heads * width)
        k = self._projected("key", key, self.num_heads * width)
        v = self._projected("value", value, self.num_heads * (self.value_dim or width))
        causal = self.use_causal_mask if use_causal_mask is None else boolean("use_causal_mask", use_causal_mask)
        mask = self._mask(query.shape, key.shape[1], key_mask, attention_mask)
        dropout, units = self.dropout if training else 0.0, self.output_shape or query.shape[-1]
        if return_attention_scores:
            joined, weights = self._with_weights(q, k, v, mask, causal=causal, dropout=dropout)
            return self._projected("output", joined, units), weights
        joined = ops.attention(q, k, v, self.num_heads, mask, causal=causal, dropout=dropout)
        return self._projected("output", joined, units)

    def _key_width(self, features: int) -> int:
        if self.key_dim is None and features % self.num_heads:
            raise ValueError(
                f"{self.default_name}: expected features divisible by num_heads={self.num_heads} (or `key_dim`), "
                f"got {features}"
            )
        return self.key_dim or features // self.num_heads

    def _projected(self, which: str, x: Any, units: int) -> Value:
        shape, penalty = (x.shape[-1], units), self.kernel_regularizer
        kernel = self.parameter(f"{which}_kernel", shape, self.kernel_initializer, regularizer=penalty)
        bias = (f"{which}_bias", (units,), self.bias_initializer, "bias", self.bias_regularizer)
        return ops.linear(x, kernel, self.parameter(*bias) if self.use_bias else None)

    def _mask(self, query: Shape, places: int | None, key_mask: Any, attention_mask: Any) -> Value | None:
        """Return what is true where a score counts, to be broadcast to `(batch, heads, time, places)`."""
        batch, time = query[:2]
        masks: list[Value] = []
        if key_mask is not None:
            self._check_mask("key_mask", key_mask, [(batch, places)])
            masks.append(ops.reshape(ops.cast(key_mask, "bool"), (batch, 1, 1, places)))
        if attention_mask is not None:
            forms = [(time, places), (batch, time, places), (batch, self.num_heads, time, places)]
            self._check_mask("attention_mask", attention_mask, forms)
            mask = ops.cast(attention_mask, "bool")
            leading = {2: (1, 1), 3: (batch, 1), 4: (batch, self.num_heads)}[mask.ndim]
            masks.append(ops.reshape(mask, (*leading, time, places)))
        return functools.reduce(ops.logical_and, masks) if masks else None

    def _with_weights(
        self, q: Value, k: Value, v: Value, mask: Any, *, causal: bool, dropout: float
    ) -> tuple[Value, Value]:
        """Return what `ops.attention` does, and the weights, `(batch, heads, time, places)`."""
        q, k, v = (self._heads(x) for x in (q, k, v))
        scores = ops.matmul(q * (1 / math.sqrt(q.shape[-1] or 1)), ops.transpose(k, (0, 1, 3, 2)))
        # Below all others whatever they are, and finite, so that a row of nothing else is uniform.
        masked = ops.stop_gradient(ops.min(scores, -1, keepdims=True)) - _FAR
        if mask is not None:
            scores = ops.where(mask, scores, masked)
        if causal:
            time, places = scores.shape[2:]
            steps = np.arange(max(time or 0, places or 0))
            seen = scores.emit("less_equal", [steps[None, :places], steps[:time, None]], {})
            scores = ops.where(seen, scores, masked)
        weights = ops.softmax(scores)
        joined = ops.transpose(ops.matmul(ops.dropout(weights, dropout) if dropout else weights, v), (0, 2, 1, 3))
        batch, time, heads, width = joined.shape
        return ops.reshape(joined, (batch, time, (heads or 0) * (width or 0))), weights

    def _heads(self, x: Value) -> Value:
        """Split `(batch, time, heads · width)` into `(batch, heads, time, width)`."""
        batch, time, features = x.shape
        apart = ops.reshape(x, (batch, time, self.num_heads, (features or 0) // self.num_heads))
        return ops.transpose(apart, (0, 2, 1, 3))

    def _check_mask(self, argument: str, mask: Any, shapes: list[tuple[int | None, ...]]) -> None:
        got = tuple(mask.shape)
        if got not in shapes:
            wanted = " or ".join(map(show, shapes))
            raise ValueError(f"{self.default_name}: `{argument}` must have shape {wanted}, got {show(got)}")


class PositionalEncoding(OneInput):
    """x plus a vector for each place: `(batch, time, features) -> (batch, time, features)`.

    PE(place, 2i) = sin(place / max_wavelength^(2i / features)), PE(place, 2i + 1) = cos of the same (Vaswani et al.
    2017, 3.5); or the parameter `embeddings (time, features)`, which is learnt.

    Parameters
    ----------
    max_wavelength : float, default 10000
        The longest wave is 2π times as long.
    learned : bool, default False
        Whether the vectors are learnt instead.
    embeddings_initializer : str or Initializer, default "uniform"
        How learnt vectors start.
    embeddings_regularizer : str or function, optional
        A penalty on their size, added to the loss; see `bn.regularizers`.
    """

    def __init__(
        self,
        max_wavelength: float = 10000.0,
        *,
        learned: bool = False,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.max_wavelength = number("max_wavelength", max_wavelength, 1)
        self.learned = boolean("learned", learned)
        self.embeddings_initializer = initializers.resolve(embeddings_initializer)
        self.embeddings_regularizer = regularizers.resolve("embeddings_regularizer", embeddings_regularizer)

    def call(self, x: Any) -> Value:
        """Compute the layer's value."""
        check_sequence(self.default_name, x.shape)
        length, features = x.shape[1:]
        if not self.learned:
            return x + self._waves(x, length, features)
        initializer, penalty = self.embeddings_initializer, self.embeddings_regularizer
        return x + self.parameter("embeddings", (length, features), initializer, "embedding", penalty)

    def _waves(self, x: Any, length: int, features: int) -> Value:
        """Compute sin(a + b) = sin a · cos b + cos a · sin b, a for each 32nd place: exact, and little to keep."""
        column = np.arange(features)
        rate = self.max_wavelength ** -(2 * (column // 2) / features)
        coarse = np.arange(0, length, 32)[:, None, None] * rate + np.where(column % 2, np.pi / 2, 0.0)
        fine = np.arange(32)[:, None] * rate
        products = [
            x.emit("multiply", [function(coarse), other(fine)], {})
            for function, other in ((np.sin, np.cos), (np.cos, np.sin))
        ]
        return ops.reshape(products[0] + products[1], (coarse.size // features * 32, features))[:length]
