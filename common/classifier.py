"""A small, frozen classifier of MNIST digits: the judge of what the conditional models draw.

Trained by `python -m reproductions.evidence.train_classifier`; its weights lie beside this file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from common.lazy import keras
from common.training import in_batches

WEIGHTS = Path(__file__).with_name("classifier.npz")


def build() -> Any:
    """The network without its weights: pictures [batch, 28, 28, 1] in 0 .. 1 -> [batch, 10]."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([28, 28, 1]),
            layers.Conv2D(16, 3, strides=2, activation="relu"),  # [batch, 13, 13, 16]
            layers.Conv2D(32, 3, activation="relu"),  # [batch, 11, 11, 32]
            layers.MaxPooling2D(),  # [batch, 5, 5, 32]
            layers.Conv2D(64, 3, activation="relu"),  # [batch, 3, 3, 64]
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10),
        ]
    )


@cache
def load() -> Any:
    """The trained network, read once."""
    network = build()
    with np.load(WEIGHTS, allow_pickle=False) as arrays:
        network.set_weights([arrays[name] for name in sorted(arrays.files)])
    return network


def classify(pictures: np.ndarray) -> np.ndarray:
    """The digits that pictures [..., 28, 28] show; values are clipped to 0 .. 1. int [...]."""
    x = np.clip(pictures, 0, 1).astype(np.float32).reshape(-1, 28, 28, 1)
    logits = in_batches(load(), x)
    return logits.argmax(axis=1).reshape(pictures.shape[:-2])
