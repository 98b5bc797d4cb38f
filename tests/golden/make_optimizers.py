"""Write optimizers.json anew, where torch is: `python tests/golden/make_optimizers.py`.

Trajectories of PyTorch in float64. Settings that name another source (Optax: PyTorch has no Lion and no LAMB) were
handed down and are kept as they stand in the file.
"""

import json
from pathlib import Path

import torch

FILE = Path(__file__).with_name("optimizers.json")
LEARNING_RATE = 0.1
PARAMETER = [1.0, -2.0, 0.5, 0.0]
GRADIENTS = [[0.1, -0.2, 1e-8, 0.0], [0.3, 0.1, -2e-8, 0.0], [-0.05, 0.4, 1e-8, 1.0], [0.2, -0.1, 0.0, 0.5]]

# Name of the setting: class, arguments as burnish names them (and PyTorch, but for those in TORCH_NAMES).
VECTORS = {
    "sgd": ("SGD", {}),
    "sgd_mom": ("SGD", {"momentum": 0.9}),
    "sgd_nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "sgd_dampening.1": ("SGD", {"momentum": 0.9, "dampening": 0.1}),
    "sgd_wd": ("SGD", {"weight_decay": 0.1}),
    "adam_eps1e-08": ("Adam", {}),
    "adam_eps1e-07": ("Adam", {"eps": 1e-7}),
    "adam_eps1e-05": ("Adam", {"eps": 1e-5}),
    "adam_amsgrad": ("Adam", {"amsgrad": True}),
    "adam_wd": ("Adam", {"weight_decay": 0.1}),
    "adamw": ("AdamW", {"weight_decay": 0.1}),
    "adamw_amsgrad": ("AdamW", {"amsgrad": True}),
    "nadam": ("NAdam", {}),
    "nadam_md1": ("NAdam", {"momentum_decay": 1.0}),
    "nadam_wd": ("NAdam", {"weight_decay": 0.1}),
    "nadam_decoupled": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam": ("RAdam", {}),
    "radam_rectified": ("RAdam", {"betas": [0.9, 0.99999]}),
    "radam_wd": ("RAdam", {"weight_decay": 0.1}),
    "radam_decoupled": ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adamax": ("Adamax", {}),
    "adamax_wd": ("Adamax", {"weight_decay": 0.1}),
    "rmsprop": ("RMSprop", {"alpha": 0.9}),
    "rmsprop_mom": ("RMSprop", {"alpha": 0.9, "momentum": 0.9}),
    "rmsprop_centered": ("RMSprop", {"alpha": 0.9, "centered": True}),
    "rmsprop_centered_mom_wd": ("RMSprop", {"alpha": 0.9, "centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    "adagrad": ("Adagrad", {}),
    "adagrad_init.1": ("Adagrad", {"initial_accumulator_value": 0.1, "eps": 1e-7}),
    "adagrad_lrdecay": ("Adagrad", {"lr_decay": 0.5}),
    "adagrad_wd": ("Adagrad", {"weight_decay": 0.1}),
    "adadelta": ("Adadelta", {"rho": 0.9}),
    "adadelta_wd": ("Adadelta", {"rho": 0.5, "eps": 1e-4, "weight_decay": 0.1}),
    "rprop": ("Rprop", {}),
    "rprop_bounds": ("Rprop", {"etas": [0.3, 2.0], "step_sizes": [0.05, 0.15]}),
    "asgd": ("ASGD", {}),
    "asgd_averaged": ("ASGD", {"lambd": 0.1, "alpha": 0.5, "t0": 1.0, "weight_decay": 0.1}),
    "adafactor": ("Adafactor", {}),
    "adafactor_single": ("Adafactor", {}),
    "adafactor_wd": ("Adafactor", {"weight_decay": 0.1, "clipping_threshold": 2.0, "eps": [0.01, 0.1]}),
}
MATRICES = {
    "adafactor": ("Adafactor", {}),
    "adafactor_wd": ("Adafactor", {"weight_decay": 0.1, "clipping_threshold": 1.5, "beta2_decay": -0.5}),
    "adam": ("Adam", {}),
}
MATRIX_SHAPE = (3, 4)
TORCH_NAMES = {"clipping_threshold": "d"}
LEARNING_RATES = {"adadelta": 1.0}
# Adafactor's least divisor is by default the machine epsilon of the type: here that of float32, in float64.
SINGLE_EPS = {"adafactor_single": {"eps": (torch.finfo(torch.float32).eps, 1e-3)}}
PRECISIONS = {"adafactor": ["float64"], "adafactor_single": ["float32"]}


def steps(start, gradients, cls, arguments, learning_rate):
    """Return the parameter after each update."""
    parameter = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    arguments = {TORCH_NAMES.get(key, key): value for key, value in arguments.items()}
    optimizer = getattr(torch.optim, cls)([parameter], lr=learning_rate, **arguments)
    points = []
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        points.append(parameter.detach().tolist())
    return points


def entry(name, start, gradients, cls, arguments):
    """Return a setting with its trajectory."""
    learning_rate = LEARNING_RATES.get(name, LEARNING_RATE)
    trajectory = steps(start, gradients, cls, arguments | SINGLE_EPS.get(name, {}), learning_rate)
    return {
        "class": cls,
        "arguments": arguments,
        "learning_rate": learning_rate,
        "precisions": PRECISIONS.get(name, ["float64", "float32"]),
        "trajectory": trajectory,
    }


def rosenbrock(p):
    """Return the valley's height."""
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def logistic(x, y):
    """Return the loss of a logistic regression whose parameter holds weights and, last, the bias."""

    def loss(p):
        logits = x @ p[:-1] + p[-1]
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, y)

    return loss


def lbfgs(loss, start, updates, **arguments):
    """Return loss before and parameter after each update."""
    parameter = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameter], **arguments)
    losses, points = [], []

    def closure():
        optimizer.zero_grad()
        value = loss(parameter)
        value.backward()
        return value

    for _ in range(updates):
        losses.append(optimizer.step(closure).item())
        points.append(parameter.detach().tolist())
    return {"start": start, "arguments": arguments, "losses": losses, "trajectory": points}


def line_searches():
    """Return trajectories of L-BFGS: the valley, with and without line search, and a logistic regression."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((40, 3), generator=generator, dtype=torch.float64)
    y = (x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.3 > 0).double()
    y[:6] = 1 - y[:6]
    wolfe = {"line_search_fn": "strong_wolfe"}
    return {
        "rosenbrock": lbfgs(rosenbrock, [-1.2, 1.0], 12, max_iter=4, **wolfe),
        "rosenbrock_forgetful": lbfgs(rosenbrock, [-1.2, 1.0], 12, max_iter=3, history_size=2, **wolfe),
        "rosenbrock_fixed": lbfgs(rosenbrock, [0.5, 0.5], 6, lr=0.2, max_iter=3, line_search_fn=None),
        "logistic": {
            "x": x.tolist(),
            "y": y.tolist(),
            **lbfgs(logistic(x, y), [0.0] * 4, 4, max_iter=3, max_eval=10, **wolfe),
        },
    }


def text(document):
    """Return JSON with a line for each setting."""
    rows = {}
    for key, value in document.items():
        each = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in value.items()] if type(value) is dict else []
        rows[key] = "{\n" + ",\n".join(each) + "\n}" if each else json.dumps(value)
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {row}" for key, row in rows.items()) + "\n}"


def main():
    """Write the file."""
    # Otherwise PyTorch keeps NAdam's product of momenta and ASGD's learning rate in float32: off by up to 4e-9.
    torch.set_default_dtype(torch.float64)
    kept = {name: each for name, each in json.loads(FILE.read_text())["settings"].items() if "source" in each}
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn((5, *MATRIX_SHAPE), generator=generator, dtype=torch.float64).tolist()
    document = {
        "source": f"PyTorch {torch.__version__.partition('+')[0]} in float64, unless a setting names another",
        "parameter": PARAMETER,
        "gradients": GRADIENTS,
        "settings": {name: entry(name, PARAMETER, GRADIENTS, *each) for name, each in VECTORS.items()} | kept,
        "matrix": numbers[0],
        "matrix_gradients": numbers[1:],
        "matrix_settings": {
            name: entry(f"{name} matrix", numbers[0], numbers[1:], *each) for name, each in MATRICES.items()
        },
        "lbfgs": line_searches(),
    }
    FILE.write_text(text(document) + "\n")


if __name__ == "__main__":
    main()
