"""Records what a document's own program does on the TensorFlow that it was written for.

    python3.7 record.py PROGRAM --document 000 --data DIR --output lockstep-float32.json

PROGRAM is the document's text, or its program as a .py file. It runs as it is, in a process of its
own; what it imports is replaced around it. The reader, the random numbers and the initial weights
follow the streams of README.md, the program's own training step reports its losses, and after the
last of them it is stopped. For float64, the defaults and constants that say float32 say float64.

Needs Python 3.7 with TensorFlow 1.14.0 (and TensorFlow Probability 0.7.0 for 004), or TensorFlow
2.0.0 for 002. Stands alone: imports nothing of this project, and repeats nothing of the documents
beyond the few names that it has to look for.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import importlib
import io
import itertools
import json
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import tokenize
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # Python 3.7 could not evaluate these
    from collections.abc import Callable, Iterator, Sequence

    Array = np.ndarray
    Shape = tuple[int, ...]
    Namespace = dict[str, Any]  # of a program
    Variables = list[tuple[str, Any]]  # with their names, in the program's order

MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 400, 600, 1000, 2000, 3000)  # steps done: look at variables
IDX = {  # Keras's name of an array: the idx file's, and the shape
    "x_train": ("train-images-idx3-ubyte", (60_000, 28, 28)),
    "y_train": ("train-labels-idx1-ubyte", (60_000,)),
    "x_test": ("t10k-images-idx3-ubyte", (10_000, 28, 28)),
    "y_test": ("t10k-labels-idx1-ubyte", (10_000,)),
}
SHA256 = {  # of the training images
    "mnist": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "fashion_mnist": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
}


class RecordingError(Exception):
    """Something the user can act on; the message is one line."""


class Finished(BaseException):
    """Ends a program after its last step. Not an Exception: no handler on the way may take it."""


# --- The program in a document's text -------------------------------------------------------------


def notebook_cells(text: str) -> str:
    """000, a printed notebook: what follows each "In [n]:", for as long as it is Python."""
    cells = re.split(r"^In \[\w*\]:$", text, flags=re.MULTILINE)[1:]
    if not cells:
        raise RecordingError("the text has no notebook cell")
    return "".join(_longest_program(cell.splitlines(keepends=True)) for cell in cells)


def _longest_program(lines: Sequence[str]) -> str:
    """The most of the first lines that compile: prose and printed results do not."""
    for end in range(len(lines), 0, -1):
        program = "".join(lines[:end])
        try:
            compile(program, "cell", "exec")
        except SyntaxError:
            continue
        return program
    return ""


def last_fence(text: str) -> str:
    """001, 002, 004: the last fenced block of Python; those before it show parts of it."""
    fences = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    if not fences:
        raise RecordingError("the text has no fenced block of Python")
    return fences[-1]


def flattened(text: str) -> str:
    """003, which lost its indentation: from the coding line to the prose, which is not ASCII."""
    lines = itertools.dropwhile(lambda line: not line.startswith("# -*- coding"), text.splitlines())
    program = list(itertools.takewhile(lambda line: line.split("#")[0].isascii(), lines))
    if not program:
        raise RecordingError("the text has no coding line")
    return indented("\n".join(program) + "\n")


class Statement(NamedTuple):
    """One logical line of a program."""

    text: str
    names: tuple[str, ...]  # keywords too, in order
    opens: bool  # a block

    @property
    def keyword(self) -> str:
        return self.names[0] if self.names else ""

    @property
    def binds(self) -> set[str]:
        """The names that the header of a loop or of a `with` gives their meaning."""
        if self.keyword == "for":
            return set(self.names[1 : self.names.index("in")])
        if self.keyword == "with":
            return set(self.names[self.names.index("as") + 1 :])
        return set()


def indented(flat: str) -> str:
    """Gives a program its blocks back. Comments are left out.

    A `def` reaches to its `return`. A `for` or a `with` reaches to the last statement that uses a
    name which its header binds, up to where the name is bound anew. Anything else (an `if`) holds
    one statement. And a block that holds a header holds all of that header's block.
    """
    statements = list(_statements(flat))
    depth = [0] * len(statements)
    ends: dict[int, int] = {}
    for start in reversed(range(len(statements))):
        if statements[start].opens:
            end = _end(statements, start)
            ends[start] = max([end, *(e for inner, e in ends.items() if inner < end)])
            for inside in range(start + 1, ends[start]):
                depth[inside] += 1
    return "".join(f"{'    ' * depth[i]}{s.text}\n" for i, s in enumerate(statements))


def _statements(flat: str) -> Iterator[Statement]:
    lines = flat.splitlines()
    tokens: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(flat).readline):
        if token.type == tokenize.NEWLINE:
            names = tuple(t.string for t in tokens if t.type == tokenize.NAME)
            text = "\n".join(lines[tokens[0].start[0] - 1 : token.start[0]])
            yield Statement(text, names, opens=tokens[-1].string == ":")
            tokens = []
        elif token.type not in (tokenize.NL, tokenize.COMMENT):
            tokens.append(token)


def _end(statements: Sequence[Statement], start: int) -> int:
    """The first statement after the block that `statements[start]` opens, by its own header."""
    header = statements[start]
    end = start + 2
    for i in range(start + 1, len(statements)):
        if header.keyword == "def" and statements[i].keyword == "return":
            return i + 1
        if header.binds & statements[i].binds:
            break
        if header.binds & set(statements[i].names):
            end = i + 1
    return end


def with_changes(program: str, changes: Sequence[tuple[str, str]]) -> str:
    """Makes the changes without which a program does not run; each must fit in one place only."""
    for old, new in changes:
        if program.count(old) != 1:
            raise RecordingError(f"{old!r} is {program.count(old)} times in the program, not once")
        program = program.replace(old, new)
    return program


# --- Data and streams -----------------------------------------------------------------------------


def read_data(folder: Path, name: str) -> dict[str, Array]:
    """A data set under Keras's names, uint8, from its npz or from the four idx files (or .gz)."""
    npz = folder / f"{name}.npz"
    if npz.exists():
        with np.load(str(npz)) as arrays:
            data = {key: arrays[key] for key in IDX}
    else:
        data = {key: _read_idx(folder, idx, shape) for key, (idx, shape) in IDX.items()}
    if hashlib.sha256(data["x_train"].tobytes()).hexdigest() != SHA256[name]:
        raise RecordingError(f"the training images in {folder} are not those of {name}")
    return data


def _read_idx(folder: Path, name: str, shape: Shape) -> Array:
    for path, opener in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.exists():
            with opener(str(path), "rb") as stream:
                content = stream.read()
            header = 4 + 4 * len(shape)  # bytes
            return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    raise RecordingError(f"{folder} holds neither Keras's npz nor {name}[.gz]")


def batch_stream(seed: int, images: int, batch_size: int) -> Iterator[Array]:
    """Indices of the images of each step: permutations cut into batches, what is left dropped."""
    stream = np.random.RandomState(seed + 1)
    while True:
        order = stream.permutation(images)
        for start in range(0, images - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def noise_stream(seed: int, shape: Shape) -> Iterator[Array]:
    """The noise of each step, float32."""
    stream = np.random.RandomState(seed + 2)
    while True:
        yield stream.standard_normal(shape).astype(np.float32)


def small_matrices(stream: np.random.RandomState, shapes: Sequence[Shape]) -> list[Array]:
    """000: small matrices, zero biases. The last matrix, w3, copies the variable before it."""
    values = [stream.normal(0, 0.001, s) if len(s) == 2 else np.zeros(s) for s in shapes]
    values[-2] = values[-3]
    return values


def by_first_dimension(stream: np.random.RandomState, shapes: Sequence[Shape]) -> list[Array]:
    """003: every variable, biases too."""
    return [stream.normal(0, 1 / np.sqrt(s[0] / 2), s) for s in shapes]


def glorot_uniform(stream: np.random.RandomState, shapes: Sequence[Shape]) -> list[Array]:
    """001, 002, 004: Keras's default for kernels, zero biases."""
    values = []
    for shape in shapes:
        if len(shape) == 1:
            values.append(np.zeros(shape))
        else:
            receptive_field = int(np.prod(shape[:-2]))
            limit = np.sqrt(6 / ((shape[-2] + shape[-1]) * receptive_field))
            values.append(stream.uniform(-limit, limit, shape))
    return values


def nudged(values: Sequence[Array], run: int) -> list[Array]:
    """Moves every weight by one unit in the last place, up or down; zeros stay. Run 0: no move."""
    if run == 0:
        return list(values)
    stream = np.random.RandomState(run)
    moved = []
    for value in values:
        direction = stream.choice([-np.inf, np.inf], value.shape).astype(value.dtype)
        moved.append(np.where(value == 0, value, np.nextafter(value, direction)))
    return moved


def statistics(value: Array) -> list[float]:
    """A variable in ten numbers: its sum, its L2 norm and eight of its entries."""
    flat = np.asarray(value, np.float64).ravel()
    norm = np.sqrt((flat * flat).sum())  # summed in pairs; linalg.norm loses digits
    places = np.linspace(0, flat.size - 1, 8).astype(int)
    return [float(x) for x in (flat.sum(), norm, *flat[places])]


# --- One run of a program -------------------------------------------------------------------------


class Job(NamedTuple):
    """What one run of a program needs, sent to the process that runs it."""

    program: str
    document: str
    data: Path
    seed: int
    steps: int
    precision: str
    run: int = 0  # 0: the recording itself; above: one of its envelope's runs


class Recorder:
    """Hands a program its chance, step by step, and keeps what it reports."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.document = DOCUMENTS[job.document]
        self.dtype = np.dtype(job.precision)
        self.double = job.precision == "float64"
        self.data = read_data(job.data, self.document.data)
        images = len(self.data["x_train"]) - self.document.first_image
        self.batches = batch_stream(job.seed, images, self.document.batch_size)
        self.noise_shape = (self.document.batch_size, self.document.latent_dim)
        self._noise_stream = noise_stream(job.seed, self.noise_shape)
        self._noise = next(self._noise_stream)
        self.namespace: Namespace = {"__name__": "__main__"}
        self.variables: Variables = []
        self.initial_weights: list[list[float]] = []
        self.weights: dict[str, list[list[float]]] = {}
        self.loss: list[float] = []

    def noise(self) -> Array:
        """The noise of the present step, however often it is asked for."""
        return self._noise.astype(self.dtype)

    def begin(self, write: Callable[[Any, Array], Any]) -> None:
        """Loads the initial weights before the first step; later it does nothing."""
        if self.variables:
            return
        self.variables = self.document.variables(self.namespace)
        shapes = [tuple(map(int, variable.shape)) for _, variable in self.variables]
        drawn = self.document.start(np.random.RandomState(self.job.seed), shapes)
        values = [value.astype(np.float32).astype(self.dtype) for value in drawn]
        self.initial_weights = [statistics(value) for value in values]
        for i, value in enumerate(nudged(values, self.job.run)):
            write(self.variables[i][1], value)

    def step(self, loss: Any, read: Callable[[list[Any]], Sequence[Array]]) -> None:
        """Keeps the loss of a training step that was done and, at the marks, the variables.

        Raises:
          Finished: it was the last one.
        """
        self.loss.append(float(loss))
        done = len(self.loss)
        if done in MARKS:
            values = read([variable for _, variable in self.variables])
            self.weights[str(done)] = [statistics(value) for value in values]
        if done == self.job.steps:
            raise Finished
        self._noise = next(self._noise_stream)


def run(job: Job) -> dict[str, Any]:
    """Runs a program and returns its part of a recording."""
    os.environ.update(MPLBACKEND="Agg", TF_CPP_MIN_LOG_LEVEL="2")
    os.environ.pop("TF2_BEHAVIOR", None)  # a newer TensorFlow sets it for whatever it starts
    tf: Any = importlib.import_module("tensorflow")
    document = DOCUMENTS[job.document]
    if tf.__version__ != document.tensorflow:
        raise RecordingError(
            f"document {job.document} needs TensorFlow {document.tensorflow}, not {tf.__version__}"
        )
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    recorder = Recorder(job)
    document.attach(recorder)
    code = compile(job.program, f"<document {job.document}>", "exec", dont_inherit=True)
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nowhere:
        os.chdir(scratch)  # some programs write pictures where they are
        try:
            with redirect_stdout(nowhere):
                exec(code, recorder.namespace)
        except Finished:
            pass
        finally:
            os.chdir(home)
    if len(recorder.loss) < job.steps:
        raise RecordingError(f"the program ended after {len(recorder.loss)} steps")
    probability = sys.modules.get("tensorflow_probability")
    return {
        "tensorflow": tf.__version__,
        "tensorflow_probability": getattr(probability, "__version__", None),
        "variables": [
            {"name": name, "shape": list(map(int, variable.shape))}
            for name, variable in recorder.variables
        ],
        "loss": recorder.loss,
        "weights": recorder.weights,
        "initial_weights": recorder.initial_weights,
    }


# --- What is replaced around a program ------------------------------------------------------------


def replace_normal(place: Any, name: str, recorder: Recorder) -> None:
    """Puts the noise stream in the place of a normal generator.

    A shape that only the graph knows, or of one batch's codes, asks for a step's noise. Other draws
    are initial weights, which are loaded later, or codes of a picture: they are zeros.
    """
    tf: Any = importlib.import_module("tensorflow")

    def normal(shape: Any, *_: Any, **__: Any) -> Any:
        if isinstance(shape, tf.Tensor) or tuple(shape) == recorder.noise_shape:
            return tf.reshape(tf.numpy_function(recorder.noise, [], recorder.dtype), shape)
        return tf.zeros(shape, dtype=recorder.dtype)

    setattr(place, name, normal)


def replace_load_data(keras: Any, recorder: Recorder) -> None:
    """Lets a Keras data set hold the images of all steps, in the order of the steps."""
    order = np.concatenate([next(recorder.batches) for _ in range(recorder.job.steps)])
    data = recorder.data
    train, test = (data["x_train"][order], data["y_train"][order]), (data["x_test"], data["y_test"])
    getattr(keras.datasets, recorder.document.data).load_data = lambda: (train, test)


def replace_pipeline(tf: Any, recorder: Recorder) -> None:
    """Takes the shuffling out of tf.data and, for float64, casts its batches up."""
    dataset = tf.data.Dataset
    plain_batch = dataset.batch

    def cast_up(part: Any) -> Any:
        return tf.cast(part, recorder.dtype) if part.dtype.is_floating else part

    def batch(self: Any, batch_size: int) -> Any:
        batches = plain_batch(self, batch_size)
        return batches.map(
            lambda *parts: tf.nest.map_structure(cast_up, parts if len(parts) > 1 else parts[0])
        )

    dataset.shuffle = lambda self, buffer_size: self
    if recorder.double:
        dataset.batch = batch


def record_fit(keras: Any, recorder: Recorder) -> None:
    """Watches `Model.fit`, which takes the images as they come."""

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            recorder.begin(keras.backend.set_value)

        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            recorder.step(logs["loss"], keras.backend.batch_get_value)

    plain_fit = keras.Model.fit

    def fit(self: Any, x: Any, **settings: Any) -> Any:
        if isinstance(x, np.ndarray):
            x = x.astype(np.float32)  # in single precision Keras does so itself
        settings.update(shuffle=False, callbacks=[Watch()])
        return plain_fit(self, x, **settings)

    keras.Model.fit = fit


def attach_placeholders(recorder: Recorder) -> None:
    """000, 003: `read_data_sets`, `next_batch`, and sessions that run [training step, loss]."""
    tf: Any = importlib.import_module("tensorflow")
    reader: Any = importlib.import_module("tensorflow.examples.tutorials.mnist.input_data")
    images = recorder.data["x_train"][recorder.document.first_image :].reshape(-1, 784)

    def next_batch(batch_size: int) -> tuple[Array, None]:
        pixels = images[next(recorder.batches)]
        return pixels.astype(np.float32) * np.float32(1 / 255), None  # no program uses the labels

    train = SimpleNamespace(num_examples=len(images), next_batch=next_batch)
    reader.read_data_sets = lambda *_, **__: SimpleNamespace(train=train)
    replace_normal(tf, "random_normal", recorder)

    plain_run = tf.Session.run

    def session_run(self: Any, fetches: Any, *args: Any, **settings: Any) -> Any:
        if not isinstance(fetches, list):  # an initialiser
            return plain_run(self, fetches, *args, **settings)
        recorder.begin(lambda variable, value: variable.load(value, self))
        results = plain_run(self, fetches, *args, **settings)
        recorder.step(results[1], lambda variables: plain_run(self, variables))
        return results

    tf.Session.run = session_run
    if recorder.double:
        tf.float32 = tf.float64
        tf.zeros = functools.partial(tf.zeros, dtype=tf.float64)
        tf.truncated_normal = functools.partial(tf.truncated_normal, dtype=tf.float64)


def attach_001(recorder: Recorder) -> None:
    """Arrays into `Model.fit`; the program takes everything from `tensorflow.python`."""
    tf: Any = importlib.import_module("tensorflow.python")
    tf.keras.backend.set_floatx(recorder.job.precision)
    replace_load_data(tf.keras, recorder)
    replace_normal(tf, "random_normal", recorder)
    record_fit(tf.keras, recorder)
    if recorder.double:
        tf.float32 = tf.float64


def attach_002(recorder: Recorder) -> None:
    """Gradient tapes: a step begins as its tape does and ends with `apply_gradients`."""
    tf: Any = importlib.import_module("tensorflow")
    tf.keras.backend.set_floatx(recorder.job.precision)
    replace_load_data(tf.keras, recorder)
    replace_pipeline(tf, recorder)
    replace_normal(tf.random, "normal", recorder)
    losses = []

    class Tape(tf.GradientTape):
        def __enter__(self) -> Any:
            recorder.begin(lambda variable, value: variable.assign(value))
            return super().__enter__()

        def gradient(self, target: Any, sources: Any) -> Any:
            losses.append(target)
            return super().gradient(target, sources)

    adam = tf.keras.optimizers.Adam
    plain_apply_gradients = adam.apply_gradients

    def apply_gradients(self: Any, gradients: Any) -> None:
        plain_apply_gradients(self, gradients)
        recorder.step(losses.pop(), tf.keras.backend.batch_get_value)

    tf.GradientTape = Tape
    adam.apply_gradients = apply_gradients

    def of_constants_too(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: function(tf.convert_to_tensor(x, recorder.dtype))

    if recorder.double:
        tf.exp, tf.math.log = of_constants_too(tf.exp), of_constants_too(tf.math.log)


def attach_004(recorder: Recorder) -> None:
    """tf.data into `Model.fit`; the noise is drawn inside TensorFlow Probability."""
    tf: Any = importlib.import_module("tensorflow.python")
    normal: Any = importlib.import_module("tensorflow_probability.python.distributions.normal")
    tf.keras.backend.set_floatx(recorder.job.precision)
    replace_load_data(tf.keras, recorder)
    replace_pipeline(importlib.import_module("tensorflow"), recorder)
    replace_normal(normal.tf.random, "normal", recorder)
    record_fit(tf.keras, recorder)


# --- The documents --------------------------------------------------------------------------------


def variables_000(namespace: Namespace) -> Variables:
    """By their keys in the program's dictionary; the variable that w3 is made from has none."""
    tf: Any = importlib.import_module("tensorflow")
    keys = {id(variable): key for key, variable in namespace["weights"].items()}
    return [(keys.get(id(v), "w3 (inner, never read)"), v) for v in tf.trainable_variables()]


def variables_003(namespace: Namespace) -> Variables:
    """By their keys in the program's two dictionaries."""
    groups = ("weights", "biases")
    return [(f"{group}.{key}", v) for group in groups for key, v in namespace[group].items()]


def variables_of(model: str) -> Callable[[Namespace], Variables]:
    """By their Keras names: those of the model that the program calls `model`."""
    return lambda namespace: [(v.name, v) for v in namespace[model].trainable_variables]


class Document(NamedTuple):
    """What has to be known of a document; the rest is in its program."""

    tensorflow: str
    data: str
    first_image: int  # of the training images: those before it are held back
    batch_size: int
    latent_dim: int
    program: Callable[[str], str]  # from the document's text
    variables: Callable[[Namespace], Variables]
    start: Callable[[np.random.RandomState, Sequence[Shape]], list[Array]]  # initial weights
    attach: Callable[[Recorder], None]
    changes: tuple[tuple[str, str], ...] = ()  # (old, new), see `with_changes`


DOCUMENTS = {
    "000": Document(
        tensorflow="1.14.0",
        data="mnist",
        first_image=5000,
        batch_size=128,
        latent_dim=2,
        program=notebook_cells,
        variables=variables_000,
        start=small_matrices,
        attach=attach_placeholders,
    ),
    "001": Document(
        tensorflow="1.14.0",
        data="fashion_mnist",
        first_image=0,
        batch_size=100,
        latent_dim=2,
        program=last_fence,
        variables=variables_of("vae"),
        start=glorot_uniform,
        attach=attach_001,
    ),
    "002": Document(
        tensorflow="2.0.0",
        data="mnist",
        first_image=0,
        batch_size=100,
        latent_dim=50,
        program=last_fence,
        variables=variables_of("model"),
        start=glorot_uniform,
        attach=attach_002,
    ),
    "003": Document(
        tensorflow="1.14.0",
        data="mnist",
        first_image=5000,
        batch_size=64,
        latent_dim=2,
        program=flattened,
        variables=variables_003,
        start=by_first_dimension,
        attach=attach_placeholders,
    ),
    "004": Document(
        tensorflow="1.14.0",
        data="mnist",
        first_image=0,
        batch_size=256,
        latent_dim=2,
        program=last_fence,
        variables=variables_of("vae"),
        start=glorot_uniform,
        attach=attach_004,
        changes=((", input_shape=input_shape)", ")"),),
    ),
}


# --- The recording --------------------------------------------------------------------------------


def in_its_own_process(job: Job) -> dict[str, Any]:
    """`run`, where no earlier run has left anything and nothing that it replaces stays replaced."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(run, job).result()


def envelope(loss: Sequence[float], others: Sequence[Sequence[float]]) -> list[float]:
    """How far the other runs have strayed by each step: the largest relative difference so far."""
    strayed = np.abs(np.reshape(others, (-1, len(loss))) - loss) / np.abs(loss)
    so_far = np.maximum.accumulate(strayed.max(axis=0, initial=0))
    return [float(f"{d:.3g}") for d in so_far]


def record(job: Job, envelope_runs: int) -> dict[str, Any]:
    """Makes a recording: the content of its file."""
    document = DOCUMENTS[job.document]
    result = in_its_own_process(job)
    runs = range(1, envelope_runs + 1)
    others = [in_its_own_process(job._replace(run=k))["loss"] for k in runs]
    return {
        "document": job.document,
        "tensorflow": result["tensorflow"],
        "tensorflow_probability": result["tensorflow_probability"],
        "numpy": np.__version__,
        "python": platform.python_version(),
        "precision": job.precision,
        "seed": job.seed,
        "steps": job.steps,
        "batch_size": document.batch_size,
        "latent_dim": document.latent_dim,
        "variables": result["variables"],
        "loss": result["loss"],
        "envelope": envelope(result["loss"], others),
        "envelope_runs": envelope_runs,
        "weights": result["weights"],
        "initial_weights": result["initial_weights"],
        "changes_to_the_text": document.changes,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Record what a document's own program does.")
    parser.add_argument("program", type=Path, metavar="PROGRAM", help="its text, or a .py file")
    parser.add_argument("--document", choices=sorted(DOCUMENTS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder: idx files or Keras's npz")
    parser.add_argument("--seed", type=int, default=9102, help="of the streams (9102)")
    parser.add_argument("--steps", type=int, default=200, help="training steps (200)")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    parser.add_argument("--envelope-runs", type=int, default=0, help="further, nudged runs (0)")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if not options.output.parent.is_dir():
        parser.error(f"--output: there is no folder {options.output.parent}")
    document = DOCUMENTS[options.document]
    try:
        text = options.program.read_text(encoding="utf-8")
        program = text if options.program.suffix == ".py" else document.program(text)
        job = Job(
            program=with_changes(program, document.changes),
            document=options.document,
            data=options.data,
            seed=options.seed,
            steps=options.steps,
            precision=options.precision,
        )
        content = record(job, options.envelope_runs)
    except (RecordingError, ImportError, OSError) as error:
        print(f"record.py: {error}", file=sys.stderr)
        return 2
    options.output.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
