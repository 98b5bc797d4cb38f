"""How far the learning-rate finder's suggestion is from the best rate of a grid, over seeds and noise.

For each of some tasks and optimizers, for 0, 1, 5 and 10 % of noise (in the deviation of the targets, or in the part of
labels that are wrong) and for 20 seeds: the rate that `bn.tuning.find_learning_rate` suggests, over the rate (of four a
decade) whose training loss is lowest after five epochs. Prints the least, middle and greatest quotient; returns how
many are not within a factor of ten, or left a trace in the model.

Run with `python benches/learning_rate_finder.py [seeds]`.
"""

import sys
import warnings

import numpy as np

import burnish as bn

NOISE = (0.0, 0.01, 0.05, 0.1)
GRID = 10.0 ** np.arange(-5.0, 1.01, 0.25)
OPTIMIZERS = {
    "sgd": "sgd",
    "momentum": bn.optimizers.SGD(momentum=0.9),
    "adam": "adam",
}


def data(task, noise, seed):
    """Return a smooth function of eight columns, or its three ranges as classes."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(1000, 8))
    y = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * x[:, 3]
    y = (y - y.mean()) / y.std()
    if task == "regression":
        return x, (y + noise * generator.normal(size=1000))[:, None]
    labels = (y > 0).astype(int) + (y > 1)
    wrong = generator.random(1000) < noise
    return x, np.where(wrong, generator.integers(0, 3, 1000), labels)


def made(task, optimizer, seed, learning_rate=1e-3):
    """Return a new model."""
    hidden = [bn.layers.Dense(32, activation="relu") for _ in range(2)]
    model = bn.Sequential([*hidden, bn.layers.Dense(1 if task == "regression" else 3)])
    loss = "mse" if task == "regression" else "cross_entropy"
    model.compile(loss=loss, optimizer=OPTIMIZERS[optimizer], learning_rate=learning_rate, seed=seed)
    return model


def best_rate(task, optimizer, x, y, seed):
    """Return the rate of the grid with the lowest loss in the last of five epochs."""

    def outcome(rate):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            history = made(task, optimizer, seed, rate).fit(x, y, epochs=5, verbose=0)
        return history.history["loss"][-1] if history.steps["finite"].all() else np.inf

    return GRID[np.argmin([outcome(rate) for rate in GRID])]


def quotient(task, optimizer, noise, seed):
    """Return the suggestion over the best rate, and whether the model is as before."""
    x, y = data(task, noise, seed)
    model = made(task, optimizer, seed).build((None, 8))
    before = {path: array.tobytes() for path, array in model.parameters(buffers=True).items()}
    found = bn.tuning.find_learning_rate(model, x, y)
    same = before == {path: array.tobytes() for path, array in model.parameters(buffers=True).items()}
    rate = np.nan if found.learning_rate is None else found.learning_rate
    return rate / best_rate(task, optimizer, x, y, seed), same


def main(seeds):
    """Print the table; return how many are wrong."""
    wrong = 0
    print(
        f"{'task':16} {'optimizer':10} {'noise':>6} {'least':>7} {'middle':>7} {'greatest':>8} {'within 10':>10} same"
    )
    for task in ("regression", "classification"):
        for optimizer in OPTIMIZERS:
            for noise in NOISE:
                pairs = [quotient(task, optimizer, noise, seed) for seed in range(seeds)]
                quotients = np.array([each for each, _ in pairs])
                within = int(np.count_nonzero((quotients >= 0.1) & (quotients <= 10.0)))
                same = sum(unchanged for _, unchanged in pairs)
                wrong += 2 * seeds - within - same
                figures = f"{quotients.min():7.2f} {np.median(quotients):7.2f} {quotients.max():8.2f}"
                print(f"{task:16} {optimizer:10} {noise:6.0%} {figures} {within:>7}/{seeds} {same}/{seeds}", flush=True)
    print(f"{wrong} wrong")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
