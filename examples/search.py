"""Search for hyperparameters with Optuna on real handwriting, then cross-validate and join the best.

Needs `pip install "burnish[optuna]" scikit-learn`. Bad trials are ended early by Optuna's pruner, which hears of every
epoch from `bn.callbacks.OptunaPruning`.
"""

import argparse

import numpy as np
import optuna
from sklearn.datasets import load_digits

import burnish as bn


def build(width, dropout, learning_rate, seed):
    """Return a new model for the digits."""
    model = bn.Sequential(
        [
            bn.layers.Dense(width, activation="relu"),
            bn.layers.Dropout(dropout),
            bn.layers.Dense(10),
        ]
    )
    model.compile(loss="cross_entropy", optimizer="adamw", learning_rate=learning_rate, metrics=["accuracy"], seed=seed)
    return model


def main():
    """Run some trials, and print what the best setting does over five folds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()

    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    test = np.arange(len(x)) % 5 == 0
    x_train, y_train = x[~test], y[~test]

    def objective(trial):
        model = build(
            trial.suggest_int("width", 16, 256, log=True),
            trial.suggest_float("dropout", 0.0, 0.5),
            trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
            seed=0,
        )
        history = model.fit(
            x_train,
            y_train,
            epochs=options.epochs,
            validation_split=0.2,
            verbose=0,
            callbacks=[bn.callbacks.OptunaPruning(trial, "val_accuracy")],
        )
        return history.history["val_accuracy"][-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=options.trials)
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    print(f"best of {options.trials} trials ({pruned} pruned): {study.best_value:.4f} with {study.best_params}")

    scores = bn.tuning.cross_validate(
        lambda seed: build(**study.best_params, seed=seed), x_train, y_train, folds=5, epochs=options.epochs
    )
    print(f"five folds: {scores}")
    together = scores.ensemble("softmax").evaluate(x[test], y[test])
    print(f"the five as one, on the test set: {together}")


if __name__ == "__main__":
    main()
