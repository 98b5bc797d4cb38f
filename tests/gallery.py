"""Trainings broken on purpose, one for each ailment, and healthy ones; `python tests/gallery.py` prints the findings.

Each is a function that trains for less than a second and returns the doctor's report.
"""

import contextlib
import time
import warnings
from typing import NamedTuple

import numpy as np

import burnish as bn

Dense, Sequential = bn.layers.Dense, bn.Sequential


class Case(NamedTuple):
    """A run, and the ailment that the doctor has to find in it; none in a healthy one."""

    name: str
    ailment: str | None
    run: object


CASES: list[Case] = []


def case(ailment=None):
    """Put a function in the gallery."""

    def add(function):
        CASES.append(Case(function.__name__, ailment, function))
        return function

    return add


def normal(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def regression(rows=512, seed=0, noise=0.05):
    """Eight columns, and a smooth function of four of them with deviation 1."""
    x = normal(rows, 8, seed)
    y = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * x[:, 3]
    y = (y - y.mean()) / y.std() + noise * np.random.default_rng(seed + 1).normal(size=rows)
    return x, y[:, None]


def classes(rows=600, seed=0, apart=3.0, count=3, columns=8):
    """Clouds around corners."""
    y = np.random.default_rng(seed + 1).integers(0, count, rows)
    return normal(rows, columns, seed) + apart * np.eye(count, columns)[y], y


def images(rows=256, seed=0):
    """Bars lying or standing."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, rows)
    x = 0.3 * generator.normal(size=(rows, 8, 8, 1))
    for image, label, place in zip(x, y, generator.integers(0, 8, rows), strict=True):
        (image if label else image.swapaxes(0, 1))[place] += 1.5
    return x, y


def mlp(outputs=1, activation="relu", width=32, depth=1, **options):
    return Sequential([*(Dense(width, activation=activation, **options) for _ in range(depth)), Dense(outputs)])


def normalised(outputs=1, momentum=0.9, width=64):
    def hidden():
        return Dense(width), bn.layers.BatchNorm(momentum=momentum), bn.layers.Activation("relu")

    return Sequential([*hidden(), *hidden(), Dense(outputs)])


def examined(model, x, y=None, **options):
    """Train with the doctor watching; return the report."""
    doctor = bn.Doctor(verbose=0)
    with warnings.catch_warnings(), contextlib.suppress(FloatingPointError):
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(x, y, callbacks=[doctor], verbose=0, **options)
    return doctor.report


# ---------------------------------------------------------------- broken on purpose


@case("updates_too_large")
def learning_rate_too_high():
    x, y = classes()
    model = mlp(3)
    model.compile(loss="cross_entropy", optimizer="adam", learning_rate=1.0)
    return examined(model, x, np.random.default_rng(0).permutation(y), epochs=5)


@case("updates_too_small")
def learning_rate_too_low():
    x, y = regression()
    model = mlp()
    model.compile(loss="mse", optimizer="sgd", learning_rate=1e-6)
    return examined(model, x, y, epochs=5)


@case("not_finite")
def divergence():
    x, y = regression()
    model = mlp(activation="linear")
    model.compile(loss="mse", optimizer="sgd", learning_rate=30.0)
    return examined(model, x, y, epochs=5)


@case("unscaled_data")
def inputs_not_normalised():
    x, y = regression()
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-3)
    return examined(model, 500.0 + 200.0 * x, y, epochs=5)


@case("unscaled_data")
def targets_not_normalised():
    x, y = regression()
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-3)
    return examined(model, x, 250_000.0 + 80_000.0 * y, epochs=5)


@case("bad_data")
def nan_in_the_data():
    x, y = regression()
    x[317, 2] = np.nan
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-3)
    return examined(model, x, y, epochs=3, check_data=False)


@case("bad_data")
def infinity_in_the_targets():
    x, y = regression()
    y[41] = np.inf
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-3)
    return examined(model, x, y, epochs=3, check_data=False)


@case("dead_units")
def dead_relus():
    x, y = regression()
    model = mlp(width=64, bias_initializer=bn.initializers.Constant(-8.0))
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-3)
    return examined(model, x, y, epochs=5)


@case("vanishing_gradients")
def deep_sigmoids():
    x, y = regression()
    model = mlp(activation="sigmoid", depth=12)
    model.compile(loss="mse", optimizer="sgd", learning_rate=0.05)
    return examined(model, x, y, epochs=5)


@case("exploding_gradients")
def deep_without_normalisation():
    x, y = regression()
    start = bn.initializers.Normal(stddev=0.4)
    model = mlp(activation="relu", depth=10, kernel_initializer=start)
    model.compile(loss="mse", optimizer="sgd", learning_rate=1e-9)
    return examined(model, x, y, epochs=5)


@case("overfitting")
def learnt_by_heart():
    x, y = classes(rows=120, apart=0.7)
    model = mlp(3, width=128)
    model.compile(loss="cross_entropy", optimizer="adam", learning_rate=1e-2, metrics=["accuracy"])
    return examined(model, x[:40], y[:40], epochs=40, validation_data=(x[40:], y[40:]))


@case("overfitting")
def learnt_by_heart_in_regression():
    x, y = regression(rows=240, noise=1.0)
    model = mlp(width=128)
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, x[:40], y[:40], epochs=60, validation_data=(x[40:], y[40:]))


@case("statistics_behind")
def statistics_that_remember_their_start(seed=0):
    x, y = regression(rows=800, seed=seed)
    model = normalised(momentum=0.99)
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, x, y, epochs=3, validation_split=0.5)


@case("one_class")
def constant_labels():
    x, y = classes()
    model = mlp(3)
    model.compile(loss="cross_entropy", optimizer="adam", learning_rate=1e-2)
    return examined(model, x, np.ones_like(y), epochs=3)


@case("imbalanced_classes")
def rare_class():
    x, y = classes(count=2)
    keep = (y == 0) | (np.random.default_rng(0).random(len(y)) < 0.04)
    model = mlp(2)
    model.compile(loss="cross_entropy", optimizer="adam", learning_rate=1e-2)
    return examined(model, x[keep], y[keep], epochs=5)


@case("oscillation")
def overshooting_momentum():
    x, y = regression()
    model = Sequential([Dense(1)])
    model.compile(loss="mse", optimizer=bn.optimizers.SGD(momentum=0.98), learning_rate=0.3)
    return examined(model, x, y, epochs=40, batch_size=512)


@case("oscillation")
def overshooting_steps():
    x, y = classes(apart=1.0)
    model = mlp(3, activation="tanh")
    model.compile(loss="cross_entropy", optimizer="sgd", learning_rate=8.0)
    return examined(model, x, y, epochs=40, batch_size=600)


@case("not_finite")
def logarithm_of_zero():
    x, y = classes()

    def cross_entropy_of_probabilities(target, prediction):
        return -bn.ops.sum(target * bn.ops.log(prediction), -1)

    model = Sequential([Dense(32, activation="relu"), Dense(3), bn.layers.Activation("softmax")])
    model.compile(loss=cross_entropy_of_probabilities, optimizer="adam", learning_rate=1e-2)
    return examined(model, 60.0 * x, np.eye(3)[y], epochs=3)


@case("not_finite")
def slope_of_a_root_at_zero():
    x, y = regression()

    def root_error(target, prediction):
        return bn.ops.sqrt(bn.ops.abs(prediction - target))

    x[::2], y[::2] = 0.0, 0.0
    model = mlp()
    model.compile(loss=root_error, optimizer="adam", learning_rate=1e-3)
    return examined(model, x, y, epochs=3)


@case("small_batch")
def one_row_a_batch():
    x, y = classes(rows=400)
    model = mlp(3, width=4)
    model.compile(loss="cross_entropy", optimizer="sgd", learning_rate=1e-2)
    return examined(model, x, y, epochs=2, batch_size=1)


@case("few_updates")
def everything_in_one_batch():
    x, y = regression(rows=1024)
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=3e-3)
    return examined(model, x, y, epochs=10, batch_size=1024)


@case("slow_input")
def slow_generator():
    x, y = regression(rows=640)

    class Batches:
        def __iter__(self):
            for start in range(0, len(x), 64):
                time.sleep(0.006)
                yield x[start : start + 64], y[start : start + 64]

    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, Batches(), epochs=6)


@case("nothing_trains")
def everything_frozen():
    x, y = regression()
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-3)
    model.build((None, 8)).freeze("*")
    return examined(model, x, y, epochs=3)


@case("no_gradient")
def weights_of_zero():
    x, y = regression()
    model = Sequential([Dense(32, activation="relu", kernel_initializer="zeros"), Dense(1, kernel_initializer="zeros")])
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-3)
    return examined(model, x, y, epochs=3)


@case("symmetric_units")
def weights_all_alike():
    x, y = regression()
    start = bn.initializers.Constant(0.1)
    model = Sequential([Dense(32, activation="tanh", kernel_initializer=start), Dense(1, kernel_initializer=start)])
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, x, y, epochs=5)


@case("loss_not_falling")
def shuffled_labels():
    x, y = classes(rows=2000)
    model = Sequential([Dense(3)])
    model.compile(loss="cross_entropy", optimizer="sgd", learning_rate=0.01)
    return examined(model, x / 10.0, np.random.default_rng(5).permutation(y), epochs=4)


@case("leak")
def validation_rows_among_training_rows():
    x, y = regression()
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, x, y, epochs=5, validation_data=(x[:128], y[:128]))


@case("leak")
def target_among_the_columns():
    x, y = regression()
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, np.hstack([x, 2.0 * y + 1.0]), y, epochs=5)


@case("constant_columns")
def columns_that_never_change():
    x, y = regression()
    x[:, 1:7] = 1.0
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, x, y, epochs=5)


# ---------------------------------------------------------------- healthy


@case()
def regression_by_adam():
    x, y = regression(rows=1200)
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, x[:800], y[:800], epochs=20, validation_data=(x[800:], y[800:]))


@case()
def regression_by_momentum():
    x, y = regression(rows=1200)
    model = mlp(activation="tanh")
    model.compile(loss="mse", optimizer=bn.optimizers.SGD(momentum=0.9), learning_rate=0.02)
    return examined(model, x[:800], y[:800], epochs=15, validation_data=(x[800:], y[800:]))


@case()
def classification_with_defaults():
    x, y = classes()
    model = mlp(3)
    model.compile(loss="cross_entropy", metrics=["accuracy"])
    return examined(model, x, y, epochs=20, validation_split=0.2)


@case()
def classification_with_dropout_and_decay():
    x, y = classes()
    model = Sequential([Dense(64, activation="relu"), bn.layers.Dropout(0.3), Dense(3)])
    model.compile(loss="cross_entropy", optimizer="adamw", learning_rate=3e-3, metrics=["accuracy"])
    return examined(model, x, y, epochs=20, validation_split=0.2)


@case()
def convolutions():
    x, y = images()
    model = Sequential(
        [
            bn.layers.Conv2D(8, 3, activation="relu"),
            bn.layers.MaxPool2D(2),
            bn.layers.Flatten(),
            Dense(16, activation="relu"),
            Dense(2),
        ]
    )
    model.compile(loss="cross_entropy", optimizer="adam", learning_rate=3e-3, metrics=["accuracy"])
    return examined(model, x, y, epochs=8)


@case()
def normalised_layers():
    x, y = classes(rows=800)
    model = Sequential([Dense(32), bn.layers.BatchNorm(), bn.layers.Activation("relu"), Dense(32), Dense(3)])
    model.compile(loss="cross_entropy", optimizer="sgd", learning_rate=0.1, metrics=["accuracy"])
    return examined(model, x, y, epochs=10, validation_split=0.2)


@case()
def statistics_of_a_long_memory():
    x, y = classes(rows=800)
    model = normalised(3, momentum=0.99, width=32)
    model.compile(loss="cross_entropy", optimizer="sgd", learning_rate=0.05, metrics=["accuracy"])
    return examined(model, x, y, epochs=20, validation_split=0.2)


@case()
def accumulated_and_clipped():
    x, y = regression(rows=800)
    model = mlp()
    model.compile(loss="mse", optimizer="rmsprop", learning_rate=3e-3, accumulate_gradients=4, clip_norm=1.0)
    return examined(model, x, y, epochs=15, batch_size=16)


@case()
def a_model_trained_on():
    x, y = classes()
    model = mlp(3)
    model.compile(loss="cross_entropy", optimizer="adam", learning_rate=1e-2, metrics=["accuracy"])
    model.fit(x, y, epochs=20, verbose=0)
    return examined(model, x, y, epochs=5)


@case()
def batches_from_a_list():
    x, y = regression(rows=640)
    model = mlp()
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, [(x[i : i + 32], y[i : i + 32]) for i in range(0, 640, 32)], epochs=12)


@case()
def a_whole_batch_for_long():
    x, y = regression()
    model = mlp(activation="tanh")
    model.compile(loss="mse", optimizer="adam", learning_rate=1e-2)
    return examined(model, x, y, epochs=300, batch_size=512)


@case()
def embeddings_of_tokens():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 20, size=(800, 6))
    y = (x < 10).sum(axis=1) > 3
    model = Sequential([bn.layers.Embedding(20, 8), bn.layers.Flatten(), Dense(32, activation="relu"), Dense(1)])
    model.compile(loss="binary_cross_entropy", optimizer="adam", learning_rate=1e-2)
    return examined(model, x, y[:, None].astype(float), epochs=12, validation_split=0.2)


@case()
def a_schedule_with_warmup():
    x, y = regression(rows=800)
    model = mlp(width=64, depth=2)
    model.compile(loss="mse", optimizer="adam", learning_rate=lambda step: 5e-3 * min(1.0, (step + 1) / 50))
    return examined(model, x, y, epochs=12)


BROKEN = [entry for entry in CASES if entry.ailment]
HEALTHY = [entry for entry in CASES if not entry.ailment]


def main():
    """Print the table; return how many of the lines are wrong."""
    wrong = 0
    print(f"{'run':40} {'ailment':22} {'detected':9} {'first seen':20} {'ms':>5}  everything found")
    for name, ailment, run in CASES:
        since = time.perf_counter()
        report = run()
        spent = 1e3 * (time.perf_counter() - since)
        right = ailment in report if ailment else report.healthy and not len(report)
        wrong += not right
        place = report[ailment].place if ailment and ailment in report else ""
        state = ("yes" if right else "NO") if ailment else ("silent" if right else "FALSE")
        print(f"{name:40} {ailment or 'healthy':22} {state:9} {place:20} {spent:5.0f}  {', '.join(report.ailments)}")
    print(f"{len(BROKEN)} broken, {len(HEALTHY)} healthy, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
