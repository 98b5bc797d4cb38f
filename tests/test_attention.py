"""Attention and transformer layers against NumPy and against what PyTorch gives (tests/golden/transformer.py)."""

from pathlib import Path

import numpy as np
import pytest

import burnish as bn
from burnish import layers

GOLDEN = np.load(Path(__file__).parent / "golden" / "transformer.npz")


def built(inputs, outputs, **options):
    model = bn.Model(inputs, outputs)
    model.compile("mse", precision="float64", **options)
    return model.build({name: (None, *node.shape[1:]) for name, node in inputs.items()})


def attention(p, query, value, key, heads, allowed):
    """softmax(q kᵀ / sqrt(width)) v head by head, -inf where it is not allowed."""
    q, k, v = (
        x @ p[f"{name}_kernel"] + p[f"{name}_bias"] for x, name in ((query, "query"), (key, "key"), (value, "value"))
    )
    weights, joined = [], []
    for q_head, k_head, v_head in zip(*(np.split(x, heads, -1) for x in (q, k, v)), strict=True):
        scores = np.einsum("btd,bsd->bts", q_head, k_head) / np.sqrt(q_head.shape[-1])
        scores = np.where(allowed, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        weights.append(shares / shares.sum(-1, keepdims=True))
        joined.append(weights[-1] @ v_head)
    return np.concatenate(joined, -1) @ p["output_kernel"] + p["output_bias"], np.stack(weights, 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention(rng, causal, masked):
    data = {
        "query": rng.normal(size=(4, 5, 6)),
        "value": rng.normal(size=(4, 7, 3)),
        "key": rng.normal(size=(4, 7, 2)),
        "there": (np.arange(7) < np.array([7, 3, 5, 1])[:, None]).astype(float),
        "look": (rng.random((4, 5, 7)) < 0.7).astype(float),
    }
    data["look"][..., 0] = 1  # so that every query may look somewhere
    nodes = {name: bn.Input(array.shape[1:]) for name, array in data.items()}
    options = {"key_mask": nodes["there"], "attention_mask": nodes["look"]} if masked else {}
    layer = layers.MultiHeadAttention(2, 4, 3, output_shape=8, bias_initializer="normal", name="attention")
    inputs = (nodes["query"], nodes["value"], nodes["key"])
    alone = layer(*inputs, use_causal_mask=causal, **options)
    found = layer(*inputs, use_causal_mask=causal, return_attention_scores=True, **options)
    model = bn.Model(nodes, (alone, *found))
    model.compile("mse", precision="float64")
    fused, y, weights = model.predict(data)
    p = {path.partition(".")[2]: array for path, array in model.parameters().items()}
    assert p["query_kernel"].shape == (6, 8)
    assert p["output_kernel"].shape == (6, 8)
    allowed = np.ones((4, 5, 7), dtype=bool)
    if causal:
        allowed &= np.arange(7) <= np.arange(5)[:, None]
    if masked:
        allowed &= (data["there"][:, None] > 0) & (data["look"] > 0)
    expected, shares = attention(p, data["query"], data["value"], data["key"], 2, allowed)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fused, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weights, shares, rtol=1e-9, atol=1e-12)


def test_self_attention_with_default_widths_and_a_mask_of_tokens(rng):
    tokens = np.array([[3, 1, 2, 0], [4, 0, 0, 0], [1, 1, 4, 2]])
    node = bn.Input((4,))
    embedded = layers.Embedding(5, 6)(node)
    outputs = layers.MultiHeadAttention(3, name="attention")(embedded, key_mask=node != 0)
    model = bn.Model(node, outputs)
    model.compile("mse", precision="float64")
    y = model.predict(tokens)
    p = model.parameters()
    x = p["embedding.embeddings"][tokens]
    inner = {path.partition(".")[2]: array for path, array in p.items()}
    expected, _ = attention(inner, x, x, x, 3, (tokens != 0)[:, None])
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)


def test_what_may_look_nowhere_gets_the_mean_of_the_values():
    node, mask = bn.Input((3, 2)), bn.Input((3,))
    model = bn.Model({"x": node, "mask": mask}, layers.MultiHeadAttention(1, name="attention")(node, key_mask=mask))
    model.compile("mse", precision="float64")
    x = np.arange(6.0).reshape(1, 3, 2)
    y = model.predict({"x": x, "mask": np.zeros((1, 3))})
    p = model.parameters()
    mean = (x @ p["attention.value_kernel"]).mean(1, keepdims=True) @ p["attention.output_kernel"]
    np.testing.assert_allclose(y, np.repeat(mean, 3, 1), rtol=1e-9)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_masked_attention(rng, dropout):
    nodes = {"x": bn.Input((5, 6)), "there": bn.Input((5,)), "look": bn.Input((2, 5, 5))}
    masks = {"key_mask": nodes["there"], "attention_mask": nodes["look"], "use_causal_mask": True}
    y = layers.MultiHeadAttention(2, dropout=dropout)(layers.Dense(6, "tanh")(nodes["x"]), **masks)
    model = bn.Model(nodes, y)
    model.compile("mse")
    there = np.arange(5) < np.array([5, 3, 0, 1])[:, None]
    data = {"x": rng.normal(size=(4, 5, 6)), "there": 1.0 * there, "look": 1.0 * (rng.random((4, 2, 5, 5)) < 0.5)}
    report = bn.check_gradients(model, data, rng.normal(size=(4, 5, 6)))
    assert report.passed, report


def test_dropped_weights_are_scaled_in_training_only(rng):
    x = rng.normal(size=(8, 6, 4))
    layer = layers.MultiHeadAttention(2, dropout=0.5, name="attention")
    model = bn.Sequential([layer])
    model.compile("mse", "sgd", 0.0)
    model.build((None, 6, 4))
    target = model.predict(x)
    np.testing.assert_array_equal(target, model.predict(x))
    assert model.train_on_batch(x, target)["loss"] > 1e-4 > model.evaluate(x, target)["loss"]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_transformer_layers_are_pytorchs(kind, first):
    key = f"{kind}.{'first' if first else 'last'}"
    data = {name: GOLDEN[name].astype(float) for name in ("x", "mask", "memory", "memory_mask")}
    nodes = {name: bn.Input(array.shape[1:]) for name, array in data.items()}
    options = {"activation": "gelu" if first else "relu", "normalize_first": first, "name": "layer"}
    if kind == "encoder":
        data, nodes = ({name: group[name] for name in ("x", "mask")} for group in (data, nodes))
        layer = layers.TransformerEncoderLayer(9, 2, **options)
        y = layer(nodes["x"], padding_mask=nodes["mask"], use_causal_mask=True)
    else:
        layer = layers.TransformerDecoderLayer(9, 2, **options)
        masks = {"decoder_padding_mask": nodes["mask"], "encoder_padding_mask": nodes["memory_mask"]}
        y = layer(nodes["x"], nodes["memory"], **masks)
    model = built(nodes, y)
    paths = [name.removeprefix(f"{key}.") for name in GOLDEN.files if name.startswith(key) and not name.endswith(".y")]
    assert {f"layer.{path}" for path in paths} == set(model.parameters())
    model.set_parameters({f"layer.{path}": GOLDEN[f"{key}.{path}"] for path in paths})
    np.testing.assert_allclose(model.predict(data), GOLDEN[f"{key}.y"], rtol=1e-9, atol=1e-10)


def test_decoder_without_an_encoder_has_no_attention_to_it(rng):
    x = rng.normal(size=(2, 5, 4))
    alone = bn.Sequential([layers.TransformerDecoderLayer(7, 2, name="layer")])
    encoder = bn.Sequential([layers.TransformerEncoderLayer(7, 2, use_causal_mask=True, name="layer")])
    for model in (alone, encoder):
        model.compile("mse", precision="float64")
        model.build((None, 5, 4))
    assert set(alone.parameters()) == set(encoder.parameters())
    encoder.set_parameters(alone.parameters())
    np.testing.assert_array_equal(alone.predict(x), encoder.predict(x))
    changed = x.copy()
    changed[:, 3:] += 1.0
    np.testing.assert_allclose(alone.predict(changed)[:, :3], alone.predict(x)[:, :3], rtol=1e-12)


@pytest.mark.parametrize(("length", "features"), [(3, 4), (32, 6), (100, 5)])
def test_sinusoidal_positions(length, features):
    x = np.zeros((1, length, features))
    model = bn.Sequential([layers.PositionalEncoding(1000.0)])
    model.compile("mse", precision="float64")
    expected = np.empty((length, features))
    for place, column in np.ndindex(length, features):
        angle = place / 1000.0 ** (2 * (column // 2) / features)
        expected[place, column] = np.cos(angle) if column % 2 else np.sin(angle)
    np.testing.assert_allclose(model.predict(x)[0], expected, atol=1e-13)
    assert not model.parameters()


def test_learned_positions_are_added(rng):
    x = rng.normal(size=(3, 5, 4))
    model = bn.Sequential([layers.PositionalEncoding(learned=True)])
    model.compile("mse", precision="float64")
    y = model.predict(x)
    np.testing.assert_allclose(y, x + model.parameters()["positional_encoding.embeddings"])


def test_masks_and_widths_are_checked():
    x, mask = bn.Input((5, 6)), bn.Input((4,))
    with pytest.raises(ValueError, match=r"`key_mask` must have shape \(batch, 5\), got \(batch, 4\)"):
        layers.MultiHeadAttention(2)(x, key_mask=mask)
    with pytest.raises(ValueError, match=r"`attention_mask` must have shape \(5, 5\) or"):
        layers.MultiHeadAttention(2)(x, attention_mask=np.ones((5, 4)))
    with pytest.raises(ValueError, match="divisible by num_heads=4"):
        layers.MultiHeadAttention(4)(x)
    with pytest.raises(ValueError, match="expected sequences"):
        layers.MultiHeadAttention(2)(mask)
    with pytest.raises(TypeError, match="`use_causal_mask`"):
        layers.MultiHeadAttention(2, use_causal_mask=1)
    with pytest.raises(ValueError, match="`dropout`"):
        layers.TransformerEncoderLayer(8, 2, 1.0)


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("scale", [1.0, 400.0, 1e5])
def test_masked_places_have_no_weight_however_low_the_others_score(scores, scale, device):
    q, v, mask = bn.Input((1, 2)), bn.Input((2, 2)), bn.Input((2,))
    layer = layers.MultiHeadAttention(1, 2, use_bias=False, kernel_initializer=lambda shape, rng: np.eye(2))
    y = layer(q, v, key_mask=mask, return_attention_scores=scores)
    model = bn.Model((q, v, mask), y[0] if scores else y)
    model.compile("mse", device=device)
    places = np.array([[[-scale, -scale], [1.0, 1.0]]], np.float32)
    for there, expected in (([1.0, 0.0], -scale), ([0.0, 1.0], 1.0), ([0.0, 0.0], (1 - scale) / 2)):
        found = model.predict((np.full((1, 1, 2), scale, np.float32), places, np.array([there])))
        np.testing.assert_allclose(found, np.full((1, 1, 2), expected), rtol=1e-6)


def test_a_fixed_attention_mask_is_an_array(rng):
    x = rng.normal(size=(2, 4, 6))
    node = bn.Input((4, 6))
    lower = np.tril(np.ones((4, 4), dtype=bool))
    fixed = bn.Model(node, layers.MultiHeadAttention(2, name="attention")(node, attention_mask=lower))
    causal = bn.Model(node, layers.MultiHeadAttention(2, name="attention", use_causal_mask=True)(node))
    for model in (fixed, causal):
        model.compile("mse", precision="float64")
    causal.set_parameters(fixed.parameters())
    np.testing.assert_array_equal(fixed.predict(x), causal.predict(x))
