"""Teach a small transformer to write English, character by character; print its validation loss and what it writes.

The text is the Jargon File of Debian's package `jargon-text` (`apt install jargon-text`), 1.6 million characters, or
any other file in UTF-8, plain or .gz.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np

import burnish as bn

JARGON = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
LENGTH = 64  # how many characters the model sees
WIDTH = 128


def read(path):
    """Return the text of a file, or end the program with a line that says what is missing."""
    if not path.is_file():
        raise SystemExit(f"{path} is not there: `apt install jargon-text`, or give the path of another text")
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def encode(text):
    """Return the alphabet, and each character's place in it."""
    alphabet, characters = np.unique(np.array(list(text)), return_inverse=True)
    return alphabet, characters.astype(np.int32)


def windows(characters):
    """Return rows of LENGTH characters, and for each of these the one that follows."""
    rows = (len(characters) - 1) // LENGTH
    x, y = characters[: rows * LENGTH], characters[1 : rows * LENGTH + 1]
    return x.reshape(rows, LENGTH), y.reshape(rows, LENGTH)


def build(letters, updates):
    """Return a transformer of two layers that tells what comes next after each of its characters."""
    options = {"activation": "gelu", "normalize_first": True, "use_causal_mask": True}
    model = bn.Sequential(
        [
            bn.Input((LENGTH,)),
            bn.layers.Embedding(letters, WIDTH),
            bn.layers.PositionalEncoding(learned=True),
            bn.layers.TransformerEncoderLayer(4 * WIDTH, 4, **options),
            bn.layers.TransformerEncoderLayer(4 * WIDTH, 4, **options),
            bn.layers.LayerNorm(),
            bn.layers.Dense(letters),
        ]
    )
    schedule = bn.schedules.OneCycle(3e-3, updates)
    model.compile("cross_entropy", "adamw", schedule, ["accuracy"], weight_decay=0.1, clip_norm=1.0)
    return model


def write(model, characters, count, rng, temperature=0.7):
    """Return the characters with `count` more, each drawn from what the model expects after those before it."""
    for _ in range(count):
        seen = characters[-LENGTH:]
        window = np.zeros((1, LENGTH), np.int32)
        window[0, : len(seen)] = seen  # what comes after them is not looked at
        logits = model.predict(window)[0, len(seen) - 1] / temperature
        chances = np.exp(logits - logits.max())
        characters = np.append(characters, rng.choice(len(chances), p=chances / chances.sum()))
    return characters


def main():
    """Train on the first nine tenths, validate on the rest, then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, nargs="?", default=JARGON)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--write", type=int, default=400, metavar="CHARACTERS")
    options = parser.parse_args()

    alphabet, characters = encode(read(options.text))
    cut = len(characters) * 9 // 10
    x, y = windows(characters[:cut])
    updates = options.epochs * -(-len(x) // options.batch_size)
    model = build(len(alphabet), updates)
    model.fit(x, y, epochs=options.epochs, batch_size=options.batch_size, validation_data=windows(characters[cut:]))
    beginning = characters[cut : cut + LENGTH]
    print("".join(alphabet[write(model, beginning, options.write, np.random.default_rng(0))]))


if __name__ == "__main__":
    main()
