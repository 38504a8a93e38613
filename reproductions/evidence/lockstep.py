"""The lockstep of the six modules: finds the recordings, runs a port on one, makes the table.

How a replay is compared with its recording is in `common/lockstep.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import chance, datasets
from common.datasets import Dataset
from common.errors import BadInput
from common.lockstep import Recording, Verdict, compare, load, replay
from common.training import Trainer
from reproductions import GOLDEN, program
from reproductions.evidence.documents import DOCUMENTS, of_number

DIGITS_AT = (1, 10, 100)  # steps


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
    port: Any,
    recording: Recording,
    data: Dataset,
    steps: int | None = None,
    progress: bool = False,
) -> Verdict:
    """Runs a port in lockstep with a recording.

    Args:
      port: the module.
      recording: of its original.
      data: the port's data set.
      steps: how many to run; by default all up to the horizon.
      progress: whether to show a bar.

    Raises:
      BadInput: the recording is of another model.
    """
    from tqdm import tqdm

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
