"""One side of the benchmark, in a process of its own: it steps when it is told to.

    python -m benchmarks.worker SIDE VARIANT WORKLOAD PRECISION

PRECISION is "float32", or "tf32": a GPU then multiplies with ten bits of each factor's fraction.

On stdout it says in a line of JSON that it is ready, with its first losses; for each line on stdin,
a number of steps, it answers with the seconds that they took, after some unclocked ones. Between
its turns it sleeps.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import MATRIX
from benchmarks.workload import Workload
from common import datasets
from common.chance import Seeded
from common.lazy import tf
from common.training import Trainer
from reproductions import program

FIRST = 4  # steps before the clock starts; their losses are compared

Run = Callable[[int], Any]  # makes n steps


def ours(work: Workload, variant: str, tf32: bool) -> tuple[Run, dict[str, Any]]:
    """A side of ours.

    "loop" is what a run does; "with XLA" and "without XLA" are the same loop with the other choice
    of compiler; "bare" is the compiled step alone, on one batch.
    """
    port = program(work.module)
    data = datasets.load(port.dataset)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    experiment = port.experiment(port.config(), data, Seeded(0), "float32")
    if variant.endswith("XLA"):
        experiment = dataclasses.replace(experiment, compile_with_xla=variant == "with XLA")
    trainer = Trainer(experiment)
    if variant == "bare":
        batch = [tf.constant(part[0]) for part in (work.images, work.labels, work.eps)]
        step = tf.function(trainer.step, jit_compile=trainer.experiment.compile_with_xla)
        return lambda n: [step(*batch).numpy() for _ in range(n)], {}
    block = trainer.experiment.steps_per_call
    losses = trainer.run(0, FIRST)[:, 0].tolist()

    def run(n: int) -> None:
        trainer.run(0, math.ceil(n / block) * block)

    return run, {"losses": losses, "block": block}


def rival(work: Workload, side: str, variant: str, tf32: bool) -> tuple[Run, dict[str, Any]]:
    """PyTorch or JAX."""
    framework = importlib.import_module(f"benchmarks.in_{side}")
    framework.use_tf32(tf32)
    run = framework.steps(work, variant)
    said = {"losses": run(FIRST)}
    if variant == "eager":
        said["flops"] = framework.flops(work)
    return run, said


def peak(variant: str, tf32: bool) -> tuple[Run, dict[str, Any]]:
    """A float32 product of square matrices, by NumPy or TensorFlow."""
    a = np.random.default_rng(0).random((MATRIX, MATRIX), np.float32)
    if variant == "numpy":
        return lambda n: [a @ a for _ in range(n)], {}

    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    b = tf.constant(a)

    def run(n: int) -> None:
        for _ in range(n):
            product = b @ b
        product[0, 0].numpy()  # waits for a GPU

    return run, {}


def serve(run: Run, said: dict[str, Any], replies: Any) -> None:
    """Answers until stdin ends."""
    print(json.dumps(said), file=replies, flush=True)
    for line in sys.stdin:
        steps = int(line)
        run(math.ceil(steps / 4))  # awake again, its memory and caches at hand, before the clock
        began = time.perf_counter()
        run(steps)
        print(time.perf_counter() - began, file=replies, flush=True)


def main() -> None:
    """Builds the side and serves."""
    replies = os.fdopen(os.dup(1), "w")  # libraries that print do not get between the lines
    os.dup2(2, 1)
    side, variant, path, precision = sys.argv[1:]
    tf32 = precision == "tf32"
    if side == "peak":
        run, said = peak(variant, tf32)
    elif side == "ours":
        run, said = ours(Workload.load(Path(path)), variant, tf32)
    else:
        run, said = rival(Workload.load(Path(path)), side, variant, tf32)
    run(1)
    serve(run, said, replies)


if __name__ == "__main__":
    main()
