"""scikit-learn's MLPClassifier; `partial_fit` is one shuffled epoch."""

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from workloads import LEARNING_RATE, Workload


class SklearnPeer:
    """Threads are set by the BLAS variables, which the worker's environment holds."""

    version = sklearn.__version__

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def build(self, workload: Workload) -> bool:
        if workload.convolutions or workload.units:
            return False
        self.x, self.y = workload.arrays()
        self.classes = np.arange(workload.classes)
        self.model = MLPClassifier(
            workload.hidden, alpha=0, batch_size=workload.batch_size, learning_rate_init=LEARNING_RATE, random_state=0
        )
        return True

    def train(self, epochs: int) -> float:
        for _ in range(epochs):
            self.model.partial_fit(self.x, self.y, classes=self.classes)
        return float(self.model.loss_)
