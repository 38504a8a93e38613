"""Lockstep: a port and a recording of its original, step by step from the same weights, batches and
noise.

The format of a recording and the rule of equality are in `reproductions/golden/README.md`:

    |ours[t] - loss[t]| <= (FLOOR + 10 * envelope[t]) * |loss[t]|

for every step up to the horizon. The envelope is how far the original strays from itself when its
initial weights are moved by one unit in the last place; training is chaotic, and no port can follow
longer than that.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common import chance, datasets
from common.datasets import Dataset
from common.errors import BadInput
from common.program import Program
from common.training import Trainer
from reproductions import GOLDEN, program
from reproductions.evidence.documents import DOCUMENTS, of_number
from reproductions.golden import record

FLOOR = {"float32": 1e-5, "float64": 1e-12}  # of the rule above
HORIZON = {"float32": 1e-3, "float64": 1e-6}  # the largest envelope at which steps are compared
ENVELOPES = 10

# Variables, relative to their norm. Measured over all recordings: in float64 2e-14 at most before
# the envelope opens, and less than 30 envelopes after. In float32 Adam's and Nadam's first steps
# move an entry whose gradient is nearly zero by the whole learning rate, in the direction that
# rounding decides: on a processor without AVX-512, TensorFlow's own kernels put a bias of conv_vae
# 0.7 learning rates from the recording after 5 steps and 3 after 10. Two programs can be twice the
# learning rate apart after a step; further steps add up as a random walk does. So there the check
# is coarse, and the proof of the variables is the float64 one.
VARIABLE_FLOOR = {"float32": 5e-2, "float64": 1e-12}
VARIABLE_ENVELOPES = 100
VARIABLE_LEARNING_RATES = {"float32": 2.0, "float64": 0.0}  # times the root of the steps, absolute
STATISTICS = ("sum", "norm", *(f"entry {i} of 8" for i in range(1, 9)))
INITIAL_TOLERANCE = 1e-14  # the same float32 numbers, summed in another order
DIGITS_AT = (1, 10, 100)  # steps


# --- Recordings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """What an original program did, see `reproductions/golden/README.md`."""

    document: str  # "000" to "004"
    precision: str  # "float32" or "float64"
    seed: int
    batch_size: int
    latent_dim: int
    names: tuple[str, ...]  # of the variables, in the program's order
    shapes: tuple[tuple[int, ...], ...]
    loss: np.ndarray  # [steps], nats, as the document reduces it
    envelope: np.ndarray  # [steps], relative
    initial_weights: np.ndarray  # [variables, 10], see `statistics`
    weights: dict[int, np.ndarray]  # steps done -> [variables, 10]

    @property
    def horizon(self) -> int:
        """Number of steps that can be compared."""
        within = np.flatnonzero(self.envelope <= HORIZON[self.precision])
        return int(within[-1]) + 1 if len(within) else 0

    @property
    def tolerance(self) -> np.ndarray:
        """Largest relative difference that counts as equal, for each step."""
        return FLOOR[self.precision] + ENVELOPES * self.envelope


def load(path: Path) -> Recording:
    """Reads and checks a recording.

    Raises:
      BadInput: the file is not a whole recording.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recording = Recording(
            document=str(content["document"])[:3],  # older ones have the name of the text's file
            precision=content["precision"],
            seed=int(content["seed"]),
            batch_size=int(content["batch_size"]),
            latent_dim=int(content["latent_dim"]),
            names=tuple(v["name"] for v in content["variables"]),
            shapes=tuple(tuple(v["shape"]) for v in content["variables"]),
            loss=np.array(content["loss"], np.float64),
            envelope=np.array(content["envelope"], np.float64),
            initial_weights=np.array(content["initial_weights"], np.float64),
            weights={int(k): np.array(v, np.float64) for k, v in content["weights"].items()},
        )
        whole = _is_whole(recording)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise BadInput(f"{path} is no recording ({type(error).__name__}: {error})") from error
    if not whole:
        raise BadInput(f"{path} is no whole recording: its fields do not fit together")
    return recording


def _is_whole(recording: Recording) -> bool:
    """Whether the fields of a recording fit together."""
    variables, steps = (len(recording.names), 10), recording.loss.shape
    return bool(
        recording.precision in FLOOR
        and 0 <= recording.seed < 2**32
        and recording.envelope.shape == steps
        and len(steps) == 1
        and np.isfinite([recording.loss, recording.envelope]).all()
        and recording.horizon > 0
        and all(mark > 0 for mark in recording.weights)
        and all(w.shape == variables for w in recording.weights.values())
        and recording.initial_weights.shape == variables
    )


def find(folder: Path, modules: Sequence[str], precision: str) -> Iterator[tuple[str, Recording]]:
    """The recordings in a folder, or in its subfolders, that are asked for: (module, recording).

    Raises:
      BadInput: there are none, or one of them is not whole.
    """
    paths = sorted([*folder.glob("lockstep-*.json"), *folder.glob("*/lockstep-*.json")])
    found = set()
    for path in paths:
        recording = load(path)
        document = of_number(recording.document)
        if document is None:
            raise BadInput(f"{path}: there is no module for document {recording.document!r}")
        module = document.module
        if (modules and module not in modules) or precision not in ("both", recording.precision):
            continue
        found.add(module)
        yield module, recording
    missing = [module for module in modules if module not in found]
    if missing or not found:
        raise BadInput(
            f"{folder} has no recording lockstep-*.json of {' and '.join(missing) or 'any module'}"
            + ("" if precision == "both" else f" in {precision}")
        )


def recording_of(module: str, precision: str) -> Recording:
    """The project's own recording of a module's original."""
    return load(GOLDEN / DOCUMENTS[module].number / f"lockstep-{precision}.json")


# --- Running a port -------------------------------------------------------------------------------


def statistics(variables: Sequence[Any]) -> np.ndarray:
    """Each variable in the ten numbers of a recording, [variables, 10]."""
    return np.array([record.statistics(variable) for variable in variables])


@dataclass(frozen=True)
class Replay:
    """What a port did on the chance of a recording."""

    loss: np.ndarray  # [steps]
    initial_weights: np.ndarray  # [variables, 10]
    weights: dict[int, np.ndarray]  # steps done -> [variables, 10]
    learning_rate: float


def replay(
    trainer: Trainer,
    recording: Recording,
    steps: int,
    on_step: Callable[[int], object] = lambda step: None,
) -> Replay:
    """Runs a port for `steps` steps, looking at its variables where the recording did."""
    variables = trainer.experiment.variables
    initial = statistics(variables)
    marks = [mark for mark in recording.weights if mark <= steps]
    losses: list[np.ndarray] = []
    weights = {}
    done = 0
    for stop in sorted({*marks, steps}):
        for start in range(done, stop, trainer.experiment.steps_per_call):
            end = min(start + trainer.experiment.steps_per_call, stop)
            losses.append(trainer.run(start, end)[:, 0])
            on_step(end)
        done = stop
        if stop in marks:
            weights[stop] = statistics(variables)
    learning_rate = trainer.experiment.optimizer.learning_rate
    return Replay(np.concatenate(losses).astype(np.float64), initial, weights, learning_rate)


# --- Comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """How a replay compares with its recording."""

    steps: int  # compared
    horizon: int  # that could be compared
    difference: np.ndarray  # [steps], relative
    first_bad_step: int | None  # counted from 1
    problems: tuple[str, ...]  # one line each; empty if the port is proved

    @property
    def largest(self) -> tuple[float, int]:
        """The largest relative difference and its step."""
        worst = int(np.argmax(np.nan_to_num(self.difference, nan=np.inf)))
        return float(self.difference[worst]), worst + 1

    def digits(self, step: int) -> float | None:
        """Decimal digits on which both agree up to `step`, 16 at most; None beyond the end."""
        if step > self.steps:
            return None
        difference = float(np.max(np.nan_to_num(self.difference[:step], nan=1.0)))
        return min(16.0, -math.log10(difference)) if difference > 0 else 16.0


def compare(recording: Recording, ours: Replay) -> Verdict:
    """Applies the rule to every step, and the variables' tolerances at every mark."""
    steps = len(ours.loss)
    theirs = recording.loss[:steps]
    difference = np.abs(ours.loss - theirs) / np.abs(theirs)
    bad = np.flatnonzero(~(difference <= recording.tolerance[:steps]))  # also where it is NaN
    first_bad = int(bad[0]) + 1 if len(bad) else None
    problem = _variable_problem(recording, ours)
    problems = [] if problem is None else [problem]
    if first_bad is not None:
        t = first_bad - 1
        problems.append(
            f"step {first_bad}: loss {ours.loss[t]:.17g}, recorded {theirs[t]:.17g}: relative"
            f" difference {difference[t]:.2e}, allowed {recording.tolerance[t]:.2e}"
        )
    return Verdict(steps, recording.horizon, difference, first_bad, tuple(problems))


def _variable_problem(recording: Recording, ours: Replay) -> str | None:
    """A line for the first variable that strays, at the start or at the earliest mark."""
    rates = VARIABLE_LEARNING_RATES[recording.precision] * ours.learning_rate
    checks = [(0, ours.initial_weights, recording.initial_weights, INITIAL_TOLERANCE)]
    for step, weights in sorted(ours.weights.items()):
        envelope = recording.envelope[step - 1]
        tolerance = VARIABLE_FLOOR[recording.precision] + VARIABLE_ENVELOPES * envelope
        checks.append((step, weights, recording.weights[step], tolerance))
    # By Cauchy and Schwarz a sum strays sqrt(size) times as far as a norm.
    size = np.array([[math.prod(shape) ** 0.5, *[1.0] * 9] for shape in recording.shapes])
    for step, mine, theirs, tolerance in checks:
        allowed = size * (tolerance * theirs[:, 1:2] + rates * step**0.5)
        bad = np.argwhere(~(np.abs(mine - theirs) <= allowed))
        if len(bad):
            variable, statistic = bad[0]
            return (
                f"after step {step}: {recording.names[variable]}, {STATISTICS[statistic]}"
                f" {mine[variable, statistic]:.17g}, recorded {theirs[variable, statistic]:.17g}"
            )
    return None


def follow(module: str, precision: str, steps: int | None = None) -> Verdict:
    """Runs a module, as it now is, in lockstep with the project's own recording.

    Args:
      module: which.
      precision: of the recording.
      steps: how many to run; by default all up to the horizon.
    """
    port = program(module)
    data = datasets.load(port.dataset, quiet=True)
    return verify(port, recording_of(module, precision), data, steps)


def verify(
    port: Program,
    recording: Recording,
    data: Dataset,
    steps: int | None = None,
    progress: bool = False,
) -> Verdict:
    """Runs a port in lockstep with a recording.

    Args:
      port: of the module.
      recording: of its original.
      data: the port's data set.
      steps: how many to run; by default all up to the horizon.
      progress: whether to show a bar.

    Raises:
      BadInput: the recording is of another model.
    """
    steps = min(recording.horizon, steps or recording.horizon)
    recorded = chance.Recorded(recording.seed)
    experiment = port.experiment(port.config(), data, recorded, recording.precision)
    theirs = recording.batch_size, recording.latent_dim
    if theirs != (experiment.batches.batch_size, experiment.latent_dim):
        raise BadInput(
            f"the recording has batches of {recording.batch_size} and {recording.latent_dim} latent"
            f" dimensions, {port.name} {experiment.batches.batch_size} and"
            f" {experiment.latent_dim}"
        )
    shapes = tuple(tuple(v.shape) for v in experiment.variables)
    if shapes != recording.shapes:
        raise BadInput(f"the recording's variables are not those of {port.name}")
    if experiment.compile_with_xla:
        # XLA compiles anew for every length of a block. The recording's marks would make many;
        # these blocks make few, and any block makes the same steps.
        experiment = dataclasses.replace(experiment, block=5 if steps > 5 else 1)
    title = f"{port.name} {recording.precision}"
    with tqdm(total=steps, desc=title, unit="step", disable=not progress, leave=False) as bar:
        ours = replay(Trainer(experiment), recording, steps, lambda step: bar.update(step - bar.n))
    return compare(recording, ours)


# --- The table ------------------------------------------------------------------------------------

HEADER = (
    f"{'module':12} {'precision':9} {'steps':>5} {'horizon':>7} {'largest difference':>18} "
    f"{'at step':>7} {'digits agreed by step 1, 10, 100':>32}  verdict"
)


def as_entry(module: str, recording: Recording, verdict: Verdict) -> dict[str, Any]:
    """A line of the table, and the series behind it, as JSON."""
    largest, step = verdict.largest
    return {
        "module": module,
        "precision": recording.precision,
        "steps": verdict.steps,
        "horizon": verdict.horizon,
        "largest_difference": largest,
        "largest_step": step,
        "digits": {str(n): verdict.digits(n) for n in DIGITS_AT},
        "first_step_over_the_limit": verdict.first_bad_step,
        "passed": not verdict.problems,
        "problems": list(verdict.problems),
        "difference": series(verdict),
    }


def series(verdict: Verdict) -> list[float]:
    """The relative difference of every step, to three digits, for the picture of the proof."""
    return [float(f"{difference:.3g}") for difference in verdict.difference]


def floored(digits: float | None) -> str:
    """A number of digits, rounded down."""
    return "–" if digits is None else f"{math.floor(10 * digits) / 10:.1f}"


def as_line(entry: dict[str, Any]) -> str:
    """A line of the table, as text."""
    digits = "  ".join(f"{floored(d):>4}" for d in entry["digits"].values())
    return (
        f"{entry['module']:12} {entry['precision']:9} {entry['steps']:5} {entry['horizon']:7} "
        f"{entry['largest_difference']:18.1e} {entry['largest_step']:7} {digits:>32}  "
        f"{'equal' if entry['passed'] else 'DIFFERENT'}"
    )
