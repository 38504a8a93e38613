"""`python -m reproductions.evidence.train_classifier`: trains the judge of the drawn digits.

A minute's work. The weights go to `common/classifier.npz`, about 110 kB; they are kept in the
repository, so that all runs are judged alike. Nothing else needs this command.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import numpy as np

from common import classifier, datasets
from common.cli import OneLineParser, run_command
from common.errors import VerificationFailed
from common.files import write_atomically
from common.lazy import keras

EPOCHS = 14
LEAST = 0.99  # of the test set must be right


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("train_classifier", lambda: _train(argv))


def _train(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.evidence.train_classifier",
        "Trains the classifier that says which digits the conditional models draw, and"
        " replaces its weights in common/classifier.npz.",
    )
    parser.parse_args(argv)
    data = datasets.load("mnist")
    keras.utils.set_random_seed(0)
    network = classifier.build()
    steps = EPOCHS * -(-len(data.train_images) // 128)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = (data.train_images / 255).astype(np.float32)[..., np.newaxis]
    network.fit(x, data.train_labels, batch_size=128, epochs=EPOCHS, verbose=2)

    test = (data.test_images / 255).astype(np.float32)[..., np.newaxis]
    right = network.predict(test, verbose=0).argmax(axis=1) == data.test_labels
    if right.mean() < LEAST:
        raise VerificationFailed(f"only {right.mean():.2%} of the test set is right: nothing kept")
    content = io.BytesIO()
    np.savez_compressed(content, **{f"{i:02d}": w for i, w in enumerate(network.get_weights())})
    write_atomically(classifier.WEIGHTS, content.getvalue())
    print(f"{right.mean():.2%} of the test set is right; kept in {classifier.WEIGHTS}")


if __name__ == "__main__":
    sys.exit(main())
