"""Trackers of other projects: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import choice, integer
from .._optional import required
from .tracker import Tracker

if TYPE_CHECKING:
    from os import PathLike

    from .base import Logs

__all__ = ["MLflow", "TensorBoard", "WandB"]

_STEP_FIGURES = ("loss", "learning_rate", "gradient_norm", "update_ratio")


class TensorBoard(Tracker):
    """Write event files that TensorBoard reads, complete after every epoch; `tensorboard --logdir logs` shows them.

    As in Keras, `log_dir/train` and `log_dir/validation` hold "epoch_loss" and so on by epoch, so that both curves
    share an axis. Needs tensorboardX (`pip install 'burnish[tensorboard]'`), a small writer; TensorBoard itself may be
    elsewhere. See `Tracker` for what happens when it fails.

    Parameters
    ----------
    log_dir : path, default "logs"
        Where to; a folder a run inside one `logs` compares runs.
    histogram_freq : int, default 0
        Every how many epochs the parameters are kept as histograms; 0: never. Each costs a copy of the parameters.
    update_freq : {"epoch", "batch"} or int, default "epoch"
        Whether "batch_loss", "batch_learning_rate", "batch_gradient_norm" and "batch_update_ratio" are kept as well, by
        step of the fit: of every batch, or of every n-th. They are written at the epoch's end and slow no batch.
    timeout : float, default 5
        See `Tracker`.
    """

    def __init__(
        self,
        log_dir: str | PathLike[str] = "logs",
        histogram_freq: int = 0,
        update_freq: str | int = "epoch",
        *,
        timeout: float = 5.0,
    ) -> None:
        self.log_dir = os.fsdecode(log_dir)
        super().__init__(os.path.join(self.log_dir, "figures.jsonl"), timeout=timeout)  # noqa: PTH118
        self.histogram_freq = integer("histogram_freq", histogram_freq, 0)
        self.update_freq = _batches(update_freq)
        required("tensorboardX", "tensorboard")

    def start(self, parameters: dict[str, Any]) -> None:
        """Write down how the run trains."""
        self._files: dict[str, _EventFile] = {}
        rows = "\n".join(f"| {name} | {value} |" for name, value in parameters.items())
        self._file("train").add("text", "parameters", f"| name | value |\n|---|---|\n{rows}", step=0)

    def log(self, epoch: int, figures: Logs) -> None:
        """Write an epoch's figures."""
        for name, value in figures.items():
            where = "validation" if name.startswith("val_") else "train"
            self._file(where).add("scalar", f"epoch_{name.removeprefix('val_')}", value, step=epoch)
        for file in self._files.values():
            file.flush()

    def finish(self, status: str) -> None:  # noqa: ARG002
        """Close the files."""
        for file in self._files.values():
            file.close()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin anew."""
        super().on_train_begin(logs)
        self._steps = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Hand over steps and histograms first, so that the epoch's figures flush them."""
        if self.update_freq and self.model.history is not None:
            steps = self.model.history.steps_of(epoch)
            self.hand_over(self._log_steps, self._steps, steps)
            self._steps += len(steps.get("step", ()))
        if self.histogram_freq and (epoch + 1) % self.histogram_freq == 0:
            self.hand_over(self._log_histograms, epoch, self.model.parameters())
        super().on_epoch_end(epoch, logs)

    def state(self) -> dict[str, Any]:
        """Return how many steps were handed over."""
        return {**super().state(), "steps": self._steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Count the steps on."""
        super().load_state(state)
        self._steps = int(state["steps"])

    def _log_steps(self, before: int, steps: dict[str, Any]) -> None:
        for name in _STEP_FIGURES:
            values = steps.get(name, np.array([]))
            for index in range(-before % self.update_freq, len(values), self.update_freq):
                if np.isfinite(values[index]):  # NaN where an accumulation group stayed open
                    self._file("train").add("scalar", f"batch_{name}", values[index], step=before + index)

    def _log_histograms(self, epoch: int, parameters: dict[str, Any]) -> None:
        for path, array in parameters.items():
            self._file("train").add("histogram", path.replace(".", "/"), array, "auto", step=epoch)

    def _file(self, name: str) -> _EventFile:
        if name not in self._files:
            self._files[name] = _EventFile(os.path.join(self.log_dir, name))  # noqa: PTH118
        return self._files[name]


class _EventFile:
    """A file of events, by the part of tensorboardX that waits: its SummaryWriter's `flush` leaves a queue behind."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        self._summary = import_module("tensorboardX.summary")
        self._event = import_module("tensorboardX.proto.event_pb2").Event
        writer = import_module("tensorboardX.event_file_writer").EventsWriter
        # The name that it makes is the same for two files of one second.
        self._writer = writer(os.path.join(folder, "events"), f".{os.getpid()}.{time.time_ns()}")  # noqa: PTH118

    def add(self, kind: str, tag: str, *value: Any, step: int) -> None:
        """Write a summary: "scalar", "text" or "histogram"."""
        summary = getattr(self._summary, kind)(tag, *value)
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Bring everything to the disk and close."""
        self._writer.close()


class MLflow(Tracker):
    """Log parameters and figures to an MLflow run. Needs mlflow or mlflow-skinny (`pip install 'burnish[mlflow]'`).

    It touches no active run of the caller's: the run is one of its own, `run_id` once it has begun. A fit that is
    resumed from a checkpoint goes on in its run. See `Tracker` for what happens when it fails.

    Parameters
    ----------
    experiment : str, default "burnish"
        The experiment's name, made if there is none.
    run_name : str, optional
        The run's name.
    tracking_uri : str, optional
        Where to: a folder, a database or a server; by default as MLflow is set up.
    tags : dict of str to str, optional
        The run's tags.
    backup : path, default "mlflow.jsonl"
        See `Tracker`.
    timeout : float, default 5
        See `Tracker`.
    """

    def __init__(
        self,
        experiment: str = "burnish",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        *,
        tags: dict[str, str] | None = None,
        backup: str | PathLike[str] = "mlflow.jsonl",
        timeout: float = 5.0,
    ) -> None:
        super().__init__(backup, timeout=timeout)
        self.experiment = experiment
        self.run_name = run_name
        self.tracking_uri = tracking_uri
        self.tags = dict(tags or {})
        self.run_id: str | None = None
        self._module = required("mlflow", "mlflow")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin anew."""
        super().on_train_begin(logs)
        self.run_id = None

    def start(self, parameters: dict[str, Any]) -> None:
        """Begin the run, or go on with it."""
        self._client = client = self._module.MlflowClient(self.tracking_uri)
        self._entities = import_module("mlflow.entities")
        if self.run_id is not None:
            client.update_run(self.run_id, "RUNNING")
            return
        found = client.get_experiment_by_name(self.experiment)
        identity = client.create_experiment(self.experiment) if found is None else found.experiment_id
        self.run_id = client.create_run(identity, run_name=self.run_name, tags=self.tags).info.run_id
        pairs = [self._entities.Param(name, str(value)) for name, value in parameters.items()]
        client.log_batch(self.run_id, params=pairs)

    def log(self, epoch: int, figures: Logs) -> None:
        """Log an epoch's figures in one call."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, float(value), now, epoch) for name, value in figures.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def finish(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, {"interrupted": "KILLED"}.get(status, status.upper()))

    def state(self) -> dict[str, Any]:
        """Return which run it is."""
        return {**super().state(), "run_id": self.run_id}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the run."""
        super().load_state(state)
        self.run_id = state["run_id"]


class WandB(Tracker):
    """Log parameters and figures to Weights & Biases. Needs wandb (`pip install 'burnish[wandb]'`).

    By default nothing leaves the machine: `wandb sync` sends what lies under `directory`. See `Tracker` for what
    happens when it fails.

    Parameters
    ----------
    project : str, default "burnish"
        The project.
    name : str, optional
        The run's name.
    mode : {"offline", "online"}
        Whether to send figures at once.
    directory : path, default "."
        Where `wandb/` is made.
    config : dict, optional
        Is kept with the run beside how it trains.
    backup : path, default "wandb.jsonl"
        See `Tracker`.
    timeout : float, default 5
        See `Tracker`.
    **options
        More arguments of `wandb.init`.
    """

    def __init__(
        self,
        project: str = "burnish",
        name: str | None = None,
        mode: str = "offline",
        directory: str | PathLike[str] = ".",
        *,
        config: dict[str, Any] | None = None,
        backup: str | PathLike[str] = "wandb.jsonl",
        timeout: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(backup, timeout=timeout)
        self.config = dict(config or {})
        self.options: dict[str, Any] = {
            "project": project,
            "name": name,
            "mode": choice("mode", mode, ("offline", "online")),
            "dir": os.fsdecode(directory),
            **options,
        }
        self._module = required("wandb", "wandb")

    def start(self, parameters: dict[str, Any]) -> None:
        """Begin the run; the console stays the fit's."""
        settings = self._module.Settings(console="off", silent=True)
        options = {"settings": settings, **self.options}
        self._run = self._module.init(config={**parameters, **self.config}, **options)

    def log(self, epoch: int, figures: Logs) -> None:
        """Log an epoch's figures."""
        self._run.log({"epoch": epoch, **figures}, step=epoch)

    def finish(self, status: str) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if status == "finished" else 1)


def _batches(update_freq: str | int) -> int:
    """Return every how many batches figures are kept; 0: none."""
    if isinstance(update_freq, str):
        return 1 if choice("update_freq", update_freq, ("batch", "epoch")) == "batch" else 0
    return integer("update_freq", update_freq, 1)
