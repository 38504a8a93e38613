"""Records what a document's own program does on the TensorFlow that it was written for.

    python3.7 record.py TEXT --document 000 --data DIR --output lockstep-float32.json
    python3.7 record.py TEXT --document 000 --data DIR --output miniature-float32.json --miniature

TEXT is the document's text. Its program runs as it is, in a process of its own; what it imports is
replaced around it. The random numbers and the initial weights follow the streams of README.md, and
the program's own training step reports its losses. For float64, the defaults and constants that say
float32 say float64.

Without --miniature the program sees the whole data set and is stopped after --steps steps. With it,
the program sees a few hundred images and runs to its last line, and what it prints, returns and
shows is kept.

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
import math
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
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # Python 3.7 could not evaluate these
    from collections.abc import Callable, Iterator, Sequence

    Array = np.ndarray
    Shape = tuple[int, ...]
    Namespace = dict[str, Any]  # of a program
    Variables = list[tuple[str, Any]]  # with their names, in the program's order
    Slots = list[list[Any]]  # of each variable

MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 400, 600, 1000, 2000, 3000)  # steps done: look at variables
PROJECTIONS = 16
IDX = {  # Keras's name of an array: the idx file's, and the shape
    "x_train": ("train-images-idx3-ubyte", (60_000, 28, 28)),
    "y_train": ("train-labels-idx1-ubyte", (60_000,)),
    "x_test": ("t10k-images-idx3-ubyte", (10_000, 28, 28)),
    "y_test": ("t10k-labels-idx1-ubyte", (10_000,)),
}
SHA256 = {  # of the four arrays, one after the other
    "mnist": "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
    "fashion_mnist": "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
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
    return _fences(text)[-1]


def _fences(text: str) -> list[str]:
    fences = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    if not fences:
        raise RecordingError("the text has no fenced block of Python")
    return fences


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
    content = b"".join(data[key].tobytes() for key in IDX)
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise RecordingError(f"the images and labels in {folder} are not those of {name}")
    return data


def _read_idx(folder: Path, name: str, shape: Shape) -> Array:
    for path, opener in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.exists():
            with opener(str(path), "rb") as stream:
                content = stream.read()
            header = 4 + 4 * len(shape)  # bytes
            return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    raise RecordingError(f"{folder} holds neither Keras's npz nor {name}[.gz]")


def write_idx(folder: Path, data: dict[str, Array]) -> None:
    """Writes a data set as the four packed idx files that TensorFlow 1's reader looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, (name, _) in IDX.items():
        header = np.array([0x800 + data[key].ndim, *data[key].shape], ">i4")  # 8: uint8
        with gzip.open(str(folder / f"{name}.gz"), "wb", compresslevel=1) as stream:
            stream.write(header.tobytes() + data[key].tobytes())


def batch_stream(seed: int, images: int, batch_size: int) -> Iterator[Array]:
    """Indices of the images of each step: permutations cut into batches, what is left dropped."""
    stream = np.random.RandomState(seed + 1)
    while True:
        order = stream.permutation(images)
        for start in range(0, images - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def further_noise(seed: int, number: int, shape: Shape) -> Array:
    """Noise that trains nothing, float32: of validation `number`, or 0: of the program's codes."""
    return np.random.RandomState([seed + 3, number]).standard_normal(shape).astype(np.float32)


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
    norm = np.sqrt((flat * flat).sum())  # not linalg.norm: BLAS adds in any order
    places = np.linspace(0, flat.size - 1, 8).astype(int)
    return [float(x) for x in (flat.sum(), norm, *flat[places])]


@functools.lru_cache(maxsize=None)  # noqa: UP033 (Python 3.7)
def signs(size: int) -> Array:
    """What the projections of `size` entries are made with: +1 or -1, [16, size]."""
    return np.random.RandomState(0).randint(0, 2, (PROJECTIONS, size)).astype(np.float64) * 2 - 1


def sketch(value: Array) -> Array:
    """An array in 26 numbers: its statistics, and sixteen sums of its entries under mixed signs.

    An entry that changes by d changes each of these sums by d or -d. The root of their mean square
    estimates the distance of two arrays: over random signs its square is right on the average.
    """
    flat = np.asarray(value, np.float64).ravel()
    return np.array([*statistics(value), *(signs(flat.size) @ flat)])


# --- One run of a program -------------------------------------------------------------------------


class Job(NamedTuple):
    """What one run of a program needs, sent to the process that runs it."""

    program: str
    document: str
    data: Path
    seed: int
    steps: int
    precision: str
    miniature: bool = False
    afterwards: str = ""  # in miniature: further code of the document, for what it shows
    run: int = 0  # 0: the recording itself; above: one of its envelope's runs


class Recorder:
    """Hands a program its chance and keeps what it reports."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.document = DOCUMENTS[job.document]
        self.dtype = np.dtype(job.precision)
        self.double = job.precision == "float64"
        self.data = read_data(job.data, self.document.data)
        if job.miniature:
            sizes = {"train": self.document.cut.train, "test": self.document.cut.test}
            self.data = {key: value[: sizes[key[2:]]] for key, value in self.data.items()}
        images = len(self.data["x_train"]) - self.document.first_image
        self.batches = batch_stream(job.seed, images, self.document.batch_size)
        self.noise_shape = (self.document.batch_size, self.document.latent_dim)
        self._order_stream = np.random.RandomState(job.seed + 1)
        self._noise_stream = np.random.RandomState(job.seed + 2)
        self._noise, self._noisy_steps = np.zeros(0), 0
        self.passes = 0  # over the training images, begun
        self.validation: int | None = None  # the one under way; None: training
        self.position = 0  # in it: images seen
        self.namespace: Namespace = {"__name__": "__main__"}
        self.variables: Variables = []
        self.initial_weights: list[Array] = []
        self.weights: dict[int, list[Array]] = {}  # steps done -> values at the marks
        self.slots: dict[int, list[list[Array]]] = {}
        self.loss: list[float] = []
        self.first_batch: list[Array] = []  # its pixels and, where they are used, its labels
        self.history: dict[str, list[float]] = {}  # of Keras
        self.calls: list[str] = []  # of pyplot and imageio
        self.arrays: list[Array] = []  # that the calls were given

    # What a program is given

    def permutation(self, images: int) -> Array:
        """The order of the next pass over the training images."""
        self.passes += 1
        return self._order_stream.permutation(images)

    def noise(self, shape: Any) -> Array:
        """The noise of the step or validation under way, a row an image, however shaped."""
        latent_dim = self.document.latent_dim
        images = int(np.prod(shape)) // latent_dim
        if self.validation is not None:
            everyone = (len(self.data["x_test"]), latent_dim)
            noise = further_noise(self.job.seed, self.validation, everyone)
            noise = noise[self.position : self.position + images]
            self.position += images
            return noise.astype(self.dtype)
        if self._noisy_steps == len(self.loss):  # a step may ask more than once
            drawn = self._noise_stream.standard_normal((images, latent_dim))
            self._noise = drawn.astype(np.float32)
            self._noisy_steps += 1
        return self._noise.astype(self.dtype)

    def codes(self, shape: Any) -> Array:
        """What the program draws beside: codes of a picture, or weights, which are replaced."""
        return further_noise(self.job.seed, 0, tuple(map(int, shape))).astype(self.dtype)

    def begin(self, write: Callable[[Any, Array], Any]) -> None:
        """Loads the initial weights before the first step; later it does nothing."""
        if self.variables:
            return
        self.variables = self.document.variables(self.namespace)
        shapes = [tuple(map(int, variable.shape)) for _, variable in self.variables]
        drawn = self.document.start(np.random.RandomState(self.job.seed), shapes)
        self.initial_weights = [value.astype(np.float32).astype(self.dtype) for value in drawn]
        for i, value in enumerate(nudged(self.initial_weights, self.job.run)):
            write(self.variables[i][1], value)

    # What it reports

    def step(self, loss: Any, read: Callable[[list[Any]], Sequence[Array]]) -> None:
        """Keeps the loss of a training step that was done and, at the marks, the variables.

        Raises:
          Finished: it was the last one of a program that is not let run to its end.
        """
        self.loss.append(float(loss))
        done = len(self.loss)
        last = done == self.job.steps
        if done in MARKS or (last and self.job.miniature):
            variables = [variable for _, variable in self.variables]
            self.weights[done] = list(read(variables))
            if self.job.miniature:
                slots = self.document.slots(self.namespace, variables)
                self.slots[done] = [list(read(of_one)) if of_one else [] for of_one in slots]
        if last and not self.job.miniature:
            raise Finished

    def look(self, *parts: Array) -> bool:
        """Keeps the first batch that the program trains on; returns whether it was that."""
        first = not self.first_batch
        if first:
            self.first_batch = [np.array(part) for part in parts]
        return first

    def call(self, name: str, *arguments: Any, **settings: Any) -> None:
        """Keeps a call as Python text, in which an array of 3 by 5 is `array[3, 5]`."""
        shown = [self._shown(value) for value in arguments]
        shown += [f"{key}={self._shown(value)}" for key, value in settings.items()]
        self.calls.append(f"{name}({', '.join(shown)})")
        if name == "savefig":
            Path(arguments[0]).touch()  # the document's next program looks for it

    def _shown(self, value: Any) -> str:
        if not hasattr(value, "__array__"):
            return repr(value)
        self.arrays.append(np.array(value))
        return f"array{list(self.arrays[-1].shape)}"


def tensorflow_of(document: str) -> Any:
    """TensorFlow, in a process that runs a document's program and nothing else.

    Raises:
      RecordingError: it is not the version that the document was written for.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    os.environ.pop("TF2_BEHAVIOR", None)  # a newer TensorFlow sets it for whatever it starts
    tf: Any = importlib.import_module("tensorflow")
    wanted = DOCUMENTS[document].tensorflow
    if tf.__version__ != wanted:
        raise RecordingError(f"document {document} needs TensorFlow {wanted}, not {tf.__version__}")
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    return tf


def run(job: Job) -> dict[str, Any]:
    """Runs a program and returns its part of a recording."""
    tf = tensorflow_of(job.document)
    recorder = Recorder(job)
    printed = execute(recorder)
    if len(recorder.loss) != job.steps:
        raise RecordingError(f"the program ended after {len(recorder.loss)} steps")
    probability = sys.modules.get("tensorflow_probability")
    names = [(name, list(map(int, variable.shape))) for name, variable in recorder.variables]
    result = {
        "tensorflow": tf.__version__,
        "tensorflow_probability": getattr(probability, "__version__", None),
        "variables": [{"name": name, "shape": shape} for name, shape in names],
        "loss": recorder.loss,
    }
    if job.miniature:
        return {**result, **report(recorder, printed)}
    looks = {str(mark): list(map(statistics, w)) for mark, w in recorder.weights.items()}
    initial = list(map(statistics, recorder.initial_weights))
    return {**result, "weights": looks, "initial_weights": initial}


def execute(recorder: Recorder) -> str:
    """Runs a program to its end, or to where it is finished; returns what it printed."""
    job = recorder.job
    recorder.document.attach(recorder)
    replace_pictures(recorder)
    home = os.getcwd()
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # some programs write pictures where they are
        try:
            with redirect_stdout(printed):
                for part in (job.program, job.afterwards):
                    code = compile(part, f"<document {job.document}>", "exec", dont_inherit=True)
                    exec(code, recorder.namespace)
        except Finished:
            pass
        finally:
            os.chdir(home)
    return printed.getvalue()


def report(recorder: Recorder, printed: str) -> dict[str, Any]:
    """What a program that ran to its end has reported."""
    document, namespace = recorder.document, recorder.namespace
    most = max(len(slots) for slots in recorder.slots[1])
    none = [math.nan] * (10 + PROJECTIONS)

    def of_all(slots: list[list[Array]]) -> list[Any]:
        return [[*map(sketch, s), *[none] * (most - len(s))] for s in slots]

    pictures = [a for a in recorder.arrays if a.ndim == 2]
    others = [a.ravel() for a in recorder.arrays if a.ndim != 2]
    others += [np.asarray(namespace[name]).ravel() for name in document.results]
    return {
        "marks": list(recorder.weights),
        "printed": printed.splitlines(),
        "calls": recorder.calls,
        "first_batch_shapes": [list(part.shape) for part in recorder.first_batch],
        **{f"history_{name}": row for name, row in recorder.history.items()},
        "passes": recorder.passes,
        "numbers": [float(x) for x in re.findall(document.printed or "$^", printed)],
        "initial": np.array([sketch(w) for w in recorder.initial_weights]),
        "weights": np.array([list(map(sketch, w)) for w in recorder.weights.values()]),
        "slots": np.array([of_all(slots) for slots in recorder.slots.values()]),
        "first_batch": np.array([sketch(part) for part in recorder.first_batch]),
        "tiles": np.array([sketch(tile) for picture in pictures for tile in tiles(picture)]),
        "whole": np.concatenate([np.zeros(0), *others]),
    }


def tiles(picture: Array) -> Iterator[Array]:
    """The images of 28 x 28 pixels that make up a picture, row by row."""
    height, width = picture.shape
    for top in range(0, height, 28):
        for left in range(0, width, 28):
            yield picture[top : top + 28, left : left + 28]


# --- What is replaced around a program ------------------------------------------------------------


def replace_normal(place: Any, name: str, recorder: Recorder) -> None:
    """Puts the noise stream in the place of a normal generator.

    A shape that only the graph knows, or of one batch's codes, asks for the noise of a step or a
    validation. Other draws are initial weights, which are loaded later, or codes of a picture.
    """
    tf: Any = importlib.import_module("tensorflow")

    def normal(shape: Any, *_: Any, **__: Any) -> Any:
        if isinstance(shape, tf.Tensor) or tuple(shape) == recorder.noise_shape:
            shape = tf.convert_to_tensor(shape)
            return tf.reshape(tf.numpy_function(recorder.noise, [shape], recorder.dtype), shape)
        return tf.constant(recorder.codes(shape))

    setattr(place, name, normal)


def replace_load_data(keras: Any, recorder: Recorder) -> None:
    """Lets a Keras data set hold the images of all steps, in the order of the steps.

    In miniature: the first images of the data set, as they are.
    """
    data = recorder.data
    order = np.arange(len(data["x_train"]))
    if not recorder.job.miniature:
        order = np.concatenate([next(recorder.batches) for _ in range(recorder.job.steps)])
    train, test = (data["x_train"][order], data["y_train"][order]), (data["x_test"], data["y_test"])
    getattr(keras.datasets, recorder.document.data).load_data = lambda: (train, test)


def replace_pipeline(tf: Any, recorder: Recorder) -> None:
    """Replaces the shuffling of tf.data and, for float64, casts its batches up.

    The data set that is shuffled first, and batched first, is the training set. In miniature each
    pass over it has an order of the stream; all else keeps its order.
    """
    dataset = tf.data.Dataset
    plain_batch = dataset.batch
    seen = {"shuffle": 0, "batch": 0}

    def shuffle(self: Any, buffer_size: int) -> Any:
        seen["shuffle"] += 1
        if not recorder.job.miniature or seen["shuffle"] > 1:
            return self
        images = len(recorder.data["x_train"])
        everything = tf.data.experimental.get_single_element(plain_batch(self, images))
        orders = (i for _ in itertools.count() for i in recorder.permutation(images))

        def draw(_: Any) -> Any:
            index = tf.numpy_function(lambda: next(orders), [], tf.int64)
            index.set_shape([])
            return tf.nest.map_structure(lambda part: tf.gather(part, index), everything)

        return dataset.range(images).map(draw)

    def cast_up(part: Any) -> Any:
        return tf.cast(part, recorder.dtype) if part.dtype.is_floating else part

    def look(*parts: Any) -> Any:
        parts = parts if len(parts) > 1 else parts[0]
        kept = tf.numpy_function(recorder.look, tf.nest.flatten(parts), tf.bool)
        with tf.control_dependencies([kept]):
            return tf.nest.map_structure(lambda part: cast_up(tf.identity(part)), parts)

    def batch(self: Any, batch_size: int) -> Any:
        seen["batch"] += 1
        batches = plain_batch(self, batch_size)
        if recorder.job.miniature and seen["batch"] == 1:
            return batches.map(look)
        if recorder.double:
            return batches.map(
                lambda *parts: tf.nest.map_structure(cast_up, parts if len(parts) > 1 else parts[0])
            )
        return batches

    dataset.shuffle = shuffle
    dataset.batch = batch


def record_fit(keras: Any, recorder: Recorder) -> None:
    """Watches `Model.fit`."""

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            recorder.begin(keras.backend.set_value)

        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            recorder.step(logs["loss"], keras.backend.batch_get_value)

        def on_test_begin(self, logs: Any = None) -> None:
            recorder.validation = recorder.passes

        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            recorder.position = batch * recorder.document.batch_size

        def on_test_end(self, logs: Any = None) -> None:
            recorder.validation = None

    plain_fit = keras.Model.fit

    def fit(self: Any, x: Any, **settings: Any) -> Any:
        def shuffle(order: Array) -> None:  # Keras shuffles the images of a validation, too
            if recorder.validation is None:
                order[:] = recorder.permutation(len(order))
                recorder.look(x[order[: recorder.document.batch_size]])

        numpy_random: Any = np.random
        numpy_random.shuffle = shuffle
        if not recorder.job.miniature:
            settings.update(shuffle=False)  # the images come in the order of the steps
        history = plain_fit(self, x, callbacks=[Watch()], **settings)
        recorder.history = {name: list(map(float, row)) for name, row in history.history.items()}
        return history

    keras.Model.fit = fit


def replace_reader(recorder: Recorder) -> None:
    """000, 003: the batches of the stream in the place of `read_data_sets`.

    In miniature the reader is TensorFlow's own, and reads files of the first images. It shuffles
    what it has shuffled before; the orders that come of that are the stream's.
    """
    reader: Any = importlib.import_module("tensorflow.examples.tutorials.mnist.input_data")
    images = recorder.data["x_train"][recorder.document.first_image :].reshape(-1, 784)
    plain_read = reader.read_data_sets

    def next_batch(batch_size: int) -> tuple[Array, None]:
        pixels = images[next(recorder.batches)]
        return pixels.astype(np.float32) * np.float32(1 / 255), None  # no program uses the labels

    def read_data_sets(folder: str, **settings: Any) -> Any:
        if not recorder.job.miniature:
            train = SimpleNamespace(num_examples=len(images), next_batch=next_batch)
            return SimpleNamespace(train=train)
        write_idx(Path(folder), recorder.data)
        return plain_read(folder, **settings)

    before = np.arange(len(images))

    def shuffle(order: Array) -> None:
        wanted = recorder.permutation(len(order))
        order[:] = np.argsort(before)[wanted]
        before[:] = wanted

    numpy_random: Any = np.random
    numpy_random.shuffle = shuffle
    reader.read_data_sets = read_data_sets


def attach_placeholders(recorder: Recorder) -> None:
    """000, 003: the reader, and sessions that run [training step, loss]."""
    tf: Any = importlib.import_module("tensorflow")
    replace_reader(recorder)
    replace_normal(tf, "random_normal", recorder)

    plain_run = tf.Session.run

    def session_run(self: Any, fetches: Any, *args: Any, **settings: Any) -> Any:
        if not isinstance(fetches, list):  # an initialiser, the test cost, a picture
            recorder.validation, recorder.position = 0, 0
            results = plain_run(self, fetches, *args, **settings)
            recorder.validation = None
            return results
        recorder.begin(lambda variable, value: variable.load(value, self))
        recorder.look(*settings["feed_dict"].values())
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
    # In single precision Keras rounds the pixels so; of a float32 array the program makes these.
    for key in ("x_train", "x_test"):
        recorder.data[key] = recorder.data[key].astype(np.float32)
    replace_load_data(tf.keras, recorder)
    replace_normal(tf, "random_normal", recorder)
    record_fit(tf.keras, recorder)
    if recorder.double:
        tf.float32 = tf.float64


def attach_002(recorder: Recorder) -> None:
    """Gradient tapes: a step begins as its tape does and ends with `apply_gradients`.

    The program draws its first picture before it trains, so the initial weights are loaded when one
    of the model's networks is used for the first time.
    """
    tf: Any = importlib.import_module("tensorflow")
    tf.keras.backend.set_floatx(recorder.job.precision)
    replace_load_data(tf.keras, recorder)
    replace_pipeline(tf, recorder)
    replace_normal(tf.random, "normal", recorder)
    losses = []

    class Tape(tf.GradientTape):
        def __enter__(self) -> Any:
            recorder.validation = None
            return super().__enter__()

        def __exit__(self, *error: Any) -> None:
            recorder.validation, recorder.position = recorder.passes, 0  # unless another step comes
            super().__exit__(*error)

        def gradient(self, target: Any, sources: Any) -> Any:
            losses.append(target)
            return super().gradient(target, sources)

    network = tf.keras.Sequential
    plain_call = network.__call__

    def call(self: Any, *inputs: Any, **settings: Any) -> Any:
        if "model" in recorder.namespace:  # it is whole
            recorder.begin(lambda variable, value: variable.assign(value))
        return plain_call(self, *inputs, **settings)

    network.__call__ = call
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


def replace_pictures(recorder: Recorder) -> None:
    """Stand-ins for pyplot and imageio, which draw nothing."""

    class Pyplot(ModuleType):
        def __getattr__(self, name: str) -> Callable[..., None]:
            return functools.partial(recorder.call, name)

    class Writer:
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            recorder.call("get_writer", *arguments, **settings)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

        def append_data(self, image: Any) -> None:
            recorder.call("append_data", image)

    matplotlib: Any = ModuleType("matplotlib")
    matplotlib.pyplot = Pyplot("matplotlib.pyplot")
    imageio: Any = ModuleType("imageio")
    imageio.imread, imageio.get_writer = str, Writer  # an image is its file's name
    sys.modules.update({"matplotlib": matplotlib, "matplotlib.pyplot": matplotlib.pyplot})
    sys.modules.update({"imageio": imageio, "PIL": ModuleType("PIL")})


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


def slots_by_name(namespace: Namespace, variables: Sequence[Any]) -> Slots:
    """000, 003: TensorFlow 1 names a variable's slots after it, and makes them in order."""
    tf: Any = importlib.import_module("tensorflow")
    made = tf.global_variables()
    return [[slot for slot in made if slot.name.startswith(f"{v.op.name}/")] for v in variables]


def slots_of_nadam(namespace: Namespace, variables: Sequence[Any]) -> Slots:
    """001: the step count and the schedule's product, then all first and all second slots."""
    slots = namespace["vae"].optimizer.weights[2:]
    count = len(variables)
    return [[slots[i], slots[count + i]] for i in range(count)]


def slots_of(optimizer: Callable[[Namespace], Any]) -> Callable[..., Slots]:
    """002, 004: `tf.keras`'s own Adam."""

    def slots(namespace: Namespace, variables: Sequence[Any]) -> Slots:
        return [[optimizer(namespace).get_slot(v, name) for name in "mv"] for v in variables]

    return slots


class Cut(NamedTuple):
    """The data set of a miniature: so many of the first images, and the steps that they make."""

    train: int  # with those that are held back
    test: int
    steps: int


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
    cut: Cut
    slots: Callable[[Namespace, Sequence[Any]], Slots]  # of each variable: the optimiser's
    slot_names: tuple[str, ...]
    printed: str | None = None  # an expression for the numbers that it prints
    results: tuple[str, ...] = ()  # numbers that it computes and keeps under these names
    afterwards: Callable[[str], str] = lambda text: ""  # further code, see `Job`
    changes: tuple[tuple[str, str], ...] = ()  # (old, new), see `with_changes`
    changes_in_miniature: tuple[tuple[str, str], ...] = ()


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
        cut=Cut(train=5300, test=300, steps=100),
        slots=slots_by_name,
        slot_names=("m", "v"),
        printed=r"(?:cost=|result: ) *(\S+)",
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
        cut=Cut(train=300, test=200, steps=90),
        slots=slots_of_nadam,
        slot_names=("m", "v"),
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
        cut=Cut(train=200, test=200, steps=200),
        slots=slots_of(lambda namespace: namespace["optimizer"]),
        slot_names=("m", "v"),
        printed=r"Test set ELBO: ([^,]+),",
        afterwards=lambda text: _fences(text)[-2],  # makes the GIF
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
        cut=Cut(train=5300, test=300, steps=70),
        slots=slots_by_name,
        slot_names=("mean square", "momentum"),
        printed=r"Loss: (\S+)",
        changes_in_miniature=(("num_steps = 3000", "num_steps = 70"),),
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
        cut=Cut(train=608, test=352, steps=45),
        slots=slots_of(lambda namespace: namespace["vae"].optimizer),
        slot_names=("m", "v"),
        results=("class_mean",),
        afterwards=lambda text: "digit = 9" + last_fence(text).split("digit = 8")[1],  # its second
        changes=((", input_shape=input_shape)", ")"),),
    ),
}


# --- The recording --------------------------------------------------------------------------------


def in_its_own_process(job: Any, function: Callable[[Any], Any] = run) -> Any:
    """`function(job)`; nothing is left from an earlier run, and nothing replaced stays so."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, job).result()


def envelope(loss: Sequence[float], others: Sequence[Sequence[float]]) -> list[float]:
    """How far the other runs have strayed by each step: the largest relative difference so far."""
    strayed = np.abs(np.reshape(others, (len(others), len(loss))) - loss) / np.abs(loss)
    so_far = np.maximum.accumulate(strayed.max(axis=0, initial=0))
    return [float(f"{d:.3g}") for d in so_far]


def distance(sketches: Array, others: Sequence[Array]) -> Array:
    """How far the other runs are from these sketches [..., 26]: the largest distance, [...]."""
    if not others or not sketches.size:
        return np.zeros(sketches.shape[:-1])
    differences = (np.stack(others) - sketches)[..., -PROJECTIONS:]
    return np.sqrt((differences**2).mean(axis=-1)).max(axis=0)


def changes_to(document: Document, miniature: bool) -> Sequence[tuple[str, str]]:
    """What is changed in the document's program."""
    return document.changes + (document.changes_in_miniature if miniature else ())


def record(job: Job, envelope_runs: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """Makes a recording: the content of its JSON file, and the arrays beside it."""
    document = DOCUMENTS[job.document]
    result = in_its_own_process(job)
    runs = range(1, envelope_runs + 1)
    others = [in_its_own_process(job._replace(run=k)) for k in runs]
    content = {
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
        "envelope_runs": envelope_runs,
        "changes_to_the_text": changes_to(document, job.miniature),
    }
    if job.miniature:
        return {**content, **of_miniature(result, document)}, kept(result, others)
    losses = [run["loss"] for run in (result, *others)]
    return {
        **content,
        "loss": losses[0],
        "envelope": envelope(losses[0], losses[1:]),
        "weights": result["weights"],
        "initial_weights": result["initial_weights"],
    }, {"loss": np.array(losses)}


def of_miniature(result: dict[str, Any], document: Document) -> dict[str, Any]:
    """The part of a miniature that is text and names."""
    return {
        "training_images": [document.first_image, document.cut.train],
        "test_images": [0, document.cut.test],
        "passes": result["passes"],
        "slots": document.slot_names,
        "results": document.results,
        "marks": result["marks"],
        "first_batch_shapes": result["first_batch_shapes"],
        "printed": result["printed"],
        "calls": result["calls"],
    }


def kept(result: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Array]:
    """The part of a miniature that is numbers, each with its envelope."""
    arrays = {key: result[key] for key in ("initial", "first_batch")}
    for key in ("weights", "slots", "tiles"):
        arrays[key] = result[key]
        arrays[f"{key}_envelope"] = distance(result[key], [other[key] for other in others])
    arrays["whole"] = result["whole"]
    strayed = np.abs([other["whole"] - result["whole"] for other in [result, *others]])
    arrays["whole_envelope"] = strayed.max(axis=0)
    for key in ("loss", "numbers", *(key for key in result if key.startswith("history_"))):
        so_far = envelope(result[key], [other[key] for other in others])
        arrays[key], arrays[f"{key}_envelope"] = np.array(result[key]), np.array(so_far)
    return arrays


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Record what a document's own program does.")
    parser.add_argument("text", type=Path, metavar="TEXT", help="the document's")
    parser.add_argument("--document", choices=sorted(DOCUMENTS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder: idx files or Keras's npz")
    parser.add_argument("--seed", type=int, default=9102, help="of the streams (9102)")
    parser.add_argument("--miniature", action="store_true", help="the whole program, on few images")
    parser.add_argument("--steps", type=int, default=200, help="training steps otherwise (200)")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    parser.add_argument("--envelope-runs", type=int, default=0, help="further, nudged runs (0)")
    parser.add_argument("--output", type=Path, required=True, help="the .json file to write")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if not options.output.parent.is_dir():
        parser.error(f"--output: there is no folder {options.output.parent}")
    if options.output.suffix != ".json":  # the arrays go beside it, into a .npz
        parser.error(f"--output: {options.output} does not end in .json")
    document = DOCUMENTS[options.document]
    try:
        text = options.text.read_text(encoding="utf-8")
        job = Job(
            program=with_changes(document.program(text), changes_to(document, options.miniature)),
            document=options.document,
            data=options.data,
            seed=options.seed,
            steps=document.cut.steps if options.miniature else options.steps,
            precision=options.precision,
            miniature=options.miniature,
            afterwards=document.afterwards(text) if options.miniature else "",
        )
        content, arrays = record(job, options.envelope_runs)
    except (RecordingError, ImportError, OSError) as error:
        print(f"record.py: {error}", file=sys.stderr)
        return 2
    options.output.write_text(json.dumps(content, indent=1), encoding="utf-8")
    save: Any = np.savez_compressed
    save(str(options.output.with_suffix(".npz")), **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
