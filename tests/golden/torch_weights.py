"""Write torch_*: `python tests/golden/torch_weights.py` (needs torch and safetensors).

Weights of small networks of PyTorch as a user saves them, and what the networks give for an input; float64.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).parent


class Classifier(nn.Module):
    """Images to classes: every kind of convolution, normalisation and slope, vectors from images."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, (3, 2), padding=(1, 0))
        self.bn1 = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4, bias=False)
        self.slope = nn.PReLU(8)
        self.grouped = nn.Conv2d(8, 6, 2, groups=2)
        self.up = nn.ConvTranspose2d(6, 2, 3, stride=2)
        self.bn2 = nn.BatchNorm1d(2 * 7 * 3)
        self.slope2 = nn.PReLU()
        self.fc = nn.Linear(2 * 7 * 3 + 2, 3)

    def forward(self, x, extra):
        """Return logits of images and two numbers each."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.slope(self.depthwise(x))
        x = self.slope2(self.bn2(self.up(self.grouped(x)).flatten(1)))
        return self.fc(torch.cat([x, extra], 1))


class Generator(nn.Module):
    """Vectors to images."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4 * 3 * 2)
        self.norm = nn.BatchNorm1d(4 * 3 * 2)
        self.group = nn.GroupNorm(2, 4)
        self.up = nn.ConvTranspose2d(4, 2, (2, 3), stride=2, bias=False)

    def forward(self, z):
        """Return images for vectors."""
        x = torch.relu(self.norm(self.fc(z))).view(-1, 4, 3, 2)
        return self.up(self.group(x))


class Text(nn.Module):
    """Tokens to classes through one-dimensional convolutions."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.conv = nn.Conv1d(4, 6, 3, padding="same", groups=2)
        self.bn = nn.BatchNorm1d(6)
        self.norm = nn.LayerNorm(18)
        self.fc = nn.Linear(18, 2)

    def forward(self, tokens):
        """Return logits."""
        x = self.conv(self.embedding(tokens).transpose(1, 2))
        return self.fc(self.norm(nn.functional.max_pool1d(self.bn(x), 2).flatten(1)))


class Translator(nn.Module):
    """A transformer of both kinds of layer, and attention to values of another width."""

    def __init__(self):
        super().__init__()
        options = {"dim_feedforward": 7, "dropout": 0.0, "batch_first": True}
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(6, 2, activation="gelu", **options), 2, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoderLayer(6, 3, norm_first=True, **options)
        self.attend = nn.MultiheadAttention(6, 2, kdim=4, vdim=3, batch_first=True)

    def forward(self, source, target, keys, values):
        """Return a vector for each place of the target."""
        length = target.shape[1]
        mask = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
        y = self.decoder(target, self.encoder(source), tgt_mask=mask)
        return self.attend(y, keys, values)[0]


class Tagger(nn.Module):
    """Recurrent layers of every kind, several in one module and both ways."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(8, 5, batch_first=True)
        self.rnn = nn.RNN(5, 4, nonlinearity="relu", bidirectional=True, batch_first=True, bias=False)
        self.last = nn.GRU(8, 2, batch_first=True)

    def forward(self, x):
        """Return a state."""
        return self.last(self.rnn(self.gru(self.lstm(x)[0])[0])[0])[1][0]


CASES = {
    "classifier": (Classifier, lambda: (torch.randn(3, 3, 6, 5), torch.randn(3, 2))),
    "generator": (Generator, lambda: (torch.randn(3, 5),)),
    "text": (Text, lambda: (torch.randint(0, 11, (3, 7)),)),
    "translator": (
        Translator,
        lambda: (torch.randn(3, 4, 6), torch.randn(3, 5, 6), torch.randn(3, 2, 4), torch.randn(3, 2, 3)),
    ),
    "tagger": (Tagger, lambda: (torch.randn(3, 6, 3),)),
}


def main():
    """Write all cases."""
    import numpy as np

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    arrays = {}
    for name, (make, inputs) in CASES.items():
        model = make().eval()
        with torch.no_grad():
            for array in (*model.parameters(), *model.buffers()):
                if array.is_floating_point():
                    array.uniform_(0.2, 1.0).mul_(torch.randn_like(array).sign() if array.requires_grad else 1.0)
            given = inputs()
            arrays[f"{name}.y"] = model(*given).numpy()
        arrays |= {f"{name}.x{place}": x.numpy() for place, x in enumerate(given)}
        save_file(model.state_dict(), FOLDER / f"torch_{name}.safetensors")
    np.savez_compressed(FOLDER / "torch_weights.npz", **arrays)


if __name__ == "__main__":
    main()
