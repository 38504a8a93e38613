"""One side of the benchmark, in a process of its own: it steps when it is told to.

    python -m benchmarks.worker SIDE VARIANT WORKLOAD

On stdout it says in a line of JSON that it is ready, with its first losses; for each line on stdin,
a number of steps, it answers with the seconds that they took, after some unclocked ones. Between
its turns it sleeps.
"""

from __future__ import annotations

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

from benchmarks.workload import Workload

FIRST = 4  # steps before the clock starts; their losses are compared
MATRIX = 2048

Run = Callable[[int], Any]  # makes n steps


def ours(load: Workload, variant: str) -> tuple[Run, dict[str, Any]]:
    """ "loop": what a run does. "bare": the compiled step alone, on one batch."""
    from common import datasets
    from common.chance import Seeded
    from common.lazy import tf
    from common.training import Trainer
    from reproductions import program

    port = program(load.module)
    data = datasets.load(port.dataset)
    trainer = Trainer(port.experiment(port.config(), data, Seeded(0), "float32"))
    if variant == "bare":
        batch = [tf.constant(part[0]) for part in (load.images, load.labels, load.eps)]
        step = tf.function(trainer.step, jit_compile=trainer.experiment.compile_with_xla)
        return lambda n: [step(*batch).numpy() for _ in range(n)], {}
    block = trainer.experiment.steps_per_call
    losses = trainer.run(0, FIRST)[:, 0].tolist()

    def run(n: int) -> None:
        trainer.run(0, math.ceil(n / block) * block)

    return run, {"losses": losses, "block": block}


def rival(load: Workload, side: str, variant: str) -> tuple[Run, dict[str, Any]]:
    """PyTorch or JAX."""
    framework = importlib.import_module(f"benchmarks.in_{side}")
    run = framework.steps(load, variant)
    said = {"losses": run(FIRST)}
    if variant == "eager":
        said["flops"] = framework.flops(load)
    return run, said


def peak(variant: str) -> tuple[Run, dict[str, Any]]:
    """A float32 product of square matrices, by NumPy or TensorFlow."""
    a = np.random.default_rng(0).random((MATRIX, MATRIX), np.float32)
    if variant == "numpy":
        return lambda n: [a @ a for _ in range(n)], {}
    from common.lazy import tf

    b = tf.constant(a)
    return lambda n: [(b @ b).numpy() for _ in range(n)], {}


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
    side, variant, path = sys.argv[1:]
    if side == "peak":
        run, said = peak(variant)
    elif side == "ours":
        run, said = ours(Workload.load(Path(path)), variant)
    else:
        run, said = rival(Workload.load(Path(path)), side, variant)
    run(1)
    serve(run, said, replies)


if __name__ == "__main__":
    main()
