"""burnish, as a user calls it: `compile` and `fit`."""

import burnish as bn
from workloads import LEARNING_RATE, Workload


class BurnishPeer:
    """Threads are set by RAYON_NUM_THREADS, which the worker's environment holds."""

    version = bn.__version__

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def build(self, workload: Workload) -> bool:
        layers: list[bn.layers.Layer] = []
        for filters in workload.convolutions:
            layers += [bn.layers.Conv2D(filters, 3, padding="same", activation="relu"), bn.layers.MaxPool2D(2)]
        if workload.convolutions:
            layers.append(bn.layers.Flatten())
        if workload.units:
            layers.append(bn.layers.LSTM(workload.units))
        layers += [bn.layers.Dense(units, activation="relu") for units in workload.hidden]
        layers.append(bn.layers.Dense(workload.classes))
        self.model = bn.Sequential(layers)
        self.model.compile(loss="cross_entropy", optimizer="adam", learning_rate=LEARNING_RATE)
        self.x, self.y = workload.arrays()
        self.batch_size = workload.batch_size
        return True

    def train(self, epochs: int) -> float:
        history = self.model.fit(self.x, self.y, epochs=epochs, batch_size=self.batch_size, verbose=0)
        return float(history.history["loss"][-1])
