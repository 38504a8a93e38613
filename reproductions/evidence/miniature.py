"""The whole program in miniature: a port's command path against the original, to its last line.

The original ran on a few hundred images until it had printed, returned and shown everything (see
`reproductions/golden/README.md`). Here the port does the same by the code that trains and draws for
a user: `experiment`, `fit`, what it reports and validates, and the arrays that its pictures give to
Matplotlib. What differs first is named by its rung: variables, initial values, data, forward pass,
update, later steps, evaluation, pictures.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import chance
from common.datasets import Dataset
from common.errors import BadInput
from common.evaluation import encode_test_set
from common.program import Program, usual_pictures
from common.runs import read_npz
from common.training import Experiment, Listener, Progress, fit
from reproductions.evidence.documents import DOCUMENTS, of_number
from reproductions.evidence.lockstep import HORIZON, VARIABLE_FLOOR, VARIABLE_LEARNING_RATES
from reproductions.golden.record import sketch, tiles

FLOOR = {"float32": 1e-5, "float64": 1e-10}  # of numbers, relative; of pixels, absolute
ENVELOPES = 10
# Of variables and slots, relative to their norm. Measured in float64: 1e-13 at most.
ARRAY_FLOOR = {"float32": VARIABLE_FLOOR["float32"], "float64": 1e-10}
SIDE = 28  # pixels along a side of an image
ROUNDED = 0.501  # of a grey level: how far rounding to whole ones moves it
PRINTED = re.compile(r"(?:cost=|Loss:) (-?[\d.]+)")  # the number in a line that the port prints
# What every miniature has, see golden/README.md.
WORDS = {
    "document", "precision", "seed", "steps", "training_images", "test_images", "marks", "slots",
    "variables", "printed", "calls",
}  # fmt: skip
COMPARED = ("loss", "numbers", "weights", "slots", "tiles", "whole")  # each with an envelope
NUMBERS = {"initial", "first_batch", *COMPARED, *(f"{name}_envelope" for name in COMPARED)}
RUNGS = {
    "variables": "the model has other layers, or they come in another order",
    "initial values": "look at the initializer and at the order of its draws",
    "data": "look at the preprocessing, the reader's order and the images held back",
    "forward pass": "look at the layers, the sampling, the loss and its reduction",
    "update": "the first loss is right: look at gradients, optimiser and slots",
    "later steps": "the first update is right: look at the optimiser's schedule, batches and noise",
    "evaluation": "training is right: look at what is validated, averaged and printed",
    "pictures": "the model is right: look at the codes, their order and the colour map",
}


class Recording(NamedTuple):
    """What an original did: `miniature-*.json` and `.npz`."""

    words: dict[str, Any]
    numbers: dict[str, np.ndarray]


class Difference(NamedTuple):
    """Something that differs from the original."""

    rung: str  # a key of RUNGS
    what: str

    def __str__(self) -> str:
        return f"{self.rung}: {self.what} ({RUNGS[self.rung]})"


def find(folder: Path, modules: Collection[str], precision: str) -> Iterator[tuple[str, Recording]]:
    """The miniatures below a folder that are asked for: (module, recording)."""
    for path in sorted([*folder.glob("miniature-*.json"), *folder.glob("*/miniature-*.json")]):
        recording = load(path)
        document = of_number(recording.words["document"])
        if document is None or document.module not in modules:
            continue
        if precision in ("both", recording.words["precision"]):
            yield document.module, recording


def load(path: Path) -> Recording:
    """Reads a miniature.

    Raises:
      BadInput: one of its two files is missing or damaged.
    """
    try:
        numbers = read_npz(path.with_suffix(".npz").read_bytes())
        words = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(words, dict):
            raise ValueError("not an object")
        missing = (WORDS - words.keys()) | (NUMBERS - numbers.keys())
        if missing:
            raise ValueError(f"without {', '.join(sorted(missing))}")
        return Recording(words, numbers)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no whole miniature ({error})") from error


# --- What the port does ---------------------------------------------------------------------------


class Replay(NamedTuple):
    """What a port did in miniature."""

    experiment: Experiment
    progress: Progress
    numbers: dict[str, np.ndarray]  # as in the recording, as far as the port has them
    printed: list[str]  # line by line
    colour_maps: list[str]  # of the pictures, in the document's order


class Watch(Listener):
    """Listens to a training: sketches at the marks, lines, and what is drawn after each round."""

    def __init__(self, experiment: Experiment, marks: Sequence[int]) -> None:
        self._experiment, self._marks = experiment, marks
        self.initial = sketches(experiment.variables)
        self.weights: list[np.ndarray] = []
        self.slots: list[list[list[np.ndarray]]] = []
        self.reports: list[str] = []

    def on_steps(self, progress: Progress) -> None:
        if progress.step in self._marks:
            self.weights.append(sketches(self._experiment.variables))
            slots = self._experiment.optimizer.slots
            self.slots.append([[sketch(slot.numpy()) for slot in variable] for variable in slots])

    def on_round(self, progress: Progress, report: str | None) -> None:
        self.reports += [] if report is None else report.split("\n")


class Trained(NamedTuple):
    """What a port's training in miniature left, and what was seen of it."""

    experiment: Experiment
    progress: Progress
    watch: Watch
    pictures: SixteenCodes | None  # of 002


def replay(program: Program, recording: Recording, data: Dataset) -> Replay:
    """Runs a port's command path on the images and the chance of a miniature.

    Args:
      program: the port.
      recording: of its original.
      data: the port's data set, whole.
    """
    return read_off(program, recording, train(prepare(program, recording, data), recording))


def prepare(program: Program, recording: Recording, data: Dataset) -> Experiment:
    """The port's experiment, with the images and the chance of the miniature."""
    words = recording.words
    cut = dataclasses.replace(
        data,
        train_images=data.train_images[: words["training_images"][1]],
        train_labels=data.train_labels[: words["training_images"][1]],
        test_images=data.test_images[: words["test_images"][1]],
        test_labels=data.test_labels[: words["test_images"][1]],
    )
    settings = {f.name for f in dataclasses.fields(program.config)}
    config = program.config(**({"steps": words["steps"]} if "steps" in settings else {}))
    miniature = chance.Miniature(words["seed"])
    experiment = program.experiment(config, cut, miniature, words["precision"])
    return dataclasses.replace(experiment, block=1)  # so that every mark can be looked at


def train(experiment: Experiment, recording: Recording) -> Trained:
    """Trains to the end as a run does, and looks where the recording did."""
    watch = Watch(experiment, recording.words["marks"])
    pictures = SixteenCodes(experiment) if recording.words["document"] == "002" else None
    listeners: list[Listener] = [watch, *([] if pictures is None else [pictures])]
    progress = fit(experiment, listeners=listeners)
    return Trained(experiment, progress, watch, pictures)


def read_off(program: Program, recording: Recording, trained: Trained) -> Replay:
    """Makes the results and the pictures of a trained model; all numbers as the recording has."""
    experiment, progress, watch, pictures = trained
    rows = progress.rows
    results = program.results(experiment)
    printed = [float(number) for line in watch.reports for number in PRINTED.findall(line)]
    scatter = any(call.startswith("scatter") for call in recording.words["calls"])
    shown = document_pictures(program, experiment, progress, scatter)
    numbers = {
        "initial": watch.initial,
        "loss": progress.losses[:, 0],
        "weights": np.array(watch.weights),
        "slots": np.array(watch.slots),
        "numbers": np.array(
            [row["test_elbo"] for row in rows]
            if "test_elbo" in rows[0]
            else printed + ([results["result"]] if "result" in results else [])
        ),
        "history_loss": np.array([row["loss"] for row in rows]),
        "history_val_loss": np.array([row.get("val_loss", np.nan) for row in rows]),
        "whole": np.concatenate([*shown.points, np.ravel(results.get("class_mean", []))]),
        "tiles": np.array(shown.tiles if pictures is None else pictures.tiles),
    }
    return Replay(experiment, progress, numbers, watch.reports, shown.colour_maps)


class SixteenCodes(Listener):
    """Listens to 002: the picture that it draws before training and after each epoch."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._codes = experiment.chance.codes("frame", (16, experiment.latent_dim))
        self.tiles: list[np.ndarray] = []
        self._draw(experiment.frame())

    def on_round(self, progress: Progress, report: str | None) -> None:
        self._draw(progress.frames[-1])

    def _draw(self, frame: np.ndarray) -> None:
        """Keeps the pictures in full; the run's frame must show what `imshow` makes of them."""
        from matplotlib.colors import Normalize

        pictures = self._experiment.pictures_of(self._codes, np.zeros(16))
        for k, picture in enumerate(pictures):
            row, column = divmod(k, 4)
            drawn = frame[row * (SIDE + 2) :, column * (SIDE + 2) :][:SIDE, :SIDE]
            off = np.abs(drawn - 255 * Normalize()(picture)).max()
            self.tiles.append(sketch(picture if off <= ROUNDED else drawn / 255))


class Shown(NamedTuple):
    """What a port gave to Matplotlib for its document's pictures."""

    tiles: list[np.ndarray]  # sketches of the images of every canvas, row by row
    points: list[np.ndarray]  # x, y and label of every point of a scatter
    colour_maps: list[str]


def document_pictures(
    program: Program, experiment: Experiment, progress: Progress, scatter: bool
) -> Shown:
    """Draws a run's pictures and reads off those that the document has."""
    document = DOCUMENTS[program.name]
    posterior = encode_test_set(experiment)
    figures: dict[str, Any] = usual_pictures(program, experiment, progress, posterior)
    figures |= program.pictures(experiment, progress)
    shown = Shown([], [], [])
    for name in [*(["latent"] if scatter else []), *document.pictures]:
        axes = figures[f"{name}.png"].axes[0]
        for image in axes.get_images():
            assert image.origin == "upper"
            canvas = np.asarray(image.get_array(), np.float64)
            shown.tiles.extend(sketch(tile) for tile in tiles(canvas))
            shown.colour_maps.append(image.get_cmap().name)
        for points in axes.collections:
            x, y = np.asarray(points.get_offsets(), np.float64).T
            shown.points.extend([x, y, np.asarray(points.get_array(), np.float64)])
    return shown


def sketches(variables: Sequence[Any]) -> np.ndarray:
    """Sketches of variables, [variables, 26]."""
    return np.array([sketch(variable.numpy()) for variable in variables])


def distance(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Estimate of the L2 distance of arrays by their sketches [..., 26]."""
    return np.sqrt(np.mean((ours[..., 10:] - theirs[..., 10:]) ** 2, axis=-1))


# --- Comparing ------------------------------------------------------------------------------------


HEADER = (
    f"{'module':12} {'precision':9} {'steps':>5} {'numbers':>7} {'largest difference':>18} "
    f"{'images':>6} {'rms of an image':>18}  verdict"
)


def as_entry(module: str, recording: Recording, ours: Replay) -> dict[str, Any]:
    """A line of the table, as JSON. Numbers beyond the horizon are not counted."""
    apart = [np.zeros(0)]
    for key in ("numbers", "history_loss", "history_val_loss"):
        theirs, mine = recording.numbers.get(key), ours.numbers[key]
        if theirs is not None and len(theirs) == len(mine):
            apart.append(np.abs(mine / theirs - 1)[np.isfinite(_allowed(recording, key))])
    numbers = np.concatenate(apart)
    theirs, mine = recording.numbers["tiles"], ours.numbers["tiles"]
    within = np.isfinite(_allowed(recording, "tiles"))
    pixels = distance(mine, theirs)[within] / SIDE if mine.shape == theirs.shape else np.zeros(0)
    differences = compare(recording, ours)
    return {
        "module": module,
        "precision": recording.words["precision"],
        "steps": recording.words["steps"],
        "numbers": len(numbers),
        "largest_difference": float(max(numbers, default=0)),
        "images": len(pixels),
        "largest_rms_of_an_image": float(max(pixels, default=0)),
        "passed": not differences,
        "problems": [str(difference) for difference in differences],
    }


def as_line(entry: dict[str, Any]) -> str:
    """A line of the table, as text."""
    return (
        f"{entry['module']:12} {entry['precision']:9} {entry['steps']:5} {entry['numbers']:7} "
        f"{entry['largest_difference']:18.1e} {entry['images']:6} "
        f"{entry['largest_rms_of_an_image']:18.1e}  {'equal' if entry['passed'] else 'DIFFERENT'}"
    )


def compare(recording: Recording, ours: Replay) -> list[Difference]:
    """What differs from the original, from the lowest rung up; empty if nothing does."""
    others = list(_variables(recording, ours))  # beside which nothing else can be compared
    return others or [difference for check in CHECKS for difference in check(recording, ours)]


def _variables(recording: Recording, ours: Replay) -> Iterator[Difference]:
    theirs = [tuple(variable["shape"]) for variable in recording.words["variables"]]
    mine = [tuple(variable.shape) for variable in ours.experiment.variables]
    if mine != theirs:
        yield Difference("variables", f"shapes {mine}, recorded {theirs}")


def _initial_values(recording: Recording, ours: Replay) -> Iterator[Difference]:
    theirs = recording.numbers["initial"]
    allowed = 1e-12 * (1 + theirs[:, 1])
    bad = np.flatnonzero(~(distance(ours.numbers["initial"], theirs) <= allowed))
    yield from (Difference("initial values", _name(recording, int(i))) for i in bad[:1])


def _data(recording: Recording, ours: Replay) -> Iterator[Difference]:
    """The first batch as it enters the model."""
    experiment = ours.experiment
    first = experiment.batches(0)
    pixels = _module(experiment).inputs(experiment.images[first], experiment.dtype)
    theirs = recording.numbers["first_batch"][0]
    if not distance(sketch(pixels.numpy()), theirs) <= 1e-12 * theirs[1]:
        yield Difference("data", "the pixels of the first batch")


def _first_loss(recording: Recording, ours: Replay) -> Iterator[Difference]:
    yield from _numbers(recording, ours, "loss", "forward pass", slice(0, 1), "the loss of step {}")


def _first_update(recording: Recording, ours: Replay) -> Iterator[Difference]:
    yield from _arrays(recording, ours, "update", slice(0, 1))


def _later_steps(recording: Recording, ours: Replay) -> Iterator[Difference]:
    yield from _numbers(
        recording, ours, "loss", "later steps", slice(1, None), "the loss of step {}"
    )
    yield from _arrays(recording, ours, "later steps", slice(1, None))


def _evaluation(recording: Recording, ours: Replay) -> Iterator[Difference]:
    whole = slice(None)
    yield from _numbers(recording, ours, "numbers", "evaluation", whole, "printed number {}")
    for key in ("history_loss", "history_val_loss"):
        if key in recording.numbers:
            what = f"{key.removeprefix('history_')} of epoch {{}}"
            yield from _numbers(recording, ours, key, "evaluation", whole, what)
    lines = [line for line in recording.words["printed"] if PRINTED.search(line)]
    expected = [PRINTED.sub("", line) for line in lines]
    printed = [PRINTED.sub("", line) for line in ours.printed if PRINTED.search(line)]
    if expected and printed != expected:
        yield Difference("evaluation", f"printed {printed[:3]} ..., recorded {expected[:3]} ...")


def _pictures(recording: Recording, ours: Replay) -> Iterator[Difference]:
    theirs, mine = recording.numbers["tiles"], ours.numbers["tiles"]
    if mine.shape != theirs.shape:
        yield Difference("pictures", f"{len(mine)} images, recorded {len(theirs)}")
        return
    bad = np.flatnonzero(~(distance(mine, theirs) <= SIDE * _allowed(recording, "tiles")))
    for i in bad[:1]:
        yield Difference("pictures", f"{_place(recording, int(i))}, and {len(bad) - 1} more")
    apart = np.abs(ours.numbers["whole"] - recording.numbers["whole"])
    for i in np.flatnonzero(~(apart <= _allowed(recording, "whole")))[:1]:
        yield Difference("pictures", f"point or class mean number {i + 1}")
    maps = re.findall(r"cmap='(\w+)'", " ".join(recording.words["calls"]))
    if ours.colour_maps and ours.colour_maps != maps:
        yield Difference("pictures", f"colour maps {ours.colour_maps}, recorded {maps}")
    written = [
        int(re.findall(r"\d+", call)[0])
        for call in recording.words["calls"]
        if call.startswith("append_data")
    ]
    if written:
        kept = _module(ours.experiment).document_frames(len(ours.progress.frames))
        # The document adds its last picture once more, so it may be there twice.
        if kept != [k for k, before in zip(written, [-1, *written], strict=False) if k != before]:
            yield Difference("pictures", f"the GIF has the frames {kept}, recorded {written}")


CHECKS = (
    _initial_values,
    _data,
    _first_loss,
    _first_update,
    _later_steps,
    _evaluation,
    _pictures,
)


def _numbers(
    recording: Recording, ours: Replay, key: str, rung: str, part: slice, what: str
) -> Iterator[Difference]:
    """The first number of a series that differs by more than the floor and ten envelopes."""
    theirs, mine = recording.numbers[key], ours.numbers[key]
    if len(mine) != len(theirs):
        yield Difference(rung, f"{key}: {len(mine)} numbers, recorded {len(theirs)}")
        return
    bad = ~(np.abs(mine - theirs) <= _allowed(recording, key) * np.abs(theirs))
    for i in np.arange(len(theirs))[part][bad[part]][:1]:
        yield Difference(rung, f"{what.format(i + 1)} is {mine[i]:.12g}, recorded {theirs[i]:.12g}")


def _allowed(recording: Recording, key: str) -> np.ndarray:
    """How far a number may be off: the floor and ten envelopes; infinitely beyond the horizon."""
    precision, envelope = recording.words["precision"], recording.numbers[f"{key}_envelope"]
    allowed = FLOOR[precision] + ENVELOPES * envelope
    return np.where(envelope <= HORIZON[precision], allowed, np.inf)


def _arrays(recording: Recording, ours: Replay, rung: str, part: slice) -> Iterator[Difference]:
    """The first variable or slot that differs at one of the marks."""
    precision, marks = recording.words["precision"], np.array(recording.words["marks"])
    sizes = [float(np.prod(v.shape)) for v in ours.experiment.variables]
    rate = VARIABLE_LEARNING_RATES[precision] * ours.experiment.optimizer.learning_rate
    steps = rate * np.sqrt(np.outer(marks, sizes))  # see lockstep.py
    slots = ours.numbers["slots"].shape[2]  # fewer where the original keeps a momentum of zero
    for key in ("weights", "slots"):
        theirs, envelope = recording.numbers[key], recording.numbers[f"{key}_envelope"]
        if key == "slots":
            theirs, envelope = theirs[:, :, :slots], envelope[:, :, :slots]
        allowed = ARRAY_FLOOR[precision] * theirs[..., 1] + ENVELOPES * envelope
        if key == "weights":
            allowed = allowed + steps
        there = ~np.isnan(theirs[..., 1])  # the original has fewer slots for some variables
        bad = there & ~(distance(ours.numbers[key], theirs) <= allowed)
        for place in np.argwhere(bad[part])[:1]:
            name = _name(recording, int(place[1]))
            slot = f"slot {recording.words['slots'][place[2]]} of " if key == "slots" else ""
            yield Difference(rung, f"{slot}{name} after step {marks[part][place[0]]}")


def _place(recording: Recording, tile: int) -> str:
    """Where an image stands, in words."""
    if recording.words["document"] == "002":
        return f"epoch {tile // 16}, image {tile % 16 + 1} of 16"
    canvases = sum(call.startswith("imshow") for call in recording.words["calls"])
    images = len(recording.numbers["tiles"]) // canvases
    side = int(images**0.5)
    picture, image = divmod(tile, images)
    return f"picture {picture + 1}: row {image // side + 1}, column {image % side + 1}"


def _name(recording: Recording, variable: int) -> str:
    return str(recording.words["variables"][variable]["name"])


def _module(experiment: Experiment) -> Any:
    return sys.modules[type(experiment.config).__module__]
