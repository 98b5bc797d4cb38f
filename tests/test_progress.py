"""What a fit shows, on a terminal, in a notebook and in a log."""

import io
import itertools
import re
import sys
import types

import numpy as np
import pytest

import burnish as bn
from burnish.callbacks import Callback, ProgressBar
from burnish.callbacks import progress as module

BAR = "━" * 24


def network():
    model = bn.Sequential([bn.layers.Dense(8, "tanh"), bn.layers.Dense(3)])
    model.compile("cross_entropy", "adam", 0.01, ["accuracy"])
    return model


class Terminal(io.StringIO):
    """A terminal; `screen` is what stands on it."""

    encoding = "utf-8"

    def __enter__(self):
        self.outside, sys.stdout = sys.stdout, self
        return self

    def __exit__(self, *_):
        sys.stdout = self.outside

    def isatty(self):
        return True

    def fileno(self):
        raise io.UnsupportedOperation

    def screen(self):
        lines = [[]]
        place = 0
        for character in self.getvalue():
            if character == "\n":
                lines.append([])
                place = 0
            elif character == "\r":
                place = 0
            else:
                lines[-1][place : place + 1] = [character]
                place += 1
        return ["".join(line).rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "130")
    return Terminal()


@pytest.fixture(params=["tqdm", "plain"])
def bar(request, monkeypatch):
    """With tqdm and without."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    else:
        pytest.importorskip("tqdm")
    return request.param


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_a_line_an_epoch_without_a_terminal(digits, capsys, verbose):
    network().fit(*digits, epochs=2, validation_split=0.5, verbose=verbose)
    first, second = capsys.readouterr().out.splitlines()
    pattern = (
        r"epoch {}/2  loss \d\.\d{{4}}  accuracy [\d.e-]+  val_loss \d\.\d{{4}}  val_accuracy [\d.e-]+"
        r"  learning_rate 0\.01  \d+\.\d s  [\d,]+ samples/s(  \d+:\d\d left)?"
    )
    assert re.fullmatch(pattern.format(1), first)
    assert re.fullmatch(pattern.format(2), second)
    assert "left" not in second


def test_silence(digits, capsys):
    network().fit(*digits, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("verbose", [3, -1, "yes", None, 1.0])
def test_another_verbose_is_refused(digits, verbose):
    with pytest.raises(ValueError, match="`verbose` must be 0, 1, 2 or 'auto', got"):
        network().fit(*digits, verbose=verbose)


def test_arguments():
    with pytest.raises(ValueError, match="`style`: unknown name 'bars'; did you mean 'bar'"):
        ProgressBar("bars")
    with pytest.raises(ValueError, match="`period`"):
        ProgressBar(period=-1)


def test_a_bar_on_a_terminal(digits, terminal, bar):
    seen = []
    look = bn.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(terminal.screen()[-1]))
    with terminal:
        network().fit(*digits, batch_size=8, epochs=2, callbacks=[look, ProgressBar(period=0)])
    assert all(line.startswith(f"epoch {n}/2 {BAR} 12/12  loss ") for n, line in enumerate(seen, 1)), seen
    assert "learning_rate 0.01" in seen[0]
    assert "samples/s" in seen[0]
    assert terminal.getvalue().count("\r") > 2
    first, second, end = terminal.screen()
    assert first.startswith("epoch 1/2  loss ")
    assert second.startswith("epoch 2/2  loss ")
    assert end == ""


def test_a_bar_half_way_and_without_an_end(digits, terminal, bar):
    x, y = digits
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 96, 8)]
    seen = []

    class Look(Callback):
        def on_progress(self, done, logs, samples):
            seen.append((samples, terminal.screen()[-1]))

    with terminal:
        network().fit(batches, callbacks=[ProgressBar(period=0), Look()])
        network().fit((one for one in batches), callbacks=[ProgressBar(period=0), Look()])
    assert {samples for samples, _ in seen} == {8}
    assert seen[5][1].startswith(f"epoch 1/1 {'━' * 12}{'╌' * 12} 6/12  loss ")
    assert seen[17][1].startswith("epoch 1/1 6 batches  loss ")


def test_a_bar_is_cut_where_the_terminal_ends(digits, terminal, bar, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    lengths = []

    class Look(Callback):
        def on_progress(self, done, logs, samples):
            lengths.append(len(terminal.screen()[-1]))

    with terminal:
        network().fit(*digits, batch_size=8, callbacks=[ProgressBar("bar", period=0), Look()])
    assert 40 < max(lengths) <= 50


def test_a_bar_leaves_its_line_when_the_fit_fails(digits, terminal, bar):
    class Fails(Callback):
        def on_test_begin(self, logs=None):
            raise RuntimeError("no")

    with terminal, pytest.raises(RuntimeError, match="no"):
        network().fit(*digits, validation_split=0.5, callbacks=[ProgressBar(period=0), Fails()])
    assert terminal.screen()[-1] == ""


def test_one_bar_is_enough(digits, capsys):
    network().fit(*digits, epochs=2, callbacks=[ProgressBar("lines")])
    assert len(capsys.readouterr().out.splitlines()) == 2
    network().fit(*digits, epochs=2, callbacks=ProgressBar("lines"), verbose=0)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_bar_costs_few_drawings(digits, terminal, bar, monkeypatch):
    moments = itertools.count(step=0.001)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(moments))
    with terminal:
        network().fit(
            *digits, batch_size=1, epochs=3, callbacks=[bn.callbacks.LambdaCallback(on_batch_end=lambda *_: None)]
        )
    assert terminal.getvalue().count("\r") < 60


def test_a_terminal_without_the_bar_s_characters_gets_lines(digits, monkeypatch):
    class Narrow(io.TextIOWrapper):
        def isatty(self):
            return True

    terminal = Narrow(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    model = network()
    model.fit(*digits, verbose=1)
    model.summary()
    terminal.flush()
    assert terminal.buffer.getvalue().startswith(b"epoch 1/1  loss ")


def test_without_any_output(digits, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    network().fit(*digits, verbose=1)


class Handle:
    """What IPython's display gives: it keeps what is shown, as the notebook would draw it."""

    def __init__(self, shown):
        self.shown = shown

    def update(self, thing):
        self.shown.append((thing._repr_html_(), repr(thing)))


@pytest.fixture
def notebook(monkeypatch):
    """A Jupyter kernel, as far as it is looked for."""
    shown = []

    def display(thing, *, display_id):
        assert display_id is True
        assert not shown
        shown.append((thing._repr_html_(), repr(thing)))
        return Handle(shown)

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


def test_a_bar_in_a_notebook_changes_in_place(digits, notebook, capsys):
    network().fit(*digits, batch_size=8, epochs=15, callbacks=[ProgressBar(period=0)])
    html, text = notebook[-2]
    assert '<code>epoch 15/15</code> <progress max=1 value="1.0000"></progress> <code>12/12  loss ' in html
    assert text.splitlines()[-1].startswith("epoch 15/15  12/12  loss ")
    html, text = notebook[-1]
    assert "progress" not in html
    assert html.startswith("<pre>epoch  4/15  loss ")  # the last 12
    assert len(text.splitlines()) == 12
    assert capsys.readouterr().out == ""


def test_ipython_on_a_terminal_is_no_notebook(digits, notebook, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", types.SimpleNamespace)
    network().fit(*digits)
    assert not notebook
    assert capsys.readouterr().out.startswith("epoch 1/1  loss ")


def test_the_time_left(digits, monkeypatch, capsys, terminal, bar):
    """A clock that goes on by 2 s an epoch."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    class Slow(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            now[0] += 2.0

    network().fit(*digits, batch_size=96, epochs=100, initial_epoch=20, callbacks=[ProgressBar(), Slow()])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("  2.0 s  48 samples/s  2:38 left")
    assert lines[-2].endswith("  0:02 left")
    now[0] = 0.0
    with terminal:
        network().fit(*digits, batch_size=96, epochs=100, callbacks=[ProgressBar(), Slow()])
    assert f"epoch   2/100 {BAR} 1/1  3:16 left  loss " in terminal.getvalue()
    assert module._clock(3600 + 62) == "1:01:02"


def test_the_bar_changes_no_number(digits, terminal, bar):
    quiet, shown = network(), network()
    one = quiet.fit(*digits, epochs=2, verbose=0)
    with terminal:
        two = shown.fit(*digits, epochs=2, callbacks=[ProgressBar("bar", period=0)])
    assert one.history == two.history
    for path, array in quiet.parameters().items():
        np.testing.assert_array_equal(shown.parameters()[path], array)


def test_figures_of_single_parameters_are_not_shown(digits, capsys):
    history = network().fit(*digits, callbacks=bn.callbacks.Monitor(parameters=True))
    assert any("/" in name for name in history.history)
    out = capsys.readouterr().out
    assert "gradient_norm " in out
    assert "/dense" not in out


def test_words_in_the_logs_are_shown(digits, capsys):
    noted = bn.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: logs.update(phase="warming up", count=None))
    network().fit(*digits, verbose=2, callbacks=noted)
    assert "phase warming up  count None" in capsys.readouterr().out
