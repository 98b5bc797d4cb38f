"""The command line, in this process and as one of its own, on real tables."""

import csv
import gzip
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish as bn
from burnish.cli import main
from burnish.cli.columns import Columns, infer_task, split_rows
from burnish.cli.report import baseline, measure
from burnish.cli.run import Run
from burnish.cli.table import Table, read_table

datasets = pytest.importorskip("sklearn.datasets")


def write(path, names, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([names, *rows])
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(bn.__file__).parents[1]))  # of the processes, wherever they begin
    return tmp_path


@pytest.fixture
def iris(here):
    data = datasets.load_iris()
    rows = [[*row, data.target_names[label]] for row, label in zip(data.data.tolist(), data.target, strict=True)]
    return write(here / "iris.csv", [*data.feature_names, "species"], rows)


@pytest.fixture
def diabetes(here):
    data = datasets.load_diabetes(scaled=False)
    rows = [[*row, target] for row, target in zip(data.data.tolist(), data.target.tolist(), strict=True)]
    return write(here / "diabetes.csv", [*data.feature_names, "progression"], rows)


@pytest.fixture
def houses(here):
    """Numbers with gaps, dates, few and many categories, a name, a constant, and targets that are missing."""
    rng = np.random.default_rng(5)
    rows = []
    for index in range(400):
        size, town, kind = rng.uniform(30, 200), rng.integers(25), rng.choice(["flat", "house", ""])
        price = 1000 * size + 20_000 * town + 50_000 * (kind == "house")
        date = f"20{rng.integers(10, 25)}-0{rng.integers(1, 9)}-15"
        gap = "NA" if rng.random() < 0.1 else f"{size:.1f}"
        cell = "" if index % 50 == 0 else f"{price:.0f}"
        rows.append([gap, f"town {town}", kind, date, f"owner {index}", "EUR", cell])
    return write(here / "houses.csv", ["size", "town", "kind", "sold", "owner", "currency", "price"], rows)


def report(folder):
    return json.loads((Path(folder) / "report.json").read_text())


def process(*arguments, **options):
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "burnish", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_classes(iris, here, capsys):
    assert main(["train", iris, "--target", "species"]) == 0
    out = capsys.readouterr().out
    assert (
        "classification of 'species', 3 classes: setosa, versicolor, virginica (guessed; --task says otherwise)" in out
    )
    assert "rows: 105 train, 22 validation, 23 test; 4 columns -> 4 numbers" in out
    assert "The model is better than always answering the commonest class." in out
    figures = report("runs/iris")
    assert figures["test"]["accuracy"] > 0.85 > 0.4 > figures["baseline"]["accuracy"]
    names = {path.name for path in (here / "runs" / "iris").iterdir()}
    assert names >= {
        "checkpoints",
        "history.csv",
        "history.json",
        "model.burnish",
        "report.txt",
        "run.json",
        "train.py",
    }
    with (here / "runs" / "iris" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == figures["epochs"]
    assert float(rows[figures["best_epoch"]]["val_loss"]) == min(float(row["val_loss"]) for row in rows)


def test_the_picture(iris, here):
    pytest.importorskip("matplotlib")
    assert main(["train", iris, "--target", "species", "--epochs", "2", "--quiet"]) == 0
    assert (here / "runs" / "iris" / "history.png").read_bytes().startswith(b"\x89PNG")


def test_numbers(diabetes, capsys):
    assert main(["train", diabetes, "--target", "progression", "--run", "here"]) == 0
    assert "regression of 'progression' (guessed" in capsys.readouterr().out
    figures = report("here")
    assert figures["test"]["rmse"] < 0.85 * figures["baseline"]["rmse"]
    assert figures["test"]["r2"] > 0.3


def printed_by_the_script(folder):
    done = subprocess.run([sys.executable, f"{folder}/train.py"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1].removeprefix("test: ").replace("'", '"'))


@pytest.mark.parametrize("name", ["iris", "diabetes", "houses"])
def test_the_script_repeats_the_run(name, request, capsys):
    options = {
        "iris": ["--target", "species", "--seed", "3", "--hidden", "16", "--drop", "sepal width (cm)"],
        "diabetes": ["--target", "progression", "--categorical", "sex", "--dropout", "0.3", "--hidden"],
        "houses": ["--target", "price", "--batch-size", "50", "--learning-rate", "0.01"],
    }[name]
    assert main(["train", request.getfixturevalue(name), *options, "--epochs", "12", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    folder = f"runs/{name}"
    scores, repeated = report(folder)["test"], printed_by_the_script(folder)
    if name == "iris":
        assert repeated["accuracy"] == scores["accuracy"]
        assert repeated["loss"] == pytest.approx(scores["log_loss"], rel=1e-6)
    else:
        assert repeated["mae"] == pytest.approx(scores["mae"], rel=1e-6)
        assert 0 < repeated["loss"] < 2  # in units of the variance


def test_the_script_comes_to_the_same_bits(houses, here):
    assert main(["train", houses, "--target", "price", "--epochs", "5", "--quiet"]) == 0
    path = here / "runs" / "houses" / "train.py"
    names = {}
    exec(compile(path.read_text(), path, "exec"), names)
    trained = bn.load(here / "runs" / "houses" / "model.burnish").parameters(buffers=True)
    repeated = names["model"].parameters(buffers=True)
    assert set(trained) == set(repeated)
    assert all(np.array_equal(trained[one], repeated[one]) for one in trained)


def test_what_is_done_with_the_columns_is_said(houses, capsys):
    assert main(["train", houses, "--target", "price", "--epochs", "60"]) == 0
    out = capsys.readouterr().out
    assert "missing numbers become the median, marked by a column of their own: size" in out
    assert "embedded, for their many categories: town" in out
    assert re.search(r"left out: 'owner', its \d+ different texts look like names or free text", out)
    assert "left out: 'currency', it is always the same" in out
    assert "8 rows without a target are left out" in out
    assert report("runs/houses")["test"]["r2"] > 0.5


def test_predictions(iris, here, capsys):
    assert main(["train", iris, "--target", "species", "--quiet"]) == 0
    with (here / "iris.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = list(reversed(rows[0]))
    new = write(here / "new.csv", names, [[row[name] for name in names] for row in rows])
    assert main(["predict", "runs/iris", new, "--keep", "species"]) == 0
    out, told = capsys.readouterr()
    answers = list(csv.DictReader(out.splitlines()))
    assert list(answers[0]) == [
        "species", "prediction", "probability_setosa", "probability_versicolor", "probability_virginica"
    ]  # fmt: skip
    right = np.mean([row["species"] == row["prediction"] for row in answers])
    assert right > 0.9
    assert f"against 'species' in 150 rows: accuracy {right:.4g}," in told
    for row in answers:
        chances = [float(row[f"probability_{name}"]) for name in ("setosa", "versicolor", "virginica")]
        assert sum(chances) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == ("setosa", "versicolor", "virginica")[int(np.argmax(chances))]
    assert main(["predict", "runs/iris", new, "--output", "answers.csv"]) == 0
    assert len((here / "answers.csv").read_text().splitlines()) == 151


def test_predictions_are_the_models(diabetes, here, capsys):
    assert main(["train", diabetes, "--target", "progression", "--epochs", "3", "--quiet"]) == 0
    assert main(["predict", "runs/diabetes", diabetes]) == 0
    answers = [float(line) for line in capsys.readouterr().out.splitlines()[1:]]
    data = datasets.load_diabetes(scaled=False).data
    expected = bn.load(here / "runs" / "diabetes" / "model.burnish").predict({"features": data})[:, 0]
    np.testing.assert_allclose(answers, expected, rtol=1e-7)


def test_surprises_in_new_rows_are_said(houses, here, capsys):
    assert main(["train", houses, "--target", "price", "--epochs", "3", "--quiet"]) == 0
    rows = [["", "Atlantis", "castle", "2020-01-01"], ["80", "town 3", "flat", ""]]
    new = write(here / "new.csv", ["size", "town", "kind", "sold"], rows)
    assert main(["predict", "runs/houses", new]) == 0
    out, told = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert "note: 'town': 1 rows hold categories that were not in training: 'Atlantis'" in told
    assert "note: 'kind': 1 rows hold categories that were not in training: 'castle'" in told
    assert "note: 'sold': 1 missing numbers, none in training; the median stands in" in told
    assert "'size'" not in told  # gaps were there in training
    assert main(["predict", "runs/houses", write(here / "less.csv", ["size"], [[1]])]) == 1
    assert "'less.csv' lacks" in capsys.readouterr().err.replace(f"{here}/", "")
    bad = write(here / "bad.csv", ["size", "town", "kind", "sold"], [["big", "town 1", "flat", "2020-01-01"]])
    assert main(["predict", "runs/houses", bad]) == 1
    assert capsys.readouterr().err == "burnish: error: column 'size' must hold numbers as in training, got 'big'\n"


def test_interrupted_and_resumed_it_ends_the_same(diabetes, here):
    options = ["--target", "progression", "--epochs", "400", "--patience", "400", "--batch-size", "8"]
    whole = process("train", diabetes, *options, "--run", "whole", "--quiet")
    assert (whole.returncode, whole.stdout, whole.stderr) == (0, "", "")
    # A shell may have had this process ignore Ctrl-C, which its children inherit.
    listens = (
        "import signal, sys; from burnish.cli import main; signal.signal(signal.SIGINT, signal.default_int_handler)"
    )
    command = [
        sys.executable,
        "-c",
        f"{listens}; from burnish.cli import main; sys.exit(main())",
        "train",
        diabetes,
        *options,
    ]
    command += ["--run", "cut", "--checkpoint", "0.1"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list((here / "cut" / "checkpoints").glob("*")):
        assert time.monotonic() < end
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told.strip() == "burnish: interrupted; go on with: burnish resume cut"
    assert not (here / "cut" / "report.json").exists()
    assert 0 < len((here / "cut" / "history.csv").read_text().splitlines()) < 400
    resumed = process("resume", "cut", "--quiet")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    one, two = report("whole"), report("cut")
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert (here / "whole" / "history.csv").read_bytes() == (here / "cut" / "history.csv").read_bytes()


def test_the_doctor(diabetes, here, capsys):
    options = ["--target", "progression", "--quiet"]
    assert main(["train", diabetes, *options, "--learning-rate", "1e-9", "--epochs", "20"]) == 0
    assert main(["doctor", "runs/diabetes"]) == 0
    out, told = capsys.readouterr()
    assert "updates too small" in out
    assert "unscaled" not in out  # the model's first and last layer scale
    assert told == ""
    with Path(diabetes).open("a") as file:
        file.write(",".join(["1"] * 11) + "\n")
    assert main(["doctor", "runs/diabetes"]) == 0
    assert "is not what was trained on; it is not examined" in capsys.readouterr().err
    (here / "runs" / "diabetes" / "history.json").unlink()
    assert main(["doctor", "runs/diabetes"]) == 1
    assert "has no history yet" in capsys.readouterr().err


def test_resume_refuses(iris, here, capsys):
    def told(*arguments):
        assert main(list(arguments)) == 1
        return capsys.readouterr().err

    assert main(["train", iris, "--target", "species", "--epochs", "2", "--quiet"]) == 0
    assert "is finished; there is nothing to go on with" in told("resume", "runs/iris")
    (here / "runs" / "iris" / "report.json").unlink()
    with Path(iris).open("a") as file:
        file.write("1,2,3,4,setosa\n")
    assert "has changed since the run began" in told("resume", "runs/iris")
    assert "is no run of `burnish train`: it has no run.json" in told("resume", ".")
    (here / "runs" / "iris" / "run.json").write_text("{")
    assert re.search(r"run.json' is damaged: ", told("resume", "runs/iris"))


def test_a_folder_is_not_written_over(iris, here, capsys):
    for folder in ("iris", "iris-2"):
        assert main(["train", iris, "--target", "species", "--epochs", "1", "--quiet"]) == 0
        assert (here / "runs" / folder / "report.json").exists()
    assert main(["train", iris, "--target", "species", "--run", "runs/iris"]) == 1
    assert "'runs/iris' is not empty" in capsys.readouterr().err


def test_a_target_that_is_always_the_same(here, capsys):
    for name, target in (("a", ["x"] * 30), ("b", [1.5] * 30), ("c", [1.5, 2.5] * 2)):
        table = write(here / f"{name}.csv", ["n", "y"], [[index, value] for index, value in enumerate(target)])
        assert main(["train", table, "--target", "y", "--task", "regression" if name == "b" else "classification"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == told[1] == "burnish: error: the target 'y' is always the same in the rows to train on"
    assert told[2].startswith("burnish: error: 4 rows are too few to split: ")


def test_a_target_of_too_many_classes(here, capsys):
    table = write(here / "a.csv", ["n", "y"], [[index, f"c{index // 2}"] for index in range(100)])
    assert main(["train", table, "--target", "y"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("burnish: error: the target 'y' has too many classes to split, 50 in 100 rows")


def test_nothing_is_left_of_a_run_that_could_not_begin(iris, here, capsys):
    assert main(["train", iris, "--target", "species", "--device", "gpu"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "burnish: error: the following arguments are required: COMMAND (see burnish --help)"),
        (["trian"], 2, "invalid choice: 'trian'"),
        (["train", "iris.csv"], 2, "burnish train: error: the following arguments are required: --target"),
        (
            ["train", "iris.csv", "--target", "species", "--test", "0.9"],
            2,
            "--test: must be a number between 0 and 0.5",
        ),
        (["train", "iris.csv", "--target", "species", "--epochs", "0"], 2, "must be a whole number of at least 1"),
        (["train", "nothing.csv", "--target", "a"], 1, "burnish: error: nothing.csv: No such file or directory"),
        (["train", "iris.csv", "--target", "specie"], 1, "there is no column 'specie'; did you mean 'species'?"),
        (["train", "iris.csv", "--target", "species", "--drop", "x"], 1, "there is no column 'x'"),
        (
            ["train", "iris.csv", "--target", "species", "--task", "regression"],
            1,
            "'species' holds texts; a regression needs",
        ),
        (["train", "iris.xls", "--target", "a"], 1, "must be a .csv, .tsv, .txt, .npz or .parquet file"),
        (["predict", ".", "iris.csv"], 1, "is no run of `burnish train`"),
    ],
)
def test_errors_are_one_line(iris, capsys, arguments, code, words):
    if code == 2:
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    else:
        assert main(arguments) == code
    out, told = capsys.readouterr()
    assert words in told
    assert len(told.splitlines()) == 1
    assert out == ""


def test_the_exit_code_is_the_process_s(iris):
    for arguments, code in ((["train"], 2), (["train", "nothing.csv", "--target", "a"], 1)):
        done = process(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)


def test_help_and_devices(here):
    done = process("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("train", "resume", "doctor", "predict", "devices", "examples:"))
    assert "--target COLUMN" in process("train", "--help").stdout
    done = process("devices")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [device["name"] for device in bn.devices()]


def test_help_loads_no_engine(here):
    code = "import sys; from burnish.cli import _parser; _parser(); print('burnish.cli.commands' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_reader_that_goes_away_is_no_error(iris):
    assert main(["train", iris, "--target", "species", "--epochs", "1", "--quiet"]) == 0
    command = f"{sys.executable} -m burnish predict runs/iris {iris} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("prediction,")
    assert "Traceback" not in done.stderr


def test_a_history_comes_back_from_its_file(tmp_path, digits):
    model = bn.Sequential([bn.layers.Dense(8, "relu"), bn.layers.Dense(3)])
    model.compile("cross_entropy", "sgd", accumulate_gradients=2)
    history = model.fit(*digits, epochs=3, validation_split=0.25, verbose=0)
    run = Run(tmp_path)
    run.save_history(history)
    again = run.load_history()
    assert again.table() == history.table()
    assert (again.history, again.epoch) == (history.history, history.epoch)
    assert again.parameters == history.parameters
    assert again.activations == history.activations
    for name, column in history.steps.items():
        np.testing.assert_array_equal(again.steps[name], column)
        assert again.steps[name].dtype.kind == column.dtype.kind
    run.save_history(bn.History())
    assert repr(run.load_history()) == repr(bn.History())


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_text_tables(here, delimiter):
    rows = [["1", "a, b;c", "2024-01-01", "1e3", "0x1"], ["", "NA", "2024-01-02 12:00", "nan", "1"]]
    path = write(here / "t.csv", ["n", "s", "d", "e", "h"], rows, delimiter)
    table = read_table(path)
    assert table.rows == 2
    np.testing.assert_array_equal(table.columns["n"], [1, np.nan])
    assert table.columns["s"].tolist() == ["a, b;c", None]
    assert np.diff(table.columns["d"]).tolist() == [1.5]
    np.testing.assert_array_equal(table.columns["e"], [1000, np.nan])
    assert table.columns["h"].tolist() == ["0x1", "1"]


def test_text_tables_of_other_makes(here):
    (here / "bom.csv").write_bytes("\ufeffa,b\r\n1,ä\r\n\r\n2,ö\r\n".encode())
    table = read_table("bom.csv")
    assert list(table.columns) == ["a", "b"]
    assert table.columns["b"].tolist() == ["ä", "ö"]
    with gzip.open("t.csv.gz", "wt") as file:
        file.write("1,2\n3,4\n")
    table = read_table("t.csv.gz", header=False)
    assert {name: column.tolist() for name, column in table.columns.items()} == {"column_1": [1, 3], "column_2": [2, 4]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n", "line 3: 2 cells must be there, got 1"),
        ("1,2\n3,4\n", "line 1 must name the columns, got numbers"),
        ("a,a\n3,4\n", "line 1: the name 'a' stands twice"),
        ("a,b\n", "holds no rows"),
        ("", "holds no rows"),
        ('a,b\n"1,2\n3,4', "t.csv"),
    ],
)
def test_broken_text_tables(here, text, words):
    (here / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)):
        read_table("t.csv")


def test_text_that_is_no_unicode(here):
    (here / "t.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(ValueError, match=r"'t\.csv': .*utf-8"):
        read_table("t.csv")


@given(
    st.lists(
        st.lists(
            st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5)), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=50)
def test_numbers_are_read_to_the_last_bit(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("t") / "t.csv", "abc", [[repr(cell) for cell in row] for row in rows])
    columns = read_table(path).columns
    np.testing.assert_array_equal(np.stack(list(columns.values()), axis=1), np.array(rows, np.float64))


def test_arrays(here, rng):
    images = rng.normal(size=(90, 2, 2))
    np.savez("t.npz", images=images, y=np.arange(90) % 3, name=np.array(["a", "b", "c"] * 30))
    table = read_table("t.npz")
    assert list(table.columns) == ["images[0]", "images[1]", "images[2]", "images[3]", "y", "name"]
    np.testing.assert_array_equal(table.columns["images[2]"], images[:, 1, 0])
    assert main(["train", "t.npz", "--target", "y", "--epochs", "40", "--quiet"]) == 0
    assert report("runs/t")["test"]["accuracy"] == 1
    np.savez("bad.npz", x=np.zeros(3), y=np.zeros(4))
    with pytest.raises(ValueError, match=r"the same number of rows, got \[3, 4\]"):
        read_table("bad.npz")
    np.savez("pickle.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_table("pickle.npz")


@pytest.mark.parametrize("package", ["pyarrow", "polars"])
def test_parquet(here, package, monkeypatch):
    columns = {"n": [1, None, 3], "x": [0.5, 1.5, None], "s": ["a", None, "b"], "b": [True, False, None]}
    module = pytest.importorskip(package)
    if package == "pyarrow":
        module.parquet = pytest.importorskip("pyarrow.parquet")
        module.parquet.write_table(module.table(columns), "t.parquet")
    else:
        module.DataFrame(columns).write_parquet("t.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    table = read_table("t.parquet")
    np.testing.assert_array_equal(table.columns["n"], [1, np.nan, 3])
    np.testing.assert_array_equal(table.columns["x"], [0.5, 1.5, np.nan])
    assert table.columns["s"].tolist() == ["a", None, "b"]
    assert table.columns["b"].tolist() == ["True", "False", None]


def test_parquet_without_a_reader(here, monkeypatch):
    for module in ("pyarrow.parquet", "polars"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"reading 't\.parquet' needs pyarrow or polars: pip install pyarrow"):
        read_table("t.parquet")


# Splits and columns


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (["a", "b", "a"], "classification"),
        ([0.0, 1.0, 0.0, 1.0], "classification"),
        ([0.5, 1.0, 0.0, 1.0], "regression"),
        (list(range(100)), "regression"),
        ([float(n % 20) for n in range(100)], "classification"),
        ([float(n % 21) for n in range(100)], "regression"),
    ],
)
def test_the_task_is_guessed(target, task):
    column = np.array(target, object if isinstance(target[0], str) else float)
    assert infer_task(column) == task


@given(
    st.lists(st.integers(0, 4), min_size=10, max_size=300),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
    st.integers(0, 1000),
)
@settings(max_examples=100)
def test_splits_are_stratified(labels, test, validation, seed):
    target = np.array(labels, float)
    parts = split_rows(target, "classification", test=test, validation=validation, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    train = set(parts[0].tolist())
    for label in set(labels):
        rows = np.flatnonzero(target == label)
        if len(rows) < 3:
            assert set(rows.tolist()) <= train
            continue
        for part, share in zip(parts[1:], (validation, test), strict=True):
            assert abs(np.isin(part, rows).sum() - share * len(rows)) <= 2
    again = split_rows(target, "classification", test=test, validation=validation, seed=seed)
    assert all(np.array_equal(one, two) for one, two in zip(parts, again, strict=True))


def test_a_split_of_numbers_has_its_share_of_each_tenth(rng):
    target = rng.lognormal(sigma=2.0, size=1000)
    train, validation, test = split_rows(target, "regression", test=0.2, validation=0.1, seed=0)
    assert (len(train), len(validation), len(test)) == (700, 100, 200)
    for tenth in np.array_split(np.argsort(target), 10):
        assert abs(np.isin(test, tenth).sum() - 20) <= 1
        assert abs(np.isin(validation, tenth).sum() - 10) <= 1
    other = split_rows(target, "regression", test=0.2, validation=0.1, seed=1)
    assert not np.array_equal(test, other[2])


def test_why_a_column_is_left_out():
    columns = {
        "n": np.arange(4.0),
        "same": np.array([3.0, np.nan, 3.0, 3.0]),
        "infinite": np.array([np.inf, -np.inf, np.nan, np.inf]),
        "empty": np.full(4, np.nan),
        "no text": np.array([None] * 4, object),
        "y": np.array(["u", "v", "u", "v"], object),
    }
    reasons = Columns.learn(Table(columns, 4), "y", "classification").left_out
    assert reasons == {
        "same": "it is always the same",
        "infinite": "it holds no finite number",
        "empty": "it is empty",
        "no text": "it is empty",
    }


def test_columns_become_numbers():
    table = Table(
        {
            "n": np.array([1.0, np.nan, 5.0, 3.0]),
            "c": np.array(["a", "b", None, "a"], object),
            "k": np.array([7.0, 8.0, 7.0, np.nan]),
            "y": np.array(["u", "v", "u", "v"], object),
        },
        4,
    )
    columns = Columns.learn(table, "y", "classification", categorical=["k"])
    features = columns.inputs(table)["features"]
    expected = [
        [1, 0, 1, 0, 1, 0],
        [3, 1, 0, 1, 0, 1],
        [5, 0, 0, 0, 1, 0],
        [3, 0, 1, 0, 0, 0],
    ]  # n, whether n is missing, c = a, b, k = 7, 8
    assert features.tolist() == expected
    mean, variance = columns.statistics(features)
    assert mean.tolist() == [3, 0, 0, 0, 0, 0]
    assert variance.tolist() == [2, 1, 1, 1, 1, 1]
    assert columns.targets(table).tolist() == [0, 1, 0, 1]
    plain = json.loads(json.dumps(columns.to_plain()))
    assert Columns.from_plain(plain) == columns


def test_scores_are_those_of_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    chances = rng.dirichlet([1, 1, 1], 50)
    target = rng.integers(0, 3, 50)
    scores = measure("classification", target, chances)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(target, chances.argmax(1)))
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(target, chances.argmax(1)))
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(target, chances))
    y, z = rng.normal(size=(50, 1)), rng.normal(size=(50, 1))
    scores = measure("regression", y, z)
    assert scores["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, z))
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(y, z))
    assert scores["r2"] == pytest.approx(metrics.r2_score(y, z))
    trivial = baseline("classification", np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    assert trivial["accuracy"] == pytest.approx(1 / 3)
    assert trivial["log_loss"] == pytest.approx(-(np.log(2 / 3) + 2 * np.log(1 / 3)) / 3)
    assert baseline("regression", np.array([[1.0], [3.0]]), np.array([[2.0], [4.0]]), 0)["rmse"] == pytest.approx(
        2**0.5
    )
