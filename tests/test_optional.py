"""What needs a package that burnish can do without says which one, and how to get it."""

import sys

import pytest

import burnish as bn
from burnish._optional import required


def export():
    bn.Sequential([bn.Input((3,)), bn.layers.Dense(2)]).export("model.onnx")


NEEDED = {
    "ImageFolder": (lambda: bn.data.ImageFolder(".", (8, 8)), "PIL", "images"),
    "MLflow": (bn.callbacks.MLflow, "mlflow", "mlflow"),
    "Parquet": (lambda: bn.data.Parquet("rows.parquet"), "pyarrow", "arrow"),
    "TensorBoard": (bn.callbacks.TensorBoard, "tensorboardX", "tensorboard"),
    "WandB": (bn.callbacks.WandB, "wandb", "wandb"),
    "export": (export, "onnx", "onnx"),
    "history.plot": (lambda: bn.History().plot(), "matplotlib", "plot"),
    "history.to_pandas": (lambda: bn.History().to_pandas(), "pandas", "pandas"),
    "schedule.plot": (lambda: bn.schedules.Exponential(0.1, 0.9).plot(), "matplotlib", "plot"),
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_package_that_is_missing_is_told_at_once(name, tmp_path, monkeypatch):
    work, package, extra = NEEDED[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.parquet").touch()
    monkeypatch.setitem(sys.modules, package, None)
    for module in [each for each in sys.modules if each.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ModuleNotFoundError, match=rf"^{package} is not installed: pip install 'burnish\[{extra}\]'$"):
        work()
    assert not list(tmp_path.glob("*.onnx"))


def test_a_package_that_misses_another_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import what_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'what_it_needs'"):
        required("half_there", "plot")
