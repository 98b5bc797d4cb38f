"""Layers of the transformer (Vaswani et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import activations, initializers, ops, regularizers
from .._errors import boolean, integer, number
from .attention import MultiHeadAttention
from .base import Layer, OneInput
from .normalization import LayerNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._value import Value

__all__ = ["TransformerDecoderLayer", "TransformerEncoderLayer"]


class _FeedForward(OneInput):
    """activation(x · hidden_kernel + hidden_bias) · output_kernel + output_bias, as wide as x again."""

    def __init__(self, units: int, dropout: float, activation: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self.units, self.dropout, self.activation, self.options = units, dropout, activation, options
        self._activate = activations.resolve(activation)

    def call(self, x: Any, *, training: bool = False) -> Value:
        """Compute the layer's value."""
        fused = activations.fused(self.activation)
        hidden = self._linear("hidden", x, self.units, fused or "none")
        hidden = hidden if fused else self._activate(hidden)
        hidden = ops.dropout(hidden, self.dropout) if training and self.dropout else hidden
        return self._linear("output", hidden, x.shape[-1])

    def _linear(self, which: str, x: Any, units: int, activation: str = "none") -> Value:
        kernel, bias = (
            (self.options[f"{name}_initializer"], self.options[f"{name}_regularizer"]) for name in ("kernel", "bias")
        )
        return ops.linear(
            x,
            self.parameter(f"{which}_kernel", (x.shape[-1], units), kernel[0], regularizer=kernel[1]),
            self.parameter(f"{which}_bias", (units,), bias[0], "bias", bias[1]),
            activation,
        )


class _TransformerLayer(Layer):
    """What encoder and decoder share: the sublayers, and how each is wrapped."""

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        intermediate_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        activation: activations.Activation = "relu",
        layer_norm_epsilon: float = 1e-5,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        normalize_first: bool = False,  # noqa: FBT001, FBT002
        *,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.dropout = number("dropout", dropout, 0, 1, below=True)
        self.normalize_first = boolean("normalize_first", normalize_first)
        self._num_heads = integer("num_heads", num_heads, 1)
        self._parameters: dict[str, Any] = {
            "kernel_initializer": initializers.resolve(kernel_initializer),
            "bias_initializer": initializers.resolve(bias_initializer),
            "kernel_regularizer": regularizers.resolve("kernel_regularizer", kernel_regularizer),
            "bias_regularizer": regularizers.resolve("bias_regularizer", bias_regularizer),
        }
        units = integer("intermediate_dim", intermediate_dim, 1)
        self.self_attention = self._attention()
        self.self_attention_norm = LayerNorm(epsilon=layer_norm_epsilon)
        self.feed_forward = _FeedForward(units, self.dropout, activation, self._parameters)
        self.feed_forward_norm = LayerNorm(epsilon=layer_norm_epsilon)

    def _attention(self) -> MultiHeadAttention:
        return MultiHeadAttention(self._num_heads, dropout=self.dropout, **self._parameters)

    def _residual(self, x: Any, norm: LayerNorm, sublayer: Callable[[Any], Any], *, training: bool) -> Value:
        """Return norm(x + sublayer(x)), or x + sublayer(norm(x)) where normalisation comes first."""
        y = sublayer(norm(x) if self.normalize_first else x)
        y = ops.dropout(y, self.dropout) if training and self.dropout else y
        return x + y if self.normalize_first else norm(x + y)


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention and a feed-forward network, each with a residual and a `LayerNorm`.

    `(batch, time, features) -> (batch, time, features)`.

    Parameters
    ----------
    intermediate_dim : int
        The width of the feed-forward network's hidden layer.
    num_heads : int
        The number of attention heads; the features are split among them.
    dropout : float in [0, 1), default 0
        In training, what part is set to 0 of the attention weights, of the hidden layer, and of what each sublayer
        gives (PyTorch's four places; its default is 0.1).
    activation : str or function, default "relu"
        Of the feed-forward network.
    layer_norm_epsilon : float, default 1e-5
        Of the normalisations.
    kernel_initializer, bias_initializer : str or Initializer
        How kernels and biases start.
    normalize_first : bool, default False
        Whether to normalise what goes into each sublayer (which trains without warmup: Xiong et al. 2020) instead of
        the sum. A stack of such layers wants a `LayerNorm` after the last.
    kernel_regularizer, bias_regularizer : str or function, optional
        Penalties on the size of kernels and biases, added to the loss; see `bn.regularizers`.
    use_causal_mask : bool, default False
        The default of the argument of the call, for use in a `Sequential`: true for a language model.
    """

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        intermediate_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        activation: activations.Activation = "relu",
        layer_norm_epsilon: float = 1e-5,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        normalize_first: bool = False,  # noqa: FBT001, FBT002
        *,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        use_causal_mask: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(
            intermediate_dim,
            num_heads,
            dropout,
            activation,
            layer_norm_epsilon,
            kernel_initializer,
            bias_initializer,
            normalize_first,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            name=name,
        )
        self.use_causal_mask = boolean("use_causal_mask", use_causal_mask)

    def call(
        self,
        x: Any,
        *,
        padding_mask: Any = None,
        attention_mask: Any = None,
        use_causal_mask: bool | None = None,
        training: bool = False,
    ) -> Value:
        """Compute the layer's value; `padding_mask (batch, time)` is true where there is something.

        `attention_mask` and `use_causal_mask` are those of `MultiHeadAttention`.
        """
        causal = self.use_causal_mask if use_causal_mask is None else use_causal_mask
        masks = {"key_mask": padding_mask, "attention_mask": attention_mask, "use_causal_mask": causal}
        x = self._residual(x, self.self_attention_norm, lambda x: self.self_attention(x, **masks), training=training)
        return self._residual(x, self.feed_forward_norm, self.feed_forward, training=training)


class TransformerDecoderLayer(_TransformerLayer):
    """Causal self-attention, attention to an encoder's sequence, and a feed-forward network.

    Each with a residual and a `LayerNorm`. Called with the decoder's sequence `(batch, time, features)` and that of the
    encoder `(batch, places, …)`; without one there is no attention to it.

    Parameters
    ----------
    intermediate_dim, num_heads, dropout, activation, layer_norm_epsilon
        As for `TransformerEncoderLayer`.
    kernel_initializer, bias_initializer, normalize_first, kernel_regularizer, bias_regularizer
        As for `TransformerEncoderLayer`.
    """

    def __init__(  # noqa: PLR0917  Keras's order
        self,
        intermediate_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        activation: activations.Activation = "relu",
        layer_norm_epsilon: float = 1e-5,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        normalize_first: bool = False,  # noqa: FBT001, FBT002
        *,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            intermediate_dim,
            num_heads,
            dropout,
            activation,
            layer_norm_epsilon,
            kernel_initializer,
            bias_initializer,
            normalize_first,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            name=name,
        )
        self.cross_attention = self._attention()
        self.cross_attention_norm = LayerNorm(epsilon=layer_norm_epsilon)

    def call(
        self,
        decoder_sequence: Any,
        encoder_sequence: Any = None,
        *,
        decoder_padding_mask: Any = None,
        decoder_attention_mask: Any = None,
        encoder_padding_mask: Any = None,
        encoder_attention_mask: Any = None,
        use_causal_mask: bool = True,
        training: bool = False,
    ) -> Value:
        """Compute the layer's value; masks are true where there is something, and where the decoder may look."""
        own = {
            "key_mask": decoder_padding_mask,
            "attention_mask": decoder_attention_mask,
            "use_causal_mask": use_causal_mask,
        }
        other = {"key_mask": encoder_padding_mask, "attention_mask": encoder_attention_mask}
        x = self._residual(
            decoder_sequence, self.self_attention_norm, lambda x: self.self_attention(x, **own), training=training
        )
        if encoder_sequence is not None:
            x = self._residual(
                x,
                self.cross_attention_norm,
                lambda x: self.cross_attention(x, encoder_sequence, **other),
                training=training,
            )
        return self._residual(x, self.feed_forward_norm, self.feed_forward, training=training)
