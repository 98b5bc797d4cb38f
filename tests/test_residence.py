"""Fits on devices that work by themselves: steps run ahead of them, arrays live there."""

import numpy as np
import pytest

import burnish as bn
from burnish._fit import Run


def trained(x, y, device, epochs=3, callbacks=(), model=None, **options):
    if model is None:
        model = bn.Sequential([bn.layers.Dense(8, activation="relu"), bn.layers.Dense(3)])
        model.compile(loss="cross_entropy", optimizer="adam", device=device, clip_norm=0.5, seed=4)
    model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks, **options)
    return model


def weights(model):
    return {path: array.tobytes() for path, array in model.parameters().items()}


class Watch(bn.callbacks.Callback):
    """Notes after each epoch whether the engine holds the arrays, and may then change one."""

    def __init__(self, x=None):
        super().__init__()
        self.x, self.held, self.runs = x, [], []

    def on_epoch_end(self, epoch, logs=None):
        run = self.model._core.run
        self.runs.append(run)
        self.held.append(run._holder is not None)
        if self.x is not None:
            self.x += 1.0


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.uint8])
def test_a_fit_on_arrays_that_the_device_holds_leaves_the_same_bits(digits, kind, device, monkeypatch):
    x, y = digits
    x = np.asfortranarray((x * 10).astype(kind))[:, ::-1]
    watch = Watch()
    held = weights(trained(x, y, device, callbacks=[watch], validation_split=0.25))
    assert watch.held == [device != "cpu"] * 3
    assert watch.runs[-1]._holder is None
    monkeypatch.setattr(Run, "_hold", lambda *_: None)
    assert weights(trained(x, y, device, validation_split=0.25)) == held


@pytest.mark.filterwarnings("ignore:.*not finite:RuntimeWarning")
@pytest.mark.parametrize("flaw", [None, 40])
def test_steps_read_one_by_one_leave_the_bits_of_steps_read_together(digits, flaw, device):
    x, y = digits[0].copy(), digits[1]
    if flaw is not None:
        x[flaw] = np.nan
    single = bn.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    one, other = (
        trained(x, y, device, check_data=False, callbacks=callbacks, epochs=6) for callbacks in ([], [single])
    )
    assert weights(one) == weights(other)
    for name, column in one.history.steps.items():
        np.testing.assert_array_equal(column, other.history.steps[name], err_msg=name)
    assert np.count_nonzero(~one.history.steps["finite"]) == (0 if flaw is None else 6)


def test_arrays_are_those_of_the_beginning_of_the_fit_and_anew_in_the_next(digits):
    x, y = digits
    changed = x.copy()
    model = trained(changed, y, "ndarray", callbacks=[Watch(changed)])
    other = trained(x, y, "ndarray")
    assert weights(model) == weights(other)
    assert weights(trained(changed, y, "ndarray", model=model)) == weights(
        trained(changed.copy(), y, "ndarray", model=other)
    )


def test_what_is_held_goes_when_a_fit_fails(digits):
    class Failing(Watch):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 1:
                raise OSError("no")

    failing = Failing()
    with pytest.raises(OSError, match="no"):
        trained(*digits, "ndarray", callbacks=[failing])
    assert failing.held == [True, True]
    assert failing.runs[-1]._holder is None


def test_a_device_that_cannot_hold_them_after_all_trains(digits, monkeypatch):
    class Broken:
        device = "ndarray"

        def hold(self, inputs):
            raise RuntimeError("out of memory")

        def release(self):
            pass

    before = weights(trained(*digits, "ndarray"))
    hold = Run._hold

    def failing(self, piece):
        if self._session is not None:
            self._session = Broken()
        hold(self, piece)

    monkeypatch.setattr(Run, "_hold", failing)
    assert weights(trained(*digits, "ndarray")) == before


def test_a_device_that_fails_at_the_end_of_a_fit_leaves_a_model_that_trains(digits, monkeypatch):
    model = trained(*digits, "ndarray")
    release = Run._release

    def failing(self):
        release(self)
        if self.epoch:
            raise RuntimeError("the device is gone")

    monkeypatch.setattr(Run, "_release", failing)
    with pytest.raises(RuntimeError, match="gone"):
        model.fit(*digits, verbose=0)
    assert model._core.run is None
    monkeypatch.undo()
    model.fit(*digits, verbose=0)
