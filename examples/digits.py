"""Learn to read handwritten digits: train, measure, draw the learning curve, save, load, predict."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import burnish as bn

digits = load_digits()
images = digits.images[..., np.newaxis] / 16  # (1797, 8, 8, 1), ink from 0 to 1
x, x_test, y, y_test = train_test_split(images, digits.target, test_size=0.2, stratify=digits.target, random_state=0)

model = bn.Sequential(
    [
        bn.layers.Conv2D(32, 3, padding="same", activation="relu"),
        bn.layers.MaxPool2D(2),
        bn.layers.Conv2D(64, 3, padding="same", activation="relu"),
        bn.layers.MaxPool2D(2),
        bn.layers.Flatten(),
        bn.layers.Dropout(0.3),
        bn.layers.Dense(10),
    ]
)
model.compile(loss="cross_entropy", optimizer="adamw", learning_rate=2e-3, metrics=["accuracy"])
history = model.fit(x, y, epochs=20, batch_size=32, validation_split=0.1)
print("test:", model.evaluate(x_test, y_test))

output = Path("build")
output.mkdir(exist_ok=True)
history.plot().savefig(output / "digits.png")
model.save(output / "digits.burnish")

loaded = bn.load(output / "digits.burnish")
predicted = loaded.predict(x_test[:10]).argmax(axis=1)
print("predicted:", predicted)
print("written:  ", y_test[:10])
print(f"learning curve: {output / 'digits.png'}, model: {output / 'digits.burnish'}")
