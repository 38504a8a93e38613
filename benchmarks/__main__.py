"""`python -m benchmarks [module ...]`: what the training loop costs over the bare compiled step.

Both sides are measured in turn within one run, so that the machine's noise hits both alike; the
table shows medians over the rounds. The bare step is the same compiled function of one batch,
called from Python on the same images; the loop gathers its batches, draws the noise, and brings
every loss home.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable

from common import datasets
from common.chance import Seeded
from common.lazy import tf
from common.training import Trainer
from reproductions import CATALOGUE

MODULES = [entry.module for entry in CATALOGUE]
SECONDS = 2.0  # of each side in each round, about


def main() -> None:
    """Prints a line for each module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="module", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for module in options.modules:
        if module not in MODULES:
            parser.error(f"no module {module!r}: choose from {', '.join(MODULES)}")
    print(f"{'module':12} {'bare step':>10} {'in the loop':>12} {'loop / bare':>12}")
    for module in options.modules or MODULES:
        bare, loop = measure(module, options.rounds)
        print(f"{module:12} {bare:7.2f} ms {loop:9.2f} ms {loop / bare:12.2f}", flush=True)


def measure(module: str, rounds: int) -> tuple[float, float]:
    """Median milliseconds of a step: bare, and in the loop."""
    program = importlib.import_module(f"reproductions.{module}").PROGRAM
    data = datasets.load(program.dataset)
    config = program.config()
    trainer = Trainer(program.experiment(config, data, Seeded(0), "float32"))
    steps = trainer.experiment.steps_per_call

    bare = bare_step(trainer)
    bare()
    trainer.run(0, steps)  # compiles
    calls = max(1, round(SECONDS / seconds(lambda: trainer.run(0, steps))))
    times: dict[str, list[float]] = {"bare": [], "loop": []}
    for _ in range(rounds):
        times["bare"].append(seconds(lambda: [bare() for _ in range(calls * steps)]))
        times["loop"].append(seconds(lambda: [trainer.run(0, steps) for _ in range(calls)]))
    per_step = 1e3 / (calls * steps)
    return statistics.median(times["bare"]) * per_step, statistics.median(times["loop"]) * per_step


def bare_step(trainer: Trainer) -> Callable[[], object]:
    """The compiled step on one fixed batch."""
    experiment = trainer.experiment
    batch = experiment.batches(0)
    images, labels = tf.constant(experiment.images[batch]), tf.constant(experiment.labels[batch])
    eps = tf.constant(experiment.chance.noise(0, (len(batch), experiment.latent_dim)))
    step = tf.function(trainer._step, jit_compile=experiment.compile_with_xla)
    return lambda: step(images, labels, eps).numpy()


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
