"""Lockstep: a port and a recording of its original, step by step from the same weights, batches and
noise.

The format of a recording and the rule of equality are in `reproductions/golden/README.md`:

    |ours[t] - loss[t]| <= (FLOOR + 10 * envelope[t]) * |loss[t]|

for every step up to the horizon. The envelope is how far the original strays from itself when its
initial weights are moved by one unit in the last place; training is chaotic, and no port can follow
longer than that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import BadInput
from common.training import Trainer

Array = np.ndarray

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
    loss: Array  # [steps], nats, as the document reduces it
    envelope: Array  # [steps], relative
    initial_weights: Array  # [variables, 10], see `statistics`
    weights: dict[int, Array]  # steps done -> [variables, 10]

    @property
    def horizon(self) -> int:
        """Number of steps that can be compared."""
        within = np.flatnonzero(self.envelope <= HORIZON[self.precision])
        return int(within[-1]) + 1 if len(within) else 0

    @property
    def tolerance(self) -> Array:
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
            document=str(content["document"])[:3],
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no recording ({type(error).__name__}: {error})") from error
    variables = (len(recording.names), 10)
    whole = (
        recording.precision in FLOOR
        and len(recording.loss) == len(recording.envelope) > 0
        and np.isfinite([recording.loss, recording.envelope]).all()
        and recording.horizon > 0
        and all(w.shape == variables for w in recording.weights.values())
        and recording.initial_weights.shape == variables
    )
    if not whole:
        raise BadInput(f"{path} is no whole recording: its fields do not fit together")
    return recording


def statistics(variables: Sequence[Any]) -> Array:
    """A variable in ten numbers: its sum, its L2 norm and eight of its entries, [variables, 10]."""
    rows = []
    for variable in variables:
        flat = np.asarray(variable, np.float64).ravel()
        places = np.linspace(0, flat.size - 1, 8).astype(int)
        # Not np.linalg.norm: BLAS adds in an order that depends on its threads.
        rows.append([flat.sum(), np.sqrt(np.square(flat).sum()), *flat[places]])
    return np.array(rows)


@dataclass(frozen=True)
class Replay:
    """What a port did on the chance of a recording."""

    loss: Array  # [steps]
    initial_weights: Array  # [variables, 10]
    weights: dict[int, Array]  # steps done -> [variables, 10]
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
    losses: list[Array] = []
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


@dataclass(frozen=True)
class Verdict:
    """How a replay compares with its recording."""

    steps: int  # compared
    horizon: int  # that could be compared
    difference: Array  # [steps], relative
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
