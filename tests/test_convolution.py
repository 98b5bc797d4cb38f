"""Convolutions, pooling of sequences, resizing and the newer normalisations against loops and sums in NumPy."""

import numpy as np
import pytest

import burnish as bn
from burnish import layers


def built(layer, x):
    model = bn.Sequential([layer])
    model.compile("mse", precision="float64")
    model.build((None, *x.shape[1:]))
    return model


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
@pytest.mark.parametrize(("strides", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 3, 1), (3, 2, 1)])
def test_conv1d(rng, padding, strides, dilation, groups):
    x = rng.normal(size=(2, 11, 4))
    model = built(layers.Conv1D(6, 3, strides, padding, dilation_rate=dilation, groups=groups), x)
    kernel = model.parameters()["conv1d.kernel"]
    assert kernel.shape == (3, 4 // groups, 6)
    span = 2 * dilation + 1
    steps = -(-11 // strides)
    total = {"valid": 0, "same": max((steps - 1) * strides + span - 11, 0), "causal": span - 1}[padding]
    before = total // 2 if padding == "same" else total
    padded = np.pad(x, ((0, 0), (before, total - before), (0, 0)))
    expected = []
    for start in range(0, padded.shape[1] - span + 1, strides):
        taps = padded[:, start : start + span : dilation]
        parts = zip(np.split(taps, groups, -1), np.split(kernel, groups, -1), strict=True)
        expected.append(np.concatenate([np.einsum("bki,kif->bf", t, k) for t, k in parts], -1))
    np.testing.assert_allclose(model.predict(x), np.stack(expected, 1), rtol=1e-10, atol=1e-12)


def test_causal_convolution_does_not_look_ahead(rng):
    x = rng.normal(size=(1, 9, 2))
    model = built(layers.Conv1D(3, 3, padding="causal", dilation_rate=2), x)
    changed = x.copy()
    changed[:, 5:] += 1.0
    before, after = model.predict(x), model.predict(changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).all()


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("strides", "dilation", "multiplier"), [(1, 1, 1), (2, 1, 3), (1, 2, 2)])
def test_depthwise_conv2d_is_a_convolution_of_each_channel(rng, padding, strides, dilation, multiplier):
    x = rng.normal(size=(2, 8, 7, 3))
    options = {"dilation_rate": dilation, "bias_initializer": "normal"}
    model = built(layers.DepthwiseConv2D((3, 2), strides, padding, multiplier, **options), x)
    p = {path.rpartition(".")[2]: array for path, array in model.parameters().items()}
    assert p["kernel"].shape == (3, 2, 3, multiplier)
    parts = []
    for channel in range(3):
        one = built(layers.Conv2D(multiplier, (3, 2), strides, padding, dilation_rate=dilation), x[..., :1])
        bias = p["bias"][channel * multiplier : (channel + 1) * multiplier]
        one.set_parameters({"conv2d.kernel": p["kernel"][:, :, channel : channel + 1], "conv2d.bias": bias})
        parts.append(one.predict(x[..., channel : channel + 1]))
    np.testing.assert_allclose(model.predict(x), np.concatenate(parts, -1), rtol=1e-10, atol=1e-12)


def test_separable_conv2d_is_depthwise_then_pointwise(rng):
    x = rng.normal(size=(2, 6, 6, 3))
    model = built(layers.SeparableConv2D(5, 3, 2, "same", depth_multiplier=2, activation="relu"), x)
    p = model.parameters()
    depthwise = built(layers.DepthwiseConv2D(3, 2, "same", 2, use_bias=False), x)
    depthwise.set_parameters({"depthwise_conv2d.kernel": p["separable_conv2d.depthwise.kernel"]})
    expected = depthwise.predict(x) @ p["separable_conv2d.pointwise.kernel"][0, 0]
    np.testing.assert_allclose(model.predict(x), np.maximum(expected, 0), rtol=1e-10, atol=1e-12)


def transposed(x, kernel, strides, dilation):
    """Every pixel adds its kernel to the output: the whole result, without cropping."""
    (height, width), (kh, kw) = x.shape[1:3], kernel.shape[:2]
    spans = [(k - 1) * d + 1 for k, d in zip((kh, kw), dilation, strict=True)]
    shape = [(n - 1) * s + k for n, s, k in zip((height, width), strides, spans, strict=True)]
    whole = np.zeros((len(x), *shape, kernel.shape[2]))
    for i, j, a, b in np.ndindex(height, width, kh, kw):
        row, column = i * strides[0] + a * dilation[0], j * strides[1] + b * dilation[1]
        whole[:, row, column] += x[:, i, j] @ kernel[a, b].T
    return whole


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("size", "strides", "dilation"),
    [
        ((3, 3), (2, 2), (1, 1)),
        ((4, 2), (2, 1), (1, 1)),
        ((2, 5), (3, 2), (1, 1)),
        ((1, 2), (2, 3), (1, 1)),
        ((3, 2), (1, 2), (2, 3)),
    ],
)
def test_conv_transpose_2d(rng, padding, size, strides, dilation):
    x = rng.normal(size=(2, 4, 3, 5))
    model = built(layers.ConvTranspose2D(2, size, strides, padding, dilation_rate=dilation), x)
    kernel = model.parameters()["conv_transpose2d.kernel"]
    assert kernel.shape == (*size, 2, 5)
    whole = transposed(x, kernel, strides, dilation)
    for axis, (n, s, k, d) in enumerate(zip(x.shape[1:3], strides, size, dilation, strict=True), 1):
        span = (k - 1) * d + 1
        wanted = n * s if padding == "same" else (n - 1) * s + max(span, s)
        start = max(span - s, 0) // 2 if padding == "same" else 0
        whole = np.concatenate([whole, np.zeros_like(whole)], axis).take(range(start, start + wanted), axis)
    np.testing.assert_allclose(model.predict(x), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("padding", "output_padding", "length"), [("valid", 0, 9), ("valid", 1, 10), ("same", 1, 8)])
def test_conv_transpose_2d_output_padding(rng, padding, output_padding, length):
    x = rng.normal(size=(1, 4, 4, 1))
    model = built(layers.ConvTranspose2D(1, 3, 2, padding, output_padding), x)
    whole = transposed(x, model.parameters()["conv_transpose2d.kernel"], (2, 2), (1, 1))
    whole = np.pad(whole, ((0, 0), (0, 2), (0, 2), (0, 0)))
    start = 0 if padding == "valid" else (9 - length) // 2
    stop = start + length
    np.testing.assert_allclose(model.predict(x), whole[:, start:stop, start:stop], rtol=1e-10, atol=1e-12)


def test_conv_transpose_2d_is_the_transpose_of_conv2d(rng):
    """<conv(x), y> = <x, transpose(y)> for the same kernel."""
    x, y = rng.normal(size=(1, 8, 6, 3)), rng.normal(size=(1, 4, 3, 5))
    forward = built(layers.Conv2D(5, 3, 2, "same"), x)
    back = built(layers.ConvTranspose2D(3, 3, 2, "same"), y)
    back.set_parameters(
        {"conv_transpose2d.kernel": forward.parameters()["conv2d.kernel"], "conv_transpose2d.bias": np.zeros(3)}
    )
    np.testing.assert_allclose((forward.predict(x) * y).sum(), (x * back.predict(y)).sum(), rtol=1e-10)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 1), (2, 3)])
def test_pooling_of_sequences(rng, padding, size, strides):
    x = rng.normal(size=(2, 7, 3))
    step = strides or size
    total = max((-(-7 // step) - 1) * step + size - 7, 0) if padding == "same" else 0
    padded = np.pad(x, ((0, 0), (total // 2, total - total // 2), (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::step]
    for make, reduce in ((layers.MaxPool1D, np.nanmax), (layers.AvgPool1D, np.nanmean)):
        model = built(make(size, strides, padding), x)
        np.testing.assert_allclose(model.predict(x), reduce(windows, -1), rtol=1e-12)


def test_resizing(rng):
    x, images = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 4, 3, 2))
    np.testing.assert_array_equal(built(layers.UpSampling1D(3), x).predict(x), x.repeat(3, 1))
    larger = images.repeat(2, 1).repeat(3, 2)
    np.testing.assert_array_equal(built(layers.UpSampling2D((2, 3)), images).predict(images), larger)
    np.testing.assert_array_equal(
        built(layers.ZeroPadding1D((1, 2)), x).predict(x), np.pad(x, ((0, 0), (1, 2), (0, 0)))
    )
    for padding, widths in ((2, ((2, 2), (2, 2))), ((1, 2), ((1, 1), (2, 2))), (((1, 0), (0, 3)), ((1, 0), (0, 3)))):
        padded = built(layers.ZeroPadding2D(padding), images).predict(images)
        np.testing.assert_array_equal(padded, np.pad(images, ((0, 0), *widths, (0, 0))))
    np.testing.assert_array_equal(built(layers.Cropping1D((2, 1)), x).predict(x), x[:, 2:-1])
    np.testing.assert_array_equal(
        built(layers.Cropping2D(((1, 0), (1, 1))), images).predict(images), images[:, 1:, 1:-1]
    )


def test_bilinear_up_sampling_interpolates_between_centres(rng):
    images = rng.normal(size=(1, 4, 3, 2))
    found = built(layers.UpSampling2D((3, 2), "bilinear"), images).predict(images)
    rows, columns = (np.arange(12) + 0.5) / 3 - 0.5, (np.arange(6) + 0.5) / 2 - 0.5
    tall = np.stack([[np.interp(rows, range(4), images[0, :, j, c]) for c in range(2)] for j in range(3)])
    wide = np.stack([[np.interp(columns, range(3), tall[:, c, i]) for c in range(2)] for i in range(12)])
    np.testing.assert_allclose(found[0], wide.transpose(0, 2, 1), rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, -1])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 7, 6)])
def test_group_norm(rng, groups, shape):
    x = 3 + 2 * rng.normal(size=shape)
    model = built(layers.GroupNorm(groups), x)
    model.set_parameters({"group_norm.scale": rng.normal(size=6), "group_norm.offset": rng.normal(size=6)})
    p = model.parameters()
    expected = np.empty_like(x)
    for part in np.split(np.arange(6), 6 if groups == -1 else groups):
        of_group = x[..., part].reshape(len(x), -1)
        wide = (len(x), *[1] * (x.ndim - 1))
        mean, variance = of_group.mean(1).reshape(wide), of_group.var(1).reshape(wide)
        expected[..., part] = (x[..., part] - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(model.predict(x), expected * p["group_norm.scale"] + p["group_norm.offset"], rtol=1e-9)
    assert not built(layers.GroupNorm(2, center=False, scale=False), x).parameters()


def test_rms_norm(rng):
    x = rng.normal(size=(4, 3, 7))
    model = built(layers.RMSNorm(), x)
    model.set_parameters({"rms_norm.scale": rng.normal(size=7)})
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * model.parameters()["rms_norm.scale"]
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12)


def test_spatial_dropout_drops_whole_channels():
    x = np.ones((50, 3, 2, 40))
    values = layers.SpatialDropout(0.25)(bn.Tensor(x), training=True).numpy()
    np.testing.assert_array_equal(values, np.broadcast_to(values[:, :1, :1], x.shape))
    np.testing.assert_allclose(np.unique(values), [0.0, 1 / 0.75])
    assert abs((values[:, 0, 0] == 0).mean() - 0.25) < 0.03
    np.testing.assert_array_equal(built(layers.SpatialDropout(0.25), x).predict(x), x)


def test_prelu_learns_a_slope_for_each_place_or_channel(rng):
    x = rng.normal(size=(5, 4, 3, 2))
    for axes, shape in ((None, (4, 3, 2)), ((1, 2), (1, 1, 2)), (3, (4, 3, 1))):
        model = built(layers.PReLU("normal", shared_axes=axes), x)
        alpha = model.parameters()["p_re_lu.alpha"]
        assert alpha.shape == shape
        np.testing.assert_allclose(model.predict(x), np.where(x > 0, x, alpha * x), rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.ReLU(max_value=1.0), lambda x: np.clip(x, 0, 1)),
        (layers.ReLU(negative_slope=0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
        (layers.ReLU(0.8, 0.2, 0.3), lambda x: np.where(x >= 0.8, 0.8, np.where(x >= 0.3, x, 0.2 * (x - 0.3)))),
        (layers.CELU(2.0), lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2))),
        (layers.Subtract(), None),
        (layers.Average(), None),
    ],
)
def test_activations_and_merges_with_arguments(rng, layer, expected):
    x = rng.normal(size=(6, 5))
    if expected is not None:
        np.testing.assert_allclose(built(layer, x).predict(x), expected(x), rtol=1e-12, atol=1e-15)
        return
    node = bn.Input((5,))
    model = bn.Model(node, layer(node, 3.0 * node))
    factor = -2.0 if isinstance(layer, layers.Subtract) else 2.0
    np.testing.assert_allclose(model.predict(x.astype(np.float32)), factor * x, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: layers.Conv1D(2, 3), (8, 8, 1), "conv1d: expected sequences"),
        (lambda: layers.Conv1D(2, 9), (8, 1), "conv1d"),
        (layers.MaxPool1D, (8,), "max_pool1d: expected sequences"),
        (lambda: layers.DepthwiseConv2D(3), (8, 1), r"depthwise_conv2d: expected images .* grey images a channel"),
        (lambda: layers.ConvTranspose2D(2, 3), (8,), "conv_transpose2d: expected images"),
        (lambda: layers.GroupNorm(3), (4, 4), "group_norm: expected channels divisible by groups=3, got 4"),
        (lambda: layers.GroupNorm(-1), (4,), "group_norm: a group"),
        (lambda: layers.Cropping1D(4), (8, 2), "cropping1d: nothing is left of a length of 8"),
        (lambda: layers.SpatialDropout(0.5), (8,), "spatial_dropout: expected shape"),
        (lambda: layers.PReLU(shared_axes=2), (8,), "p_re_lu: `shared_axes`"),
        (lambda: layers.RepeatVector(2), (8, 2), "repeat_vector: expected shape"),
        (layers.GLU, (3,), "even length"),
    ],
)
def test_errors_name_the_layer(make, shape, words):
    with pytest.raises(ValueError, match=words):
        bn.Sequential([make()]).build((None, *shape))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: layers.Conv1D(4, 3, padding="full"), ValueError, "`padding`: unknown name 'full'"),
        (lambda: layers.Conv1D(3, 3, groups=2), ValueError, "`filters`"),
        (lambda: layers.Conv1D(3, (3, 3)), TypeError, "`kernel_size`"),
        (lambda: layers.Conv2D(4, 3, padding="causal"), ValueError, "`padding`"),
        (lambda: layers.ConvTranspose2D(4, 3, 2, output_padding=2), ValueError, "`output_padding` must be less"),
        (lambda: layers.UpSampling2D(2, "cubic"), ValueError, "`interpolation`"),
        (lambda: layers.ZeroPadding2D((1, 2, 3)), ValueError, "`padding`"),
        (lambda: layers.Cropping1D(-1), ValueError, "`cropping`"),
        (lambda: layers.GroupNorm(0), ValueError, "`groups`"),
        (lambda: layers.SpatialDropout(1.0), ValueError, "`rate`"),
        (lambda: layers.ReLU(max_value=-1.0), ValueError, "`max_value`"),
        (lambda: layers.Subtract()(bn.Input((2,)), bn.Input((2,)), bn.Input((2,))), ValueError, "two values"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()
