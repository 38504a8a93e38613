"""Runs a document's own program whole, with its own random numbers, once for each seed.

    python3.7 whole_runs.py PROGRAM --document 003 --data DIR --seeds 1-32 --output full-runs.json

PROGRAM is the document's text, or its program as a .py file. Each run has a process of its own, in
which the program runs as it is; the seed sets the generators of TensorFlow and NumPy. What the
program computes is looked at and not changed. A run is added to the output file as it ends, and
seeds that the file has already are left out, so the command can be stopped and repeated.

Needs the TensorFlow that record.py needs, and record.py beside it.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # Python 3.7 could not evaluate these
    from collections.abc import Callable, Sequence

    from reproductions.golden import record

    Array = np.ndarray
    Data = dict[str, Array]
    Namespace = dict[str, Any]  # of a program
    Result = dict[str, Any]  # of a run: an entry of the file
    Watch = Callable[["Job", Data, Namespace], Callable[[], Result]]
else:
    import record

STEPS_PER_ROW = 100  # of 003, which has no epochs
PRINT_EVERY = 1000  # steps, in 003
DIGITS = 7  # significant ones that are kept: a float32 has no more


class Job(NamedTuple):
    """What one run of a program needs, sent to the process that runs it."""

    program: str
    document: str
    data: Path
    epochs: int | None  # 002: after how many to stop; None: the program's own number
    seed: int = 1
    grids: Path | None = None  # 004: the file for its class grids


def rounded(value: Any) -> Any:
    """A number, or numbers nested in lists or arrays, with DIGITS significant digits."""
    if isinstance(value, (list, np.ndarray)):
        return [rounded(inner) for inner in value]
    return float(f"{float(value):.{DIGITS}g}")


# --- Looking at a program -------------------------------------------------------------------------
#
# Each `watch_...` is called before the program starts. It sets the seed, puts the data where the
# program looks for them and watches what the program's own calls return. What it returns is called
# after the program's end and gives the results.


class Steps:
    """The steps of 000 and 003: each `Session.run` of [training step, loss], with both terms."""

    def __init__(self, job: Job, data: Data) -> None:
        self.values: list[list[float]] = []  # [step, 3]: loss; mean reconstruction and KL per image
        terms: list[Any] = []
        tf: Any = importlib.import_module("tensorflow")
        reader: Any = importlib.import_module("tensorflow.examples.tutorials.mnist.input_data")
        plain_read, plain_run = reader.read_data_sets, tf.Session.run
        record.write_idx(Path("idx"), data)
        reader.read_data_sets = lambda _, **settings: plain_read("idx", **settings)

        def session_run(session: Any, fetches: Any, *args: Any, **settings: Any) -> Any:
            if not isinstance(fetches, list):
                return plain_run(session, fetches, *args, **settings)
            if not terms:  # the loss is the mean of the sum of two tensors: those are the terms
                terms.extend(fetches[1].op.inputs[0].op.inputs)
            results = plain_run(session, [*fetches, *terms], *args, **settings)
            _, loss, reconstruction, kl = results
            self.values.append([loss, reconstruction.sum() / len(kl), kl.mean()])
            return results[:2]

        tf.Session.run = session_run
        tf.set_random_seed(job.seed)  # the reader seeds NumPy with it, and NumPy shuffles

    def rows(self, steps: int) -> list[list[float]]:
        """[3][row]: the means over rows of `steps` steps each."""
        return rounded(np.reshape(self.values, (-1, steps, 3)).mean(axis=1).T)


def watch_000(job: Job, data: Data, namespace: Namespace) -> Callable[[], Result]:
    """Epochs, and the value of the cost of all test images."""
    steps = Steps(job, data)
    results: list[float] = []
    plain_print = print

    def program_print(*values: Any) -> None:
        if values[0] == "result: ":
            results.append(float(values[1]))
        plain_print(*values)

    namespace["print"] = program_print

    def result() -> Result:
        per_epoch = len(steps.values) // namespace["training_epochs"]
        cost, reconstruction, kl = steps.rows(per_epoch)
        last = [values[0] for values in steps.values[per_epoch - 1 :: per_epoch]]
        return {
            "epoch_mean_cost": cost,
            "epoch_mean_reconstruction": reconstruction,
            "epoch_mean_kl": kl,
            "epoch_last_batch_cost": rounded(last),
            "test_result": results[0],
        }

    return result


def watch_003(job: Job, data: Data, namespace: Namespace) -> Callable[[], Result]:
    """Means of a hundred steps, and the losses that the program prints."""
    steps = Steps(job, data)

    def result() -> Result:
        loss, reconstruction, kl = steps.rows(STEPS_PER_ROW)
        printed = [1, *range(PRINT_EVERY, len(steps.values) + 1, PRINT_EVERY)]
        return {
            "loss_at_step": {str(step): rounded(steps.values[step - 1][0]) for step in printed},
            "mean_loss_per_100_steps": loss,
            "mean_reconstruction_per_100_steps": reconstruction,
            "mean_kl_per_100_steps": kl,
        }

    return result


def load_data_from(data: Data) -> Callable[[], Any]:
    """Keras's `load_data` without its download."""
    train, test = (data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])
    return lambda: (train, test)


def watched_fit(keras: Any) -> dict[str, list[float]]:
    """Lets `Model.fit` fill the dictionary returned with what its history holds."""
    kept: dict[str, list[float]] = {}
    plain_fit = keras.Model.fit

    def fit(*args: Any, **settings: Any) -> Any:
        history = plain_fit(*args, **settings)
        kept.update(history.history)
        return history

    keras.Model.fit = fit
    return kept


def watch_001(job: Job, data: Data, namespace: Namespace) -> Callable[[], Result]:
    """The history, to which the program's KL is added as a metric."""
    tf: Any = importlib.import_module("tensorflow.python")
    keras = tf.keras
    keras.datasets.fashion_mnist.load_data = load_data_from(data)
    history = watched_fit(keras)
    plain_add_loss, plain_seed = keras.Model.add_loss, tf.set_random_seed

    def add_loss(model: Any, loss: Any) -> None:
        plain_add_loss(model, loss)
        _, kl = loss.op.inputs[0].op.inputs  # the loss is the mean of the sum of both
        model.add_metric(kl, name="kl", aggregation="mean")

    keras.Model.add_loss = add_loss
    tf.set_random_seed = lambda _: plain_seed(job.seed)  # for the program's 9102
    np.random.seed(job.seed)  # shuffles in `fit`

    def result() -> Result:
        return {
            "epoch_loss": rounded(history["loss"]),
            "epoch_val_loss": rounded(history["val_loss"]),
            "epoch_kl": rounded(history["kl"]),
            "epoch_val_kl": rounded(history["val_kl"]),
        }

    return result


class Lines(io.TextIOBase):
    """A stream that hands its lines to a function, and passes them on."""

    def __init__(self, on_line: Callable[[str], object], onwards: Any) -> None:
        self._on_line, self._onwards, self._text = on_line, onwards, ""

    def write(self, text: str) -> int:
        self._onwards.write(text)
        self._onwards.flush()
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self._on_line(line)
        return len(text)


def watch_002(job: Job, data: Data, namespace: Namespace) -> Callable[[], Result]:
    """What it prints: the ELBO of the test images after each epoch."""
    tf: Any = importlib.import_module("tensorflow")
    tf.keras.datasets.mnist.load_data = load_data_from(data)
    tf.random.set_seed(job.seed)
    elbos: list[float] = []
    printed = record.DOCUMENTS["002"].printed
    assert printed is not None  # it has a pattern

    def on_line(line: str) -> None:
        found = re.search(printed, line)
        if found:
            elbos.append(float(found.group(1)))
            if len(elbos) == job.epochs:
                raise record.Finished

    sys.stdout = Lines(on_line, sys.stdout)
    return lambda: {"test_elbo": rounded(elbos)}


def watch_004(job: Job, data: Data, namespace: Namespace) -> Callable[[], Result]:
    """The history, the class means, and the grids of all ten classes."""
    tf: Any = importlib.import_module("tensorflow.python")
    keras: Any = importlib.import_module("tensorflow.python.keras")
    keras.datasets.mnist.load_data = load_data_from(data)
    history = watched_fit(keras)
    tf.enable_eager_execution()  # before the seed, which is lost when the mode changes
    tf.set_random_seed(job.seed)
    np.random.seed(job.seed)

    def result() -> Result:
        class_mean = np.asarray(namespace["class_mean"])
        if job.grids is not None:
            grids = [class_grid(namespace["decoder"], mean) for mean in class_mean]
            shown = to_uint8(namespace["figure"])  # for the digit 8, decoded one by one
            apart = np.abs(grids[8].astype(int) - shown).max()
            if apart > 1:  # a grey level, by rounding
                raise record.RecordingError(f"the grid of the 8 is {apart} grey levels off")
            np.savez_compressed(str(job.grids), grids=as_pictures(grids))
        return {
            "epoch_loss": rounded(history["loss"]),
            "epoch_val_loss": rounded(history["val_loss"]),
            "class_mean": rounded(class_mean),
        }

    return result


def class_grid(decoder: Any, class_mean: Array) -> Array:
    """The program's 15 x 15 grid around the mean of a class: uint8 [420, 420]."""
    norm: Any = importlib.import_module("scipy.stats").norm
    quantiles = norm.ppf(np.linspace(0.05, 0.95, 15))
    x, y = np.meshgrid(quantiles + class_mean[0], quantiles + class_mean[1])
    pictures = decoder.predict(np.stack([x.ravel(), y.ravel()], axis=1))
    rows = pictures.reshape(15, 15, 28, 28).swapaxes(1, 2)
    return to_uint8(rows.reshape(420, 420))


def to_uint8(picture: Array) -> Array:
    """0 .. 1 -> 0 .. 255."""
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def as_pictures(grids: Sequence[Array]) -> Array:
    """[10][420, 420] -> [10, 15, 15, 28, 28]."""
    return np.reshape(grids, (10, 15, 28, 15, 28)).swapaxes(2, 3)


class Kept(NamedTuple):
    """What is kept of a document's runs."""

    watch: Watch
    what: str  # the names of its numbers, explained


KEPT = {
    "000": Kept(
        watch_000,
        "epoch_mean_cost: mean over the 429 batches; epoch_mean_reconstruction, epoch_mean_kl: its"
        " two terms, per image; epoch_last_batch_cost: what the document prints; test_result: the"
        " printed result",
    ),
    "001": Kept(
        watch_001,
        "epoch_loss, epoch_val_loss: as Keras reports them; epoch_kl, epoch_val_kl: the KL in them",
    ),
    "002": Kept(
        watch_002,
        "test_elbo: printed after each epoch; a run with 25 was stopped after epoch 25 of 100",
    ),
    "003": Kept(
        watch_003,
        "loss_at_step: what the document prints; mean_loss_per_100_steps, and its two terms"
        " mean_reconstruction_per_100_steps, mean_kl_per_100_steps",
    ),
    "004": Kept(
        watch_004,
        "epoch_loss, epoch_val_loss: as Keras reports them (sum over a batch; last batch of 96);"
        " class_mean: the ten learned prior means",
    ),
}


# --- The runs -------------------------------------------------------------------------------------


def run(job: Job) -> Result:
    """Runs a program to its end and returns its entry."""
    os.environ["MPLBACKEND"] = "Agg"
    record.tensorflow_of(job.document)
    data = record.read_data(job.data, record.DOCUMENTS[job.document].data)
    namespace: Namespace = {"__name__": "__main__"}
    code = compile(job.program, f"<document {job.document}>", "exec", dont_inherit=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # some programs write pictures where they are
        result = KEPT[job.document].watch(job, data, namespace)
        began = time.time()
        with suppress(record.Finished):
            exec(code, namespace)
        seconds = round(time.time() - began, 1)
        content = {"seed": job.seed, "seconds": seconds, **result()}
        os.chdir("/")
    return content


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON so that the file is always whole."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(str(new), str(path))


def seeds_of(text: str) -> list[int]:
    """Reads the option: 1-3, or 1,2,3, as [1, 2, 3]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds.extend(range(int(first), int(last or first) + 1))
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text} names no seed")
    return seeds


def extend(path: Path, job: Job, seeds: Sequence[int], grids: Path | None) -> None:
    """Makes the runs that a file does not have yet; the file is whole after each of them."""
    content: dict[str, Any] = {
        "document": job.document,
        "tensorflow": record.DOCUMENTS[job.document].tensorflow,
        "what": KEPT[job.document].what,
        "runs": [],
    }
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["document"] != job.document:
            raise record.RecordingError(f"{path} holds runs of document {kept['document']}")
        content["runs"] = kept["runs"]
    for seed in seeds:
        if seed in [entry["seed"] for entry in content["runs"]]:
            continue
        file = grids / f"class-grids-{seed}.npz" if grids else None
        content["runs"].append(record.in_its_own_process(job._replace(seed=seed, grids=file), run))
        content["runs"].sort(key=lambda entry: entry["seed"])
        write_atomically(path, content)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run a document's own program whole.")
    parser.add_argument("program", type=Path, metavar="PROGRAM", help="its text, or a .py file")
    parser.add_argument("--document", choices=sorted(KEPT), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder: idx files or Keras's npz")
    parser.add_argument("--seeds", type=seeds_of, required=True, help="such as 1-8, or 1,2,5")
    parser.add_argument("--epochs", type=int, help="of 002: stop after so many (all 100)")
    parser.add_argument("--grids", type=Path, help="of 004: folder for each seed's class grids")
    parser.add_argument("--output", type=Path, required=True, help="the file to make or to extend")
    options = parser.parse_args(arguments)
    if options.epochs is not None and options.document != "002":
        parser.error("--epochs is for document 002")
    if options.grids is not None and options.document != "004":
        parser.error("--grids is for document 004")
    for folder in (options.output.parent, options.grids):  # a wrong one would cost the first run
        if folder is not None and not folder.is_dir():
            parser.error(f"there is no folder {folder}")
    document = record.DOCUMENTS[options.document]
    try:
        text = options.program.read_text(encoding="utf-8")
        program = text if options.program.suffix == ".py" else document.program(text)
        job = Job(
            program=record.with_changes(program, document.changes),
            document=options.document,
            data=options.data.resolve(),
            epochs=options.epochs,
        )
        grids = options.grids.resolve() if options.grids else None
        extend(options.output, job, options.seeds, grids)
    except (record.RecordingError, ImportError, OSError) as error:
        print(f"whole_runs.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
