"""Training a table of which a batch picks few rows, against NumPy, which moves all of them."""

import numpy as np
import pytest

import burnish as bn

ROWS, WIDTH, TOKENS, BATCH = 60, 5, 4, 3
RATE = 0.05
DIRECTION = np.linspace(-1.0, 1.0, WIDTH)


class Picked(bn.layers.Layer):
    """The mean of the rows of some tokens, times a direction; or times every row, so that the table has two uses."""

    def __init__(self, *, tied=False):
        super().__init__()
        self.tied = tied

    def call(self, tokens):
        table = self.parameter("table", (ROWS, WIDTH), "normal", role="embedding")
        mean = bn.ops.mean(bn.ops.take(table, tokens), 1)
        if self.tied:
            return mean @ bn.ops.transpose(table)
        return bn.ops.sum(mean * DIRECTION, -1, keepdims=True)


class Reference:
    """The same by hand in 64 bits, with Adam over the whole table."""

    def __init__(self, table, *, tied, decay=0.0, clip_norm=np.inf, clip_value=np.inf):
        self.table, self.tied, self.decay = table.copy(), tied, decay
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.m, self.v, self.updates, self.norms = np.zeros_like(table), np.zeros_like(table), 0, []

    def gradient(self, tokens, y):
        mean = self.table[tokens].mean(1)
        outward = self.table if self.tied else DIRECTION[None]
        slope = 2 * (mean @ outward.T - y) / y.size
        gradient = slope.T @ mean if self.tied else np.zeros_like(self.table)
        np.add.at(gradient, tokens, np.repeat((slope @ outward / TOKENS)[:, None], TOKENS, axis=1))
        return gradient

    def update(self, gradient):
        self.updates += 1
        self.norms.append(np.linalg.norm(gradient))
        gradient = gradient.clip(-self.clip_value, self.clip_value)
        gradient *= min(1.0, self.clip_norm / np.linalg.norm(gradient))
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        self.table *= 1 - RATE * self.decay
        m, v = self.m / (1 - 0.9**self.updates), self.v / (1 - 0.999**self.updates)
        self.table -= RATE * m / (np.sqrt(v) + 1e-8)


CASES = {
    "plain": ({}, {}),
    "decay": ({"weight_decay": 0.1}, {"decay": 0.1}),
    "norm": ({"clip_norm": 0.1}, {"clip_norm": 0.1}),
    "value": ({"clip_value": 0.02}, {"clip_value": 0.02}),
    "accumulated": ({"accumulate_gradients": 2}, {}),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_step_is_that_of_the_whole_table(case, tied):
    given, by_hand = CASES[case]
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, ROWS, (8 * BATCH, TOKENS))
    tokens[:, 1] = tokens[:, 0]
    y = rng.standard_normal((8 * BATCH, ROWS if tied else 1))
    model = bn.Sequential([Picked(tied=tied)])
    model.compile("mse", "adamw", RATE, precision="float64", **{"weight_decay": 0.0} | given)
    model.predict(tokens[:1])
    reference = Reference(model.parameters()["picked.table"].astype(float), tied=tied, **by_hand)
    history = model.fit(tokens, y, batch_size=BATCH, shuffle=False, verbose=0)
    batches = BATCH * given.get("accumulate_gradients", 1)
    for start in range(0, len(y), batches):
        rows = slice(start, start + batches)
        reference.update(reference.gradient(tokens[rows], y[rows]))
    np.testing.assert_allclose(model.parameters()["picked.table"], reference.table, rtol=1e-9, atol=1e-9)
    norms = history.steps["gradient_norm"]
    np.testing.assert_allclose(norms[np.isfinite(norms)], reference.norms, rtol=1e-9)


def test_a_gradient_is_given_whole():
    tokens = np.array([[3, 3, 50, 7]])
    model = bn.Sequential([Picked()])
    model.compile("mse", "adam", RATE, precision="float64")
    y = np.ones((1, 1))
    found = bn.gradients(model, tokens, y)["picked.table"]
    reference = Reference(model.parameters()["picked.table"], tied=False)
    np.testing.assert_allclose(found, reference.gradient(tokens, y), rtol=1e-9, atol=1e-12)
