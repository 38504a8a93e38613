"""A module's numbers in a few seconds: what `full_runs --renew` compares, in double precision.

A change of code that leaves the computation alone leaves these numbers alone: what the module hands
to the loop, the first losses, and, for weights that are spread out, what it validates, evaluates
and reports. Spread out, because at the small weights of a start such numbers hardly depend on the
noise, on the labels or on any single variable, and a mistake would not show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from common.chance import Seeded
from common.datasets import Dataset
from common.evaluation import Draw
from common.program import Program
from common.training import Experiment, Progress, Trainer

FIRST_STEPS = 5
TEST_IMAGES = 500
LIKELIHOOD = {"images": 4, "samples": 20}  # sizes of the sampling of the log-likelihood
DRAWN = 20  # pictures of each digit that the classifier sees; a run draws 1,000
ROUNDS = 30  # of a made-up training, on which the module reports
CODES = 16  # that every digit is drawn from
LEAST_KL = 1.0  # nats per image, at the spread-out weights
TOLERANCE = 1e-7  # relative; double precision differs by less between processors


def probe(program: Program, data: Dataset) -> dict[str, Any]:
    """The numbers of a module, with its document's settings and seed 0.

    Args:
      program: the module's.
      data: its whole data set; evaluations take the first images of the test set.
    """
    few = dataclasses.replace(
        data, test_images=data.test_images[:TEST_IMAGES], test_labels=data.test_labels[:TEST_IMAGES]
    )
    experiment = program.experiment(program.config(), few, Seeded(0), "float64")
    handed_over = {
        "steps": experiment.steps,
        "steps_per_round": experiment.steps_per_round,
        "learning_rate": experiment.optimizer.learning_rate,
        "trained": int(sum(np.prod(v.shape) for v in experiment.variables)),
    }
    first_losses = Trainer(experiment).run(0, FIRST_STEPS).tolist()
    spread_out(experiment)
    return {
        "handed_over": handed_over,
        "first_losses": first_losses,
        "validation": experiment.validate(1),
        "results": program.results(experiment),
        "evaluation": program.evaluate(experiment, None, DRAWN, **LIKELIHOOD),
        "frame": summary(experiment.frame()),
        "drawn": drawn(program.draw, experiment) if program.draw else [],
        "report": reports(experiment),
    }


def spread_out(experiment: Experiment) -> None:
    """Gives every variable normal entries, just so large that codes differ between images."""
    data = experiment.images[:TEST_IMAGES], experiment.labels[:TEST_IMAGES]
    eps = experiment.chance.codes("probe", (TEST_IMAGES, experiment.latent_dim))
    for gain in np.arange(0.5, 5, 0.25):
        for i, variable in enumerate(experiment.variables):
            shape = tuple(variable.shape)
            stddev = gain * np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else gain / 10
            variable.assign(stddev * np.random.RandomState(i).standard_normal(shape))
        if np.mean(experiment.loss(*data, eps.astype(experiment.dtype)).kl) > LEAST_KL:
            return
    raise AssertionError(f"no weights give a KL of {LEAST_KL} nats")


def drawn(draw: Draw, experiment: Experiment) -> list[list[float]]:
    """Every digit drawn from the same codes, in two numbers each."""
    codes = experiment.chance.codes("probe", (CODES, experiment.latent_dim))
    return [summary(draw(experiment.model, digit, codes)) for digit in range(10)]


def summary(pictures: np.ndarray) -> list[float]:
    """Pictures in two numbers: their mean, and a projection that every pixel's place changes."""
    flat = np.asarray(pictures, np.float64).ravel()
    return [float(flat.mean()), float(flat @ np.random.RandomState(0).standard_normal(flat.size))]


def reports(experiment: Experiment) -> list[str | None]:
    """What the module prints in a training whose every number says where it stands."""
    rows: list[dict[str, float]] = []
    lines = []
    columns = ["loss", "reconstruction", "kl", "last_loss", *experiment.validate(1), "seconds"]
    for k in range(1, ROUNDS + 1):
        steps = k * experiment.steps_per_round
        where = k if experiment.round_name == "epoch" else steps
        numbers = {name: 100.0 * i + k for i, name in enumerate(columns, start=1)}
        rows.append({experiment.round_name: where, **numbers})
        losses = np.arange(3.0 * steps).reshape(steps, 3)
        lines.append(experiment.report(Progress(step=steps, losses=losses, rows=rows)))
    return lines


def differences(now: Any, kept: Any, where: str = "") -> Iterator[str]:
    """A line for each number of a probe that is not what it was.

    Args:
      now: what `probe` returned.
      kept: the same, read from JSON.
      where: the place in the structure, in words.
    """
    if isinstance(now, dict) and isinstance(kept, dict) and now.keys() == kept.keys():
        for name in now:
            yield from differences(now[name], kept[name], f"{where} {name}".strip())
    elif isinstance(now, list) and isinstance(kept, list) and len(now) == len(kept):
        for i, (a, b) in enumerate(zip(now, kept, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(now, (int, float)) and isinstance(kept, (int, float)):
        if not abs(now - kept) <= TOLERANCE * abs(kept):
            yield f"{where}: {now!r}, was {kept!r}"
    elif now != kept:
        yield f"{where}: {now!r}, was {kept!r}"
