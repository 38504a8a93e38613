"""Records what TensorFlow's own generators draw for the documents' programs.

    python3.7 generators.py TEXTS --data DIR --output generators/tensorflow-1.14.0.npz

TEXTS is the folder of the documents' texts. Those that the running TensorFlow is for, 1.14.0 or
2.0.0, are run up to their first training step with their own random numbers. README.md says what
the file holds. Needs what `record.py` needs, and uses it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record  # type: ignore[import-not-found]  # the file beside this one

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray

SEED = 9102  # of TensorFlow and of the reader, so that the files can be made again
KEPT = 1000  # entries of a variable, at most
NOISE = 4000
READER_IMAGES, READER_BATCH, READER_BATCHES = 25, 8, 10  # 80 images drawn: three seams
SHUFFLED, BUFFER, EVERY = 60_000, 10_000, 10  # 004's; every tenth place is kept


class Start(record.Recorder):
    """Looks at the initial weights where a recording replaces them, and ends the program."""

    def begin(self, write: Callable[[Any, Array], Any]) -> None:
        tf: Any = importlib.import_module("tensorflow.compat.v1")
        in_session = tf.get_default_session() is not None  # else Keras knows where it keeps them
        for _, variable in self.document.variables(self.namespace):
            value = variable.eval() if in_session else tf.keras.backend.get_value(variable)
            self.initial_weights.append(value)
        raise record.Finished


def initial_weights(job: record.Job) -> list[Array]:
    """Entries of each variable as the program itself starts it, sorted, float32."""
    record.replace_normal = lambda *_: None
    tf: Any = importlib.import_module("tensorflow")
    if "enable_eager_execution()" in job.program:  # comes too late once there is a seed
        tf.compat.v1.enable_eager_execution()
    tf.compat.v1.set_random_seed(SEED)
    start = Start(job)
    record.execute(start)
    return [np.sort(np.ravel(value)[:KEPT]) for value in start.initial_weights]


def noise(tf: Any) -> Array:
    """Standard normal numbers as the programs draw their noise, sorted, float32."""
    with tf.Graph().as_default(), tf.Session() as session:
        return np.sort(session.run(tf.random_normal([NOISE], seed=SEED)))


def reader() -> dict[str, Array]:
    """What the reader of 000 and 003 shuffled, and the batches that came of it, as indices."""
    mnist: Any = importlib.import_module("tensorflow.contrib.learn.python.learn.datasets.mnist")
    images = np.arange(READER_IMAGES, dtype=np.uint8).reshape(-1, 1, 1, 1)
    images = mnist.DataSet(images, images[:, 0, 0, 0], dtype=np.uint8, seed=SEED)
    shuffles = []
    numpy_random: Any = np.random
    plain_shuffle = numpy_random.shuffle

    def shuffle(order: Array) -> None:
        plain_shuffle(order)
        shuffles.append(order.copy())

    numpy_random.shuffle = shuffle
    batches = [images.next_batch(READER_BATCH)[0].ravel() for _ in range(READER_BATCHES)]
    numpy_random.shuffle = plain_shuffle
    return {"reader_shuffles": np.array(shuffles), "reader_batches": np.array(batches)}


def shuffled(tf: Any) -> Array:
    """Which of 0 .. 59,999 `tf.data`'s `shuffle(10000)` hands out at every tenth place."""
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = tf.data.Dataset.range(SHUFFLED).shuffle(BUFFER, seed=SEED).batch(SHUFFLED)
        order = session.run(tf.data.make_one_shot_iterator(dataset).get_next())
    return order[::EVERY].astype(np.uint16)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Record what TensorFlow's generators draw.")
    parser.add_argument("texts", type=Path, metavar="TEXTS", help="folder of the documents' texts")
    parser.add_argument("--data", type=Path, required=True, help="folder: idx files or Keras's npz")
    parser.add_argument("--output", type=Path, required=True, help="the .npz file to write")
    options = parser.parse_args(arguments)
    if not options.output.parent.is_dir():  # a wrong one would cost the whole run
        parser.error(f"--output: there is no folder {options.output.parent}")
    try:
        kept = drawn(options.texts, options.data)
    except (record.RecordingError, ImportError, OSError) as error:
        print(f"generators.py: {error}", file=sys.stderr)
        return 2
    save: Any = np.savez_compressed
    save(str(options.output), **kept)
    return 0


def drawn(texts: Path, data: Path) -> dict[str, Array]:
    """What this TensorFlow draws for the documents that were written for it.

    Raises:
      RecordingError: no document was, or the folder has not one text of each.
    """
    tf: Any = importlib.import_module("tensorflow")
    of_this = {n: d for n, d in record.DOCUMENTS.items() if d.tensorflow == tf.__version__}
    if not of_this:
        raise record.RecordingError(f"no document is for TensorFlow {tf.__version__}")
    kept = {"noise": noise(tf.compat.v1), "shuffled": shuffled(tf.compat.v1)}
    if hasattr(tf, "contrib"):
        kept.update(reader())
    for number, document in of_this.items():
        found = list(texts.glob(f"{number}_*.txt"))
        if len(found) != 1:
            raise record.RecordingError(f"{texts} holds {len(found)} files {number}_*.txt, not one")
        job = record.Job(
            program=record.with_changes(
                document.program(found[0].read_text(encoding="utf-8")), document.changes
            ),
            document=number,
            data=data,
            seed=SEED,
            steps=1,
            precision="float32",
            miniature=True,  # fewer images to copy
        )
        for i, entries in enumerate(record.in_its_own_process(job, initial_weights)):
            kept[f"weights_{number}_{i}"] = entries
    return kept


if __name__ == "__main__":
    sys.exit(main())
