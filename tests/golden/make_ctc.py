"""Write ctc.npz, what PyTorch's `CTCLoss` gives in float64: `python tests/golden/make_ctc.py` (needs torch)."""

from pathlib import Path

import numpy as np
import torch

STEPS, CLASSES = 24, 6
# Steps and labels of each sample; the last has too many repeated labels for its steps.
LENGTHS = [24, 24, 17, 9, 1, 6]
LABELS = [[1, 2, 3, 4, 5, 1, 1, 2], [3, 3, 3], [5, 4], [], [2], [1, 1, 1, 1]]


def main():
    """Run it with two blanks, with and without `zero_infinity`."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(len(LABELS), STEPS, CLASSES, generator=generator, dtype=torch.float64)
    width = max(map(len, LABELS))
    found = {
        "logits": logits,
        "lengths": LENGTHS,
        "labels": [labels + [-1] * (width - len(labels)) for labels in LABELS],
    }
    for blank in (0, CLASSES - 1):
        for zero in (False, True):
            x = logits.clone().requires_grad_()
            loss = torch.nn.functional.ctc_loss(
                x.log_softmax(-1).transpose(0, 1),
                torch.tensor([(label - 1) % CLASSES if blank else label for labels in LABELS for label in labels]),
                torch.tensor(LENGTHS),
                torch.tensor([len(labels) for labels in LABELS]),
                blank=blank,
                reduction="none",
                zero_infinity=zero,
            )
            loss.sum().backward()
            found |= {f"{blank}.{zero}.loss": loss.detach(), f"{blank}.{zero}.gradient": x.grad}
    arrays = {name: np.asarray(array) for name, array in found.items()}
    np.savez_compressed(Path(__file__).with_name("ctc.npz"), **arrays)


if __name__ == "__main__":
    main()
