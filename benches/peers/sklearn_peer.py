"""scikit-learn's MLPClassifier; `partial_fit` is one shuffled epoch."""

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

import workloads as w
from peer import Peer, Run, clocked


class SklearnPeer(Peer):
    """Threads are set by the BLAS variables, which the worker's environment holds."""

    version = sklearn.__version__

    def training(self, workload: w.Training) -> Run:
        widths = [layer.units for layer in workload.layers if isinstance(layer, w.Dense)]
        if len(widths) < len(workload.layers):
            self.lacks(f"the layers of {workload.name}")
        (x, y), classes = workload.arrays(), np.arange(workload.classes)
        model = MLPClassifier(
            widths[:-1],
            alpha=0,
            batch_size=workload.batch_size,
            learning_rate_init=w.LEARNING_RATE,
            random_state=0,
        )

        def train(epochs: int) -> float:
            for _ in range(epochs):
                model.partial_fit(x, y, classes=classes)
            return float(model.loss_)

        return clocked(train)
