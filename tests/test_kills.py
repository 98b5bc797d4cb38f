"""A run that is killed or interrupted loses no checkpoint, and ends with the bits of one that was not."""

import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from killing import Raise, X, Y, child, digest, forks, killed, names, network, train

import burnish as bn
from burnish import _snapshot
from burnish._resume import find
from burnish.callbacks import Callback, Checkpoint
from burnish.model import core_of

KILLS = os.environ.get("BURNISH_KILLS") == "full"

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from killing import digest, train
folder = Path(sys.argv[2])
print("training", flush=True)
print(digest(train(folder), folder), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_killed_and_resumed_in_a_new_process(whole, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "training\n"
        while process.poll() is None and not list(tmp_path.glob("run/epoch*")):
            pass
        process.kill()
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout.split() == ["training", whole]


@forks
@pytest.mark.timeout(1200)
def test_kills_at_random_moments_end_in_the_same_bits(whole, tmp_path):
    kills, run, draw = 0, 0, random.Random(1)
    while kills < (100 if KILLS else 5):
        folder = tmp_path / str(run)
        folder.mkdir()

        def work(folder=folder):
            (folder / "digest").write_text(digest(train(folder, every=2), folder))

        lives = 0
        while not killed(work, draw.uniform(0.01, 0.1) * (1 + lives / 10)):  # longer lives where the machine is slow
            kills, lives = kills + 1, lives + 1
            assert lives < 200
        assert (folder / "digest").read_text() == whole
        run += 1
    print(f"{kills} kills in {run} runs")  # shown by pytest -s


def is_whole(path):
    try:
        return bool(_snapshot.read(path))
    except ValueError:
        return False


@forks
@pytest.mark.timeout(1200)
def test_kills_while_saving_lose_no_checkpoint(tmp_path):
    model = bn.Sequential([bn.layers.Dense(300)])
    model.compile("mse", "adam")
    folders, taken = [_snapshot.Folder(str(tmp_path), 2)], []

    class Take(Callback):
        def on_epoch_end(self, epoch, logs=None):
            taken.append(folders[0].capture(core_of(self.model).run))

    model.fit(X, np.zeros((len(X), 300), np.float32), callbacks=Take(), verbose=0)
    draw, count, halves, before = random.Random(2), 0, 0, 0
    rounds, longest = 1000 if KILLS else 20, 0.02
    while rounds > 0 or count < 2:
        rounds -= 1
        read, write = os.pipe()

        def work(first=count, write=write):
            for number in range(first, 10**9):
                folders[0].write(taken[0]._replace(name=f"epoch-000000-step-{number:010d}.safetensors"))
                os.write(write, number.to_bytes(8, "little"))

        assert not killed(work, draw.uniform(0.0, longest))
        os.close(write)
        told = b"".join(iter(lambda read=read: os.read(read, 1 << 16), b""))
        os.close(read)
        present = _snapshot.checkpoints_in(tmp_path)
        halves += any(not is_whole(path) for path in tmp_path.glob(".burnish-*"))
        if told:
            last = int.from_bytes(told[-8:], "little")
            assert f"step-{last:010d}" in " ".join(path.name for path in present)
            count = last + 1
        elif count == 0:
            longest *= 1.2  # a busy machine has not written one yet
        # A process killed between the new file and the removal of the old ones leaves one more.
        assert len(present) <= max(before, 2) + 1
        before = len(present)
        for path in present:
            assert _snapshot.read(path).run["now"]["step"] == -(-len(X) // 32)
    print(f"{halves} kills in the middle of a write, {count} checkpoints")
    folders[0].write(taken[0]._replace(name=f"epoch-000000-step-{count:010d}.safetensors"))
    folders.clear()  # and the file that the folder keeps for its next
    left = [path.name for path in _snapshot.checkpoints_in(tmp_path)]
    assert len(left) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
def test_control_c_leaves_a_last_checkpoint(tmp_path):
    x = np.random.default_rng(0).normal(size=(4096, 256)).astype(np.float32)

    def fit(*extra):
        model = bn.Sequential([bn.layers.Dense(256, "relu"), bn.layers.Dropout(0.5), bn.layers.Dense(256)])
        model.compile("mse", accumulate_gradients=7)
        several = [*extra, Checkpoint.every(10**6, tmp_path / "run")]
        model.fit(x, x, epochs=30, batch_size=50, callbacks=several, resume_from=tmp_path / "run", verbose=0)
        return model

    class Interrupts(Callback):
        def on_progress(self, done, logs, samples):
            if timer.ident is None:
                timer.start()

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # A signal in the moments between two pieces of the engine's work is not followed by a checkpoint.
        while not (tmp_path / "run").is_dir() or not names(tmp_path):
            timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                fit(Interrupts())
    finally:
        signal.signal(signal.SIGINT, handler)
    (path,) = _snapshot.checkpoints_in(tmp_path / "run")
    stored = _snapshot.read(path)
    assert 0 < stored.run["now"]["step"] == len(stored.run["now"]["steps"]["rows"]) < 30 * 82
    resumed = digest(fit())
    path.rename(tmp_path / "away")
    for one in (tmp_path / "run").iterdir():
        one.unlink()
    assert digest(fit()) == resumed


def test_an_interrupt_in_a_hook_is_resumed_where_it_was(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [Raise(15, KeyboardInterrupt)], every=1000)
    assert names(tmp_path) == ["epoch-000001-step-0000000015.safetensors"]
    assert digest(train(tmp_path, every=1000), tmp_path) == whole


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_test_begin"])
def test_an_interrupt_between_batches_and_epoch_keeps_the_last_due_one(whole, tmp_path, hook):
    def interrupt(*arguments):
        if core_of(model).run.epoch == 2:
            raise KeyboardInterrupt

    model = network()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [bn.callbacks.LambdaCallback(**{hook: interrupt})], model=model, every=4)
    assert digest(train(tmp_path), tmp_path) == whole


@forks
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, whole):
    with pytest.raises(RuntimeError):
        train(tmp_path, [Raise(20)], every=16)
    (before,) = names(tmp_path)

    def work():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(OSError, match=r"(?i)too large") as told:
            train(tmp_path)
        (tmp_path / "told").write_text(str(told.value))

    assert killed(work, 300)  # in time even on a busy machine
    assert names(tmp_path) == [before]
    assert digest(train(tmp_path), tmp_path) == whole


@forks
def test_an_exit_waits_for_the_write_and_a_fork_does_not_lose_it(tmp_path):
    script = (
        "import sys, time, numpy as np, burnish as bn\n"
        "from burnish import _snapshot\n"
        "write = _snapshot.Folder.write\n"
        "_snapshot.Folder.write = lambda self, *how: (time.sleep(0.3), write(self, *how))\n"
        "class Leaves(bn.callbacks.Callback):\n"
        "    def on_epoch_end(self, epoch, logs=None): sys.exit(3) if epoch else None\n"
        "model = bn.Sequential([bn.layers.Dense(1)])\n"
        "model.compile('mse')\n"
        "x = np.ones((8, 2))\n"
        "model.fit(x, x[:, :1], epochs=5, verbose=0, callbacks=[bn.callbacks.Checkpoint(sys.argv[1]), Leaves()])\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60).returncode == 3
    assert [path.name[:12] for path in tmp_path.iterdir()] == ["epoch-000001"]

    class Forks(Callback):
        def on_train_batch_end(self, batch, logs=None):
            with child(lambda: None) as number:
                assert os.waitpid(number, 0)[1] == 0

    folder = tmp_path / "forks"
    network().fit(X, Y, callbacks=[Forks(), Checkpoint.every(1, folder, keep=None)], verbose=0)
    assert "epoch-000001-step-0000000007.safetensors" in [path.name for path in folder.iterdir()]
    assert not list(folder.glob(".burnish*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find(folder) is not None
