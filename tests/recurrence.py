"""Recurrent cells in NumPy, one step after the other: what the tests compare with."""

import numpy as np

FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "linear": lambda x: x,
}


def states(kind):
    return 2 if kind == "lstm" else 1


def step(kind, p, x, state, activation, gate):
    """One step of a batch from the definitions."""
    bias = p.get("bias", np.zeros((2, 1)))
    h = state[0]
    if kind == "gru":
        xz, xr, xn = np.split(x @ p["kernel"] + bias[0], 3, -1)
        hz, hr, hn = np.split(h @ p["recurrent_kernel"] + bias[1], 3, -1)
        z, r = gate(xz + hz), gate(xr + hr)
        return [z * h + (1 - z) * activation(xn + r * hn)]
    total = x @ p["kernel"] + h @ p["recurrent_kernel"] + (bias if "bias" in p else 0)
    if kind == "rnn":
        return [activation(total)]
    i, f, g, o = np.split(total, 4, -1)
    c = gate(f) * state[1] + gate(i) * activation(g)
    return [gate(o) * activation(c), c]


def oracle(kind, p, x, *, mask=None, initial=None, backwards=False, activation="tanh", gate="sigmoid"):
    """Return h and c after each step at the step's own place, and the last states."""
    units = p["recurrent_kernel"].shape[0]
    state = list(initial) if initial is not None else [np.zeros((len(x), units))] * states(kind)
    after = [np.zeros((*x.shape[:2], units)) for _ in state]
    for place in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
        new = step(kind, p, x[:, place], state, FUNCTIONS[activation], FUNCTIONS[gate])
        counts = np.ones((len(x), 1), bool) if mask is None else mask[:, place, None]
        state = [np.where(counts, n, old) for n, old in zip(new, state, strict=True)]
        for array, one in zip(after, state, strict=True):
            array[:, place] = one
    return after, state
