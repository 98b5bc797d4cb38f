"""Time single operations and transformer layers, forward and backward, in burnish and in PyTorch, interleaved.

    python benches/operations.py [--rounds N] [CASE ...]

Each library has one thread in a process of its own, and its CPU time counts, so that other work on the machine changes
little. Float32 on the CPU; images of PyTorch are channels last.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

import numpy as np

RNG = np.random.default_rng(0)
REPEATS = 4
# Batch, height (and width), channels, filters, groups, kernel.
CONVOLUTIONS = {
    "depthwise": (32, 28, 64, 64, 64, 3),
    "depthwise, 2 filters a channel": (16, 28, 32, 64, 32, 3),
    "32 groups of 4 channels": (8, 28, 128, 128, 32, 3),
    "4 groups of 32 channels": (8, 28, 128, 128, 4, 3),
}
CTC = {"ctc": (32, 200, 40, 30), "ctc, few classes": (32, 100, 10, 12)}  # batch, steps, classes, labels
# Batch, positions, width, heads, activation, causal: 2 encoder layers, the feed-forward network 4 times as wide; Adam.
TRANSFORMERS = {
    "transformer, relu": (32, 64, 128, 4, "relu", False),
    "transformer, gelu, causal": (32, 64, 128, 4, "gelu", True),
}
CASES = [*CONVOLUTIONS, *CTC, *TRANSFORMERS]

Step = Callable[[], Any]


def normal(*shape: int) -> Any:
    """Standard normal numbers."""
    return RNG.standard_normal(shape, dtype=np.float32)


def in_burnish(case: str) -> Step:
    """One step of a case."""
    import burnish as bn

    if case in CONVOLUTIONS:
        batch, size, channels, filters, groups, kernel = CONVOLUTIONS[case]
        x, k = normal(batch, size, size, channels), normal(kernel, kernel, channels // groups, filters)
        a, b = bn.Tensor(x, requires_grad=True), bn.Tensor(k, requires_grad=True)
        padding = ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2))
        return lambda: bn.ops.conv2d(a, b, padding=padding, groups=groups).sum().backward()
    if case in CTC:
        batch, steps, classes, places = CTC[case]
        z, labels = (
            bn.Tensor(normal(batch, steps, classes), requires_grad=True),
            RNG.integers(1, classes, (batch, places)),
        )
        return lambda: bn.ops.ctc(z, labels).sum().backward()
    batch, positions, width, heads, activation, causal = TRANSFORMERS[case]
    layer, options = bn.layers.TransformerEncoderLayer, {"activation": activation, "use_causal_mask": causal}
    layers = [layer(4 * width, heads, **options) for _ in range(2)]
    model = bn.Sequential([*layers, bn.layers.GlobalAvgPool(), bn.layers.Dense(10)])
    model.compile("cross_entropy", "adam", 1e-3)
    x, y = normal(batch, positions, width), RNG.integers(0, 10, batch)
    return lambda: model.train_on_batch(x, y)


def in_pytorch(case: str) -> Step:
    """One step of a case."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    if case in CONVOLUTIONS:
        batch, size, channels, filters, groups, kernel = CONVOLUTIONS[case]
        x = torch.from_numpy(normal(batch, size, size, channels)).permute(0, 3, 1, 2).requires_grad_()
        k = torch.from_numpy(normal(filters, channels // groups, kernel, kernel)).requires_grad_()
        convolve = nn.functional.conv2d
        return lambda: torch.autograd.grad(convolve(x, k, padding=kernel // 2, groups=groups).sum(), (x, k))
    if case in CTC:
        batch, steps, classes, places = CTC[case]
        z = torch.from_numpy(normal(batch, steps, classes)).requires_grad_()
        labels = torch.from_numpy(RNG.integers(1, classes, (batch, places)))
        lengths = torch.full((batch,), steps), torch.full((batch,), places)
        loss = nn.CTCLoss(reduction="sum")
        return lambda: loss(z.log_softmax(-1).transpose(0, 1), labels, *lengths).backward()
    batch, positions, width, heads, activation, causal = TRANSFORMERS[case]
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, activation, batch_first=True)
    encoder, head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, 10)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-3, fused=True)
    mask = nn.Transformer.generate_square_subsequent_mask(positions) if causal else None
    x, y = torch.from_numpy(normal(batch, positions, width)), torch.from_numpy(RNG.integers(0, 10, batch))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(encoder(x, mask=mask, is_causal=causal).mean(1)), y).backward()
        optimizer.step()

    return step


def work(library: str, case: str) -> None:
    """Answer each line with the CPU milliseconds of a step."""
    step = (in_burnish if library == "burnish" else in_pytorch)(case)
    step()
    for _ in sys.stdin:
        start = process_time()
        for _ in range(REPEATS):
            step()
        print(1e3 * (process_time() - start) / REPEATS, flush=True)


def worker(library: str, case: str) -> subprocess.Popen[str]:
    """Start a library in a process of its own."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--worker", library, case]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def asked(process: subprocess.Popen[str]) -> float:
    """The milliseconds of a step."""
    assert process.stdin
    assert process.stdout
    print(file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benches/operations.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", metavar="LIBRARY", help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="; ".join(CASES))
    options = parser.parse_args()
    if options.worker:
        return work(options.worker, *options.cases)
    print("| case | burnish, ms | PyTorch, ms | PyTorch / burnish |\n|---|---|---|---|")
    for case in options.cases or CASES:
        ours, theirs = workers = [worker(library, case) for library in ("burnish", "torch")]
        rounds = [(asked(ours), asked(theirs)) for _ in range(options.rounds)]
        for process in workers:
            process.communicate()
        a, b = (median(times) for times in zip(*rounds, strict=True))
        print(f"| {case} | {a:.2f} | {b:.2f} | {median(b / a for a, b in rounds):.2f} |", flush=True)
    return None


if __name__ == "__main__":
    main()
